package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/catalog"
	"tarishi/internal/vfs"
)

// private is a file system on which the names that end like deny are another
// user's.
type private struct {
	vfs.FS
	deny atomic.Pointer[string]
}

func (p *private) set(suffix string) { p.deny.Store(&suffix) }

func (p *private) denied(name string) error {
	if suffix := p.deny.Load(); suffix != nil && *suffix != "" && strings.HasSuffix(name, *suffix) {
		return &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return nil
}

func (p *private) Open(name string) (vfs.File, error) {
	if err := p.denied(name); err != nil {
		return nil, err
	}
	return p.FS.Open(name)
}

func (p *private) List(name string) ([]vfs.Entry, error) {
	if err := p.denied(name); err != nil {
		return nil, err
	}
	return p.FS.List(name)
}

func unreadableIDs(q *Store) (ids []mail.ID, reasons map[string]bool) {
	reasons = map[string]bool{}
	q.WalkUnreadable(func(id mail.ID, reason string) bool {
		ids = append(ids, id)
		reasons[reason] = true
		return true
	})
	return ids, reasons
}

// TestUnreadable: state files that cannot be read for want of permission are one
// line of the log with a count, are counted and listed, and come back.
func TestUnreadable(t *testing.T) {
	disk := &private{FS: vfs.OS{}}
	core, logs := observer.New(zap.ErrorLevel)
	q := open(t, Options{Dir: t.TempDir(), FS: disk, Log: zap.New(core)})
	const n = 300
	for range n {
		put(t, q, envelope(newID(), 1), text(100))
	}
	retireAll(t, q)
	disk.set(".json")
	q = reopen(t, q)
	for range 3 {
		if left := q.Adopt(func(mail.Pending) bool { return true }); left != n {
			t.Errorf("%d are left", left)
		}
		if got := pendings(q); len(got) != 0 {
			t.Error(len(got))
		}
	}
	if u := q.Unreadable(); u.Messages != n || u.Err() == nil || !strings.Contains(u.Err().Error(), "300 messages in the queue cannot be read: open: permission denied for ") {
		t.Errorf("%+v, %v", u, u.Err())
	}
	if ids, reasons := unreadableIDs(q); len(ids) != n || len(reasons) != 1 {
		t.Error(len(ids), reasons)
	}
	lines := logs.TakeAll()
	if len(lines) != 1 || lines[0].ContextMap()["messages"] != int64(n) {
		t.Errorf("%d lines, the first: %+v", len(lines), lines[:min(1, len(lines))])
	}
	if err := q.Healthy(); err != nil {
		t.Error("mail is not accepted:", err)
	}

	disk.set("")
	if left := q.Adopt(func(mail.Pending) bool { return true }); left != 0 {
		t.Errorf("%d are left", left)
	}
	if u := q.Unreadable(); u.Messages != 0 || u.Err() != nil {
		t.Errorf("%+v", u)
	}
	disk.set(".json") // once more is news
	pendings(q)
	if logs.Len() != 1 {
		t.Error(logs.All())
	}
}

// TestUnreadableContent: a content alone counts as well, until it can be opened or
// the message leaves the queue.
func TestUnreadableContent(t *testing.T) {
	disk := &private{FS: vfs.OS{}}
	q := open(t, Options{Dir: t.TempDir(), FS: disk})
	one, two := envelope(newID(), 1), envelope(newID(), 1)
	put(t, q, one, text(100))
	put(t, q, two, text(100))
	retireAll(t, q)
	disk.set(".eml")
	for _, id := range []mail.ID{one.ID, two.ID} {
		_, c, err := q.Load(id)
		must(t, err)
		if _, err := c.Open(); !errors.Is(err, fs.ErrPermission) {
			t.Error(err)
		}
	}
	pendings(q) // the envelopes can be read
	if u := q.Unreadable(); u.Messages != 2 {
		t.Errorf("%+v", u)
	}
	must(t, q.Remove(two.ID))
	if u := q.Unreadable(); u.Messages != 1 {
		t.Errorf("%+v", u)
	}
	disk.set("")
	_, c, err := q.Load(one.ID)
	must(t, err)
	r, err := c.Open()
	must(t, err)
	_, err = io.ReadAll(r)
	must(t, errors.Join(err, r.Close()))
	if u := q.Unreadable(); u.Err() != nil {
		t.Errorf("%+v", u)
	}
}

// TestUnreadablePlaces: a segment or a folder that cannot be read is reported, and
// folders are not a line each.
func TestUnreadablePlaces(t *testing.T) {
	disk := &private{FS: vfs.OS{}}
	core, logs := observer.New(zap.ErrorLevel)
	q := open(t, Options{Dir: t.TempDir(), FS: disk, Log: zap.New(core)})
	put(t, q, envelope(newID(), 1), text(100))
	disk.set("00000001.log")
	q = reopen(t, q)
	if u := q.Unreadable(); u.Segments != 1 || !strings.Contains(u.Err().Error(), "1 segment of the journal in the queue cannot be read: ") {
		t.Errorf("%+v", u)
	}
	disk.set("")
	q = reopen(t, q)
	for i := range 16 {
		must(t, q.fs.Mkdir(filepath.Join(q.options.Dir, "msg", fmt.Sprintf("%X7", i))))
	}
	logs.TakeAll()
	disk.set("7")
	q = reopen(t, q)
	if u := q.Unreadable(); u.Folders != 16 || logs.Len() != catalog.Examples+1 { // one for all
		t.Errorf("%+v, %d lines", u, logs.Len())
	}
}
