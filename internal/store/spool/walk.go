package spool

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"tarishi/internal/mail"
)

// Found is a message that has files.
type Found struct {
	ID             mail.ID
	Content, State bool // which of its files there are
	New            bool // there is a content that was not accepted yet
}

// Walk calls fn with every message that has files: first those with a state and
// an accepted content, last the others. It removes temporary files, and brings
// files home that lie in the folder of others, or below it; one that finds its place
// taken goes to corrupt/. Files that it brings home, or cannot read or move, are
// passed to bad, and the walk goes on.
func (s *Spool) Walk(fn func(Found), bad func(name string, err error)) {
	w := walker{spool: s, fn: fn, bad: bad, parts: map[mail.ID]Found{}}
	top, err := s.fs.List(s.messageDir())
	if err != nil {
		bad(s.messageDir(), fmt.Errorf("%w: %w", ErrUnlisted, err))
	}
	for _, e := range top {
		name := filepath.Join(s.messageDir(), e.Name)
		switch {
		case e.Dir:
			w.folder(name)
		case len(e.Name) == 2: // it stands where a folder of ours belongs
			if err := s.setAside(name, "msg."+e.Name, "it is no folder"); err != nil {
				bad(name, err)
			}
		default:
			w.addFile(s.messageDir(), e.Name)
		}
	}

	// Files in the wrong folder are moved after all others are known, so that none is
	// passed on twice.
	for _, f := range w.astray {
		w.bringHome(f)
	}

	// Last come the incomplete ones.
	for _, f := range w.parts {
		if f.New {
			f.New = !w.second(f.ID)
		}
		if f.New && f.State && !f.Content {
			// Only what was accepted has a state: Accept failed. If it does so
			// again the content is found under its other name.
			_ = w.spool.Accept(f.ID)
			f.New, f.Content = false, true
		}
		if f.Content || f.State || f.New {
			fn(f)
		}
	}
}

// walker is the state of Walk.
type walker struct {
	spool  *Spool
	fn     func(Found)
	bad    func(string, error)
	parts  map[mail.ID]Found // with one of two files so far, or a new content
	astray []astray
}

// astray is a file in a folder that is not its own.
type astray struct {
	name string
	id   mail.ID
	ext  string
}

func (w *walker) folder(dir string) {
	list, err := w.spool.fs.List(dir)
	if err != nil {
		w.bad(dir, fmt.Errorf("%w: %w", ErrUnlisted, err))
		return
	}
	for _, e := range list {
		if !e.Dir {
			w.addFile(dir, e.Name)
		}
	}
}

func (w *walker) addFile(dir, base string) {
	ext := filepath.Ext(base)
	id := mail.ID(strings.TrimSuffix(base, ext))
	name := filepath.Join(dir, base)
	switch {
	case ext == ".tmp":
		_ = w.spool.fs.Remove(name) // the next start tries again
	case ext != extContent && ext != extState && ext != extNew, !id.Valid():
	case name != w.spool.fileName(id, ext):
		w.astray = append(w.astray, astray{name, id, ext})
	default:
		w.addFound(id, ext)
	}
}

func (w *walker) addFound(id mail.ID, ext string) {
	f := w.parts[id]
	f.ID = id
	f.Content = f.Content || ext == extContent
	f.State = f.State || ext == extState
	f.New = f.New || ext == extNew
	if f.Content && f.State && !f.New {
		delete(w.parts, id)
		w.fn(f)
		return
	}
	w.parts[id] = f
}

// second gets a new content out of the way if the message has one already: the
// same, if a crash came into the midst of Accept.
func (w *walker) second(id mail.ID) bool {
	if _, err := w.spool.fs.Size(w.spool.Path(id)); err != nil {
		return false
	}
	name := w.spool.fileName(id, extNew)
	if a, err := w.spool.sumOfFile(w.spool.Path(id)); err == nil {
		if b, err := w.spool.sumOfFile(name); err == nil && a == b {
			_ = w.spool.fs.Remove(name) // the next start tries again
			return true
		}
	}
	err := w.spool.setAside(name, string(id)+extNew, "the message has another content")
	w.bad(name, errors.Join(errors.New("a second content of a message goes to corrupt/"), err))
	return true
}

// bringHome brings a file to its folder.
func (w *walker) bringHome(f astray) {
	to := w.spool.fileName(f.id, f.ext)
	_, err := w.spool.fs.Size(to)

	// Its own place may be free, or taken by a file with the same name.
	switch {
	case err == nil:
		err = w.spool.setAside(f.name, string(f.id)+f.ext, "it is in the wrong folder, and its place is taken")
		w.bad(f.name, errors.Join(errors.New("a file in the wrong folder, where its place is taken, goes to corrupt/"), err))
		return
	case errors.Is(err, fs.ErrNotExist):
		err = w.spool.rename(f.name, to)
	}
	if err != nil {
		w.bad(f.name, fmt.Errorf("a file in the wrong folder stays there: %w", err))
		return
	}
	w.spool.markDirty(f.name)
	w.bad(f.name, fmt.Errorf("a file in the wrong folder is moved to %s", to))
	w.addFound(f.id, f.ext)
}
