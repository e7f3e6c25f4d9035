package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/maillog"
	"tarishi/internal/migrate"
	"tarishi/internal/privilege"
	"tarishi/internal/store/disk"
	"tarishi/internal/vfs"
)

// named is how many files the log names; a full disk may be the trouble of all.
const named = 100

// adopt imports what Haraka left in the queue folder. It must be over before
// anything is delivered: see package migrate.
func (s *Server) adopt(ctx context.Context) {
	log := s.log.Named("queue")
	r, err := migrate.Import(ctx, s.queue, s.current.Load().cfg.QueueDir, migrate.ImportOptions{Own: true, Put: s.outbound.Enqueue})
	if err != nil {
		log.Error("files of Haraka's queue are not imported", zap.Error(err))
	}

	// Each file is named, up to a number.
	for _, p := range r.Failed[:min(named, len(r.Failed))] {
		log.Error("file of Haraka's queue stays where it is", zap.String("file", p.Name), zap.Error(p.Err))
	}
	for _, p := range r.Skipped[:min(named, len(r.Skipped))] {
		log.Warn("file of Haraka's queue is not imported", zap.String("file", p.Name), zap.Error(p.Err))
	}
	if r.Messages+len(r.Failed)+len(r.Skipped) > 0 {
		log.Info("imported from Haraka's queue", zap.Int("messages", r.Messages),
			zap.Int("failed", len(r.Failed)), zap.Int("skipped", len(r.Skipped)))
	}
}

// ImportOptions is how ImportHaraka works.
type ImportOptions struct {
	DryRun bool // only read the files
	Hold   bool // nothing of it is to be attempted until it is released
}

// ImportHaraka imports the files of Haraka's queue folder dir into the queue of
// a daemon that does not run. A dry run only reads them, even if a daemon runs. Errors of the
// queue go to stderr.
func ImportHaraka(ctx context.Context, cfg *conf.Config, dir string, how ImportOptions, stderr io.Writer) (*migrate.Report, error) {
	o := migrate.ImportOptions{DryRun: how.DryRun, Hold: how.Hold, Own: sameFolder(dir, cfg.QueueDir)}
	if o.DryRun {
		return migrate.Import(ctx, nil, dir, o)
	}
	if err := privilege.CheckOwner(cfg.QueueDir, os.Geteuid()); err != nil {
		return nil, err
	}
	q, err := disk.Open(disk.Options{Dir: cfg.QueueDir, Log: errorLog(stderr)})
	if err != nil {
		return nil, fmt.Errorf("import needs a queue that no daemon works on: %w", err)
	}
	q.Use(cfg.Queue)

	// The store needs its goroutines to make anything durable.
	running := start(q.Run)
	r, err := migrate.Import(ctx, q, dir, o)
	return r, errors.Join(err, running.stop(), q.Close())
}

// ExportHaraka writes the queue of a daemon that does not run to
// dir, as files of Haraka's queue. The queue stays as it is.
func ExportHaraka(ctx context.Context, cfg *conf.Config, dir string, stderr io.Writer) (*migrate.Report, error) {
	if _, err := os.Stat(cfg.QueueDir); err != nil {
		return nil, err
	}
	// A lock that root makes here would be root's, and keep the daemon's user out.
	name := filepath.Join(cfg.QueueDir, "lock")
	if _, err := os.Stat(name); err == nil {
		lock, err := vfs.OS{}.Lock(name)
		var locked *vfs.LockedError
		switch {
		case errors.As(err, &locked):
			return nil, fmt.Errorf("export needs a queue that no daemon works on: spool %s is in use by another tarishi%s", cfg.QueueDir, locked.Holder())
		case err == nil:
			defer lock.Close() // a queue on a read-only disk goes without
		}
	}
	q, err := disk.OpenReadOnly(disk.Options{Dir: cfg.QueueDir, Log: errorLog(stderr)})
	if err != nil {
		return nil, err
	}
	defer q.Close()
	host, err := os.Hostname()
	if err != nil {
		host = cfg.Me
	}
	return migrate.Export(ctx, q, dir, migrate.ExportOptions{Host: host})
}

// RestoreCorrupt brings messages back from corrupt/ of the queue of a daemon that does
// not run. A dry run only says what would be, even if a daemon runs.
func RestoreCorrupt(ctx context.Context, cfg *conf.Config, dryRun bool, stderr io.Writer) ([]disk.Restoration, error) {
	o := disk.Options{Dir: cfg.QueueDir, Log: errorLog(stderr)}
	if dryRun {
		q, err := disk.OpenReadOnly(o)
		if err != nil {
			return nil, err
		}
		defer q.Close()
		return q.Restore(ctx, true)
	}
	if err := privilege.CheckOwner(cfg.QueueDir, os.Geteuid()); err != nil {
		return nil, err
	}
	q, err := disk.Open(o)
	if err != nil {
		return nil, fmt.Errorf("recover needs a queue that no daemon works on: %w", err)
	}
	q.Use(cfg.Queue)
	running := start(q.Run)
	all, err := q.Restore(ctx, false)
	return all, errors.Join(err, running.stop(), q.Close())
}

func errorLog(w io.Writer) *zap.Logger {
	return zap.New(maillog.NewCore(maillog.Settings{Level: "error"}, w))
}

// sameFolder reports whether two names are of one folder.
func sameFolder(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
