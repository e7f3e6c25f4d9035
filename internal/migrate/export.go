package migrate

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/qfile"
	"tarishi/internal/vfs"
)

// Source is where messages are; every store.Store is one.
type Source interface {
	Walk(fn func(mail.Pending) bool)
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
}

// ExportOptions is how Export works.
type ExportOptions struct {
	Host string           // for the names of the files
	FS   vfs.FS           // nil: the real one
	Now  func() time.Time // nil: time.Now
}

// Export writes all messages of a queue that nobody changes meanwhile to dir,
// as files of Haraka's queue; recipients that are settled are left out. A dir
// that holds such files already is an error. So that none is lost on the way
// back, messages that Haraka could not treat as their sender asked are skipped.
// It stops early when ctx ends.
func Export(ctx context.Context, src Source, dir string, o ExportOptions) (*Report, error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	e := &exporter{src: src, dir: dir, options: o, work: make(chan mail.Pending)}
	if err := e.prepareFolder(); err != nil {
		return &e.report, err
	}

	// Each file is synced by itself. Many workers let these syncs overlap.
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for p := range e.work {
				e.exportMessage(p)
			}
		})
	}
	src.Walk(func(p mail.Pending) bool {
		if ctx.Err() == nil {
			e.work <- p
		}
		return ctx.Err() == nil
	})
	close(e.work)
	wg.Wait()

	// The names become durable together, with one sync of the folder.
	if err := ctx.Err(); err != nil {
		return &e.report, err
	}
	return &e.report, o.FS.SyncDir(dir)
}

type exporter struct {
	src     Source
	dir     string
	options ExportOptions
	work    chan mail.Pending

	mu     sync.Mutex
	report Report
	files  int
}

func (e *exporter) prepareFolder() error {
	if err := e.options.FS.Mkdir(e.dir); err != nil {
		return err
	}
	list, err := e.options.FS.List(e.dir)
	for _, entry := range list {
		if _, kind := qfile.ParseName(entry.Name); kind == qfile.Waiting {
			return fmt.Errorf("%s holds files of a queue, such as %s: a second export would deliver twice", e.dir, entry.Name)
		}
	}
	return err
}

// group is recipients that share a file.
type group struct {
	domain   string
	attempts int
	next     int64 // Unix milliseconds, 0: at once
}

// exportMessage writes the files of one message.
func (e *exporter) exportMessage(p mail.Pending) {
	env, content, err := e.src.Load(p.ID)
	if err == nil && env.RequireTLS {
		e.addProblem(&e.report.Skipped, p.ID, errors.New("it demands TLS on the whole way (REQUIRETLS), which Haraka cannot keep"))
		return
	}

	// Notes about our own deliveries mean nothing to Haraka, and the original UUID makes a file
	// come back under its old identity.
	var notes json.RawMessage
	uuid := ""
	if err == nil {
		uuid = env.Notes.String(originUUID)
		kept := env.Notes.Clone()
		delete(kept, origin)
		delete(kept, mail.DeliveryNotes)
		if len(kept) > 0 {
			notes, err = json.Marshal(kept)
		}
	}
	if err != nil {
		e.addProblem(&e.report.Failed, p.ID, err)
		return
	}

	// A file of Haraka's has one destination and one schedule, so recipients that differ in either
	// get files of their own.
	var order []group
	members := map[group][]qfile.Recipient{}
	for _, r := range p.Recipients {
		g := group{domain: r.Address.Host(), attempts: r.Attempts}
		if !r.Next.IsZero() {
			g.next = r.Next.UnixMilli()
		}
		if members[g] == nil {
			order = append(order, g)
		}
		members[g] = append(members[g], qfile.Recipient{Address: r.Address})
	}
	for k, g := range order {
		m := &qfile.Message{
			Queued: env.Received, Domain: g.domain, Recipients: members[g], From: env.From, Notes: notes, UUID: uuid, Content: content,
		}
		if uuid == "" {
			m.UUID = fmt.Sprintf("%s.%d", p.ID, k+1)
		}

		// Each file stands for itself. One that fails is reported and keeps none of the others from
		// being written.
		err := e.writeFile(m, g)
		if err != nil {
			e.addProblem(&e.report.Failed, p.ID, err)
			continue
		}
		e.mu.Lock()
		e.report.Messages++
		e.mu.Unlock()
	}
}

func (e *exporter) addProblem(list *[]Problem, id mail.ID, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	*list = append(*list, Problem{Name: string(id), Err: err})
}

// writeFile makes one file durable; its name is so when the folder is synced.
func (e *exporter) writeFile(m *qfile.Message, g group) error {
	now := e.options.Now()
	if m.Queued.UnixMilli() < 0 {
		m.Queued = now
	}

	// The name carries the schedule: a message that was deferred stays so after the move.
	next := now
	switch {
	case g.next != 0:
		next = time.UnixMilli(g.next)
	case g.attempts == 0: // as in a file that is new
		next = m.Queued
	}
	e.mu.Lock()
	e.files++
	counter := e.files % 10001 // Haraka's goes from 1 to 10000, then to 0
	e.mu.Unlock()
	name := qfile.FormatName(qfile.Name{
		Arrival: m.Queued, Next: next, Attempts: g.attempts, PID: os.Getpid(),
		Unique: strings.ToLower(rand.Text()[:6]), Counter: counter, Host: e.options.Host,
	})

	// An existing file is never replaced: it would be a message.
	path := filepath.Join(e.dir, name)
	if f, err := e.options.FS.Open(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			f.Close()
		}
		return fmt.Errorf("%s is there already", path)
	}

	// Haraka ignores temporary names, so a crash leaves no half message that it would deliver.
	temp := filepath.Join(e.dir, qfile.TempName(name))
	f, err := e.options.FS.Create(temp)
	if err != nil {
		return err
	}
	err = qfile.Encode(f, m)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = e.options.FS.Rename(temp, path)
	}
	if err != nil {
		_ = e.options.FS.Remove(temp) // else it is the administrator's, or Haraka's start
	}
	return err
}
