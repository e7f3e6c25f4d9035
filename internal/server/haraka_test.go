package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tarishi/internal/conf"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/qfile"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// haraka makes an instance whose mail goes to a server on loopback, and puts
// Haraka's sample files in a folder. The file that has no place is damaged.
func haraka(t *testing.T, to *smtptest.Server, folder string) (cfg *conf.Config, dir string) {
	t.Helper()
	names := dnstest.New(t)
	names.SetDefault("mx.test", "127.0.0.1")
	root := t.TempDir()
	dir = filepath.Join(root, folder)
	files := map[string]string{
		"me":           "me.test\n",
		"plugins":      "",
		"smtp.ini":     "listen=127.0.0.1:0\n",
		"dns.ini":      "servers[]=" + names.Addr() + "\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", to.Port()),
	}
	place := filepath.Join("..", folder)
	files[filepath.Join(place, "1_1_0_1_aaaaaa_1_h")] = "no place for it"
	list, err := os.ReadDir("../qfile/testdata")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		b, err := os.ReadFile(filepath.Join("../qfile/testdata", e.Name()))
		if err != nil {
			continue // a folder
		}
		files[filepath.Join(place, e.Name())] = string(b)
	}
	return instanceIn(t, root, files), dir
}

// run starts the daemon; the function that it returns stops it.
func run(t *testing.T, cfg *conf.Config) (stop func()) {
	t.Helper()
	stop, _ = launch(t, cfg)
	return stop
}

// launch is run, and returns the daemon too.
func launch(t *testing.T, cfg *conf.Config) (stop func(), s *Server) {
	t.Helper()
	var log lines // which sessions, too, write to
	end, s := launchTo(t, cfg, &log)
	return func() {
		end()
		if t.Failed() {
			t.Log(log.String())
		}
	}, s
}

// launchTo is launch with the log in the caller's hands.
func launchTo(t *testing.T, cfg *conf.Config, log io.Writer) (stop func(), s *Server) {
	t.Helper()
	w := maillog.NewWriter(log)
	s, err := New(cfg, Options{Version: "test", Log: w})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, nil) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		w.Close()
	}, s
}

// waitFor returns when a server has all messages of the samples.
func waitFor(t *testing.T, to *smtptest.Server) {
	t.Helper()
	for end := time.Now().Add(time.Minute); len(to.Messages()) < 6; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d messages were delivered", len(to.Messages()))
		}
	}
}

// TestAdopt starts a daemon on Haraka's queue folder.
func TestAdopt(t *testing.T) {
	to := smtptest.New(t)
	cfg, dir := haraka(t, to, "queue")
	stop := run(t, cfg)
	waitFor(t, to)
	stop()
	stop = run(t, cfg) // nothing comes twice
	stop()
	for _, m := range to.Messages() {
		if strings.HasSuffix(m.Rcpts[0].Address, "pé@bücher.test") && m.From != "josé@exämple.test" {
			t.Errorf("%+v", m)
		}
	}
	if n := len(to.Messages()); n != 6 {
		t.Errorf("%d messages", n)
	}
	if list, err := os.ReadDir(filepath.Join(dir, "imported")); err != nil || len(list) != 6 {
		t.Error(list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "1_1_0_1_aaaaaa_1_h")); err != nil {
		t.Error(err)
	}
}

// TestMoveThereAndBack imports a folder, exports the queue, and delivers what
// was imported.
func TestMoveThereAndBack(t *testing.T) {
	to := smtptest.New(t)
	cfg, dir := haraka(t, to, "old")
	r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{DryRun: true}, os.Stderr)
	if err != nil || r.Messages != 6 || len(r.Failed) != 1 {
		t.Fatalf("dry run: %+v, %v", r, err)
	}
	if r, err = ImportHaraka(t.Context(), cfg, dir, ImportOptions{}, os.Stderr); err != nil || r.Messages != 6 || len(r.Failed) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	out := filepath.Join(t.TempDir(), "haraka")
	if r, err = ExportHaraka(t.Context(), cfg, out, os.Stderr); err != nil || r.Messages != 6 {
		t.Fatalf("%+v, %v", r, err)
	}
	list, err := os.ReadDir(out)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if _, kind := qfile.ParseName(e.Name()); kind != qfile.Waiting {
			t.Error(e.Name())
		}
	}
	stop := run(t, cfg)
	defer stop()
	waitFor(t, to)
	if _, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{}, os.Stderr); err == nil || !strings.Contains(err.Error(), "in use by another tarishi") {
		t.Error("imported beside a daemon:", err)
	}
	if _, err := ExportHaraka(t.Context(), cfg, filepath.Join(out, "more"), os.Stderr); err == nil || !strings.Contains(err.Error(), "in use by another tarishi") {
		t.Error("exported beside a daemon:", err)
	}
}

// TestImportAsRoot: what root makes in the queue of a daemon that runs as
// somebody else, that daemon could not read.
func TestImportAsRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	cfg, dir := haraka(t, smtptest.New(t), "old")
	run(t, cfg)() // makes the lock
	const other = 65533
	lock := filepath.Join(cfg.QueueDir, "lock")
	if err := os.Chown(lock, other, other); err != nil {
		t.Fatal(err)
	}
	if r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{}, os.Stderr); err == nil || !strings.Contains(err.Error(), "belongs to uid 65533") {
		t.Fatalf("%+v, %v", r, err)
	}
	if r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{DryRun: true}, os.Stderr); err != nil || r.Messages != 6 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	// Before any daemon has run it is the folder that tells.
	if err := errors.Join(os.Remove(lock), os.Chown(cfg.QueueDir, other, other)); err != nil {
		t.Fatal(err)
	}
	if r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{}, os.Stderr); err == nil || !strings.Contains(err.Error(), "belongs to uid 65533") {
		t.Fatalf("%+v, %v", r, err)
	}
	if err := os.Chown(cfg.QueueDir, 0, 0); err != nil {
		t.Fatal(err)
	}
	if r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{}, os.Stderr); err != nil || r.Messages != 6 {
		t.Errorf("%+v, %v", r, err)
	}
}

// TestImportHeld: what is imported with Hold waits, with its schedule, until it is
// released.
func TestImportHeld(t *testing.T) {
	cfg, dir := haraka(t, smtptest.New(t), "old")
	r, err := ImportHaraka(t.Context(), cfg, dir, ImportOptions{Hold: true}, os.Stderr)
	if err != nil || r.Messages != 6 {
		t.Fatalf("%+v, %v", r, err)
	}
	q, err := disk.OpenReadOnly(disk.Options{Dir: cfg.QueueDir})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	messages, attempts := 0, 0
	q.Walk(func(p mail.Pending) bool {
		messages++
		for _, r := range p.Recipients {
			attempts += r.Attempts
			if !r.Held {
				t.Errorf("%s: recipient %d is not held", p.ID, r.Index)
			}
		}
		return true
	})
	if messages != 6 || attempts == 0 {
		t.Errorf("%d messages, %d attempts", messages, attempts)
	}
}
