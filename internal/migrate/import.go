package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/qfile"
	"tarishi/internal/vfs"
)

// Queue is where messages are put; every store.Store is one.
type Queue interface {
	Put(env *mail.Envelope, c mail.Content) error
	Find(id mail.ID) (mail.Pending, bool)
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
	Hold(id mail.ID, recipients []int) error
	Remove(id mail.ID) error
	Sync() error
}

// ImportOptions is how Import works. The zero value is the usual way.
type ImportOptions struct {
	DryRun bool             // only read the files; the queue may be nil
	Hold   bool             // nothing of it is to be attempted until it is released
	Own    bool             // the folder is the queue's own: there are other files, which are none of Import's business
	FS     vfs.FS           // nil: the real one
	Now    func() time.Time // nil: time.Now

	// Put is told of each message that was put in the queue and is to stay; nil:
	// nobody is.
	Put func(p mail.Pending)
}

const (
	imported = "imported" // the folder in dir to which files are moved

	batch   = 256 // files that share the syncs of the folders
	workers = 32  // messages put at a time: they share the queue's syncs
)

// Import puts the messages of Haraka's queue folder dir in q and moves their
// files to dir/imported. Nobody else may use dir meanwhile. It stops early when
// ctx ends.
func Import(ctx context.Context, q Queue, dir string, o ImportOptions) (*Report, error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &importer{q: q, dir: dir, done: filepath.Join(dir, imported), o: o}
	names, err := i.names()
	if err != nil {
		return &i.report, err
	}
	if len(names) > 0 && !o.DryRun {
		if err := i.prepare(); err != nil {
			return &i.report, err
		}
	}
	for len(names) > 0 {
		if err := ctx.Err(); err != nil {
			return &i.report, fmt.Errorf("%d files are left: %w", len(names), err)
		}
		n := min(batch, len(names))
		if err := i.batch(names[:n]); err != nil {
			return &i.report, err
		}
		names = names[n:]
	}
	return &i.report, nil
}

type importer struct {
	q     Queue
	dir   string
	done  string // the folder imported
	o     ImportOptions
	taken map[string]bool // names in done

	report Report

	mu      sync.Mutex
	claimed map[mail.ID]bool // by files of this batch
}

// names returns the files that are messages.
func (i *importer) names() ([]string, error) {
	list, err := i.o.FS.List(i.dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if e.Dir {
			continue
		}
		switch _, kind := qfile.ParseName(e.Name); kind {
		case qfile.Waiting:
			names = append(names, e.Name)
		case qfile.Quarantined:
			i.skip(e.Name, "Haraka could not read it")
		case qfile.Unfinished:
			if !i.o.Own {
				i.skip(e.Name, "it was never finished, so its message was not accepted")
			}
		default:
			if !i.o.Own {
				i.skip(e.Name, "no file of Haraka's queue")
			}
		}
	}
	return names, nil
}

func (i *importer) skip(name, why string) {
	i.report.Skipped = append(i.report.Skipped, Problem{name, errors.New(why)})
}

func (i *importer) fail(name string, err error) {
	i.report.Failed = append(i.report.Failed, Problem{name, err})
}

// prepare makes the folder for what is imported and finds out which names are
// taken there.
func (i *importer) prepare() error {
	if err := i.o.FS.Mkdir(i.done); err != nil {
		return err
	}
	list, err := i.o.FS.List(i.done)
	i.taken = make(map[string]bool, len(list))
	for _, e := range list {
		i.taken[e.Name] = true
	}
	return err
}

// file is one that is being imported.
type file struct {
	name  string
	id    mail.ID
	known bool // it was in the queue before
	err   error
}

// batch imports some files. An error means that the folders cannot be trusted
// to remember what was moved.
func (i *importer) batch(names []string) error {
	files := make([]file, len(names))
	i.claimed = map[mail.ID]bool{}
	var (
		wg   sync.WaitGroup
		work = make(chan *file)
	)
	for range min(workers, len(files)) {
		wg.Go(func() {
			for f := range work {
				f.err = i.put(f)
			}
		})
	}
	for k, name := range names {
		files[k].name = name
		work <- &files[k]
	}
	close(work)
	wg.Wait()
	var synced error
	if !i.o.DryRun {
		synced = i.q.Sync()
	}
	var moved []*file
	for k := range files {
		f := &files[k]
		if f.err == nil && !i.o.DryRun {
			if f.err = synced; f.err == nil {
				f.err = i.move(f.name)
			}
			if f.err != nil {
				f.err = i.takeBack(f)
			} else {
				moved = append(moved, f)
			}
		}
		if f.err != nil {
			i.fail(f.name, f.err)
			continue
		}
		i.report.Messages++
		if f.known {
			i.report.Known++
		}
	}
	if len(moved) == 0 {
		return nil
	}
	// First the new names: a file may be seen in both folders, never in none.
	err := i.o.FS.SyncDir(i.done)
	if err == nil {
		err = i.o.FS.SyncDir(i.dir)
	}
	for _, f := range moved {
		if f.known || i.o.Put == nil {
			continue
		}
		if p, ok := i.q.Find(f.id); ok {
			i.o.Put(p)
		}
	}
	return err
}

// put puts the message of one file in the queue, with its schedule. Nothing of
// it is in the queue when it fails.
func (i *importer) put(f *file) error {
	r, err := i.o.FS.Open(filepath.Join(i.dir, f.name))
	if err != nil {
		return err
	}
	defer r.Close()
	size, err := r.Size()
	if err != nil {
		return err
	}
	m, err := qfile.Decode(r, size)
	if err != nil {
		return err
	}
	name, _ := qfile.ParseName(f.name)
	env, err := i.envelope(f.name, name, m)
	if err != nil || i.o.DryRun {
		return err
	}
	if f.id, f.known, err = i.choose(f.name, m); err != nil {
		return err
	}
	env.ID = f.id
	if !f.known {
		content, err := mail.MoveMailboxLines(m.Content)
		if err != nil {
			return err
		}
		if err := i.q.Put(env, content); err != nil {
			return err
		}
	}
	err = i.schedule(f, name, m)
	if err == nil && i.o.Hold {
		err = i.q.Hold(f.id, nil)
	}
	if err != nil {
		return i.takeBack(&file{id: f.id, known: f.known, err: err})
	}
	return nil
}

// envelope returns what MAIL and RCPT must have said, with no ID yet.
func (i *importer) envelope(file string, name qfile.Name, m *qfile.Message) (*mail.Envelope, error) {
	env := &mail.Envelope{From: m.From, Received: m.Queued, Notes: mail.Notes{}}
	for _, t := range []time.Time{name.Arrival, name.Next} {
		if env.Received.IsZero() {
			env.Received = t
		}
	}
	for _, r := range m.Recipients {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: r.Address})
		env.UTF8 = env.UTF8 || needsUTF8(r.Address)
	}
	env.UTF8 = env.UTF8 || needsUTF8(m.From)
	if len(m.Notes) > 0 {
		if err := json.Unmarshal(m.Notes, &env.Notes); err != nil {
			return nil, fmt.Errorf("notes: %w", err)
		}
	}
	env.Notes.Set(originFile, file)
	env.Notes.Set(originUUID, m.UUID)
	return env, nil
}

// needsUTF8 reports whether a cannot be written in ASCII.
func needsUTF8(a mail.Address) bool {
	_, ascii := a.ASCII()
	return !ascii
}

// choose returns the ID of a file's message: the one under which it is in the
// queue already (known), or the best that is free.
func (i *importer) choose(file string, m *qfile.Message) (id mail.ID, known bool, err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var free []mail.ID
	for _, id := range ids(file, m) {
		if i.claimed[id] {
			continue
		}
		if _, there := i.q.Find(id); !there {
			free = append(free, id)
			continue
		}
		env, _, err := i.q.Load(id)
		if err != nil {
			return "", false, err
		}
		if env.Notes.String(originFile) == file {
			i.claimed[id] = true
			return id, true, nil
		}
	}
	if len(free) == 0 {
		return "", false, errClash
	}
	i.claimed[free[0]] = true
	return free[0], false, nil
}

// schedule records attempts, the next try and the last reply.
func (i *importer) schedule(f *file, name qfile.Name, m *qfile.Message) error {
	if name.Attempts == 0 && !name.Next.After(i.o.Now()) {
		return nil
	}
	pending, _ := i.q.Find(f.id)
	replies := map[string][]int{}
	for _, r := range pending.Recipients {
		// A message that was here before may have been tried since.
		if r.Index < len(m.Recipients) && (!f.known || r.Attempts < name.Attempts) {
			last := m.Recipients[r.Index].Last
			replies[last] = append(replies[last], r.Index)
		}
	}
	for last, recipients := range replies {
		if err := i.q.Defer(f.id, recipients, name.Attempts, name.Next, last); err != nil {
			return err
		}
	}
	return nil
}

// move moves a file to the folder imported, under a name that is free there.
func (i *importer) move(name string) error {
	to := name
	for n := 1; i.taken[to]; n++ {
		to = fmt.Sprintf("%s.%d", name, n)
	}
	err := i.o.FS.Rename(filepath.Join(i.dir, name), filepath.Join(i.done, to))
	if err == nil {
		i.taken[to] = true
	}
	return err
}

// takeBack removes a message whose file will be imported again: it must not be
// delivered twice. It returns f.err, and more if that failed.
func (i *importer) takeBack(f *file) error {
	if f.known {
		return f.err
	}
	if err := i.q.Remove(f.id); err != nil {
		return fmt.Errorf("%w; message %s stays in the queue and will be delivered again if the file is imported again: %w", f.err, f.id, err)
	}
	return f.err
}
