package disk

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/spool"
)

// unreadables remembers what could not be read when it was last tried.
type unreadables struct {
	parts    map[part]*string // with the reason
	newer    map[mail.ID]bool // of a newer version: not in the index any more
	segments int
	folders  int
	reason   string // the last
	said     int    // messages that the log knows of
}

func (u *unreadables) messages() int { return len(u.parts) + len(u.newer) }

// part is a message's envelope with its states, or its content.
type part struct {
	key
	content bool
}

// noteUnreadable remembers why a part of a message cannot be read; nil: it can.
func (q *Store) noteUnreadable(id mail.ID, content bool, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := &q.index.unreadable
	if err == nil && len(u.parts) == 0 {
		return
	}
	k, known := q.index.key(id)
	if !known {
		return
	}
	p := part{k, content}
	if err == nil {
		delete(u.parts, p)
		u.said = min(u.said, u.messages()) // more is news again
		return
	}
	if !content {
		delete(u.parts, part{k, true}) // it counts once
	}
	u.reason = reasonOf(err)
	u.parts[p] = q.index.texts.intern(u.reason)
}

// forget is for a message that leaves the queue. Caller holds q.mu.
func (u *unreadables) forget(k key) {
	if len(u.parts) > 0 {
		delete(u.parts, part{k, false})
		delete(u.parts, part{k, true})
	}
}

// reasonOf is an error without the name of a file, which is another one for each
// message, and with the user where that matters.
func reasonOf(err error) string {
	reason := err.Error()
	if p := (*fs.PathError)(nil); errors.As(err, &p) {
		reason = p.Op + ": " + p.Err.Error()
	}
	if errors.Is(err, fs.ErrPermission) {
		reason += " for " + currentUser()
	}
	return clip(reason)
}

// currentUser is the name, or else the number, of the user of this process.
func currentUser() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// Unreadable returns what could not be read when it was last tried. Before
// Adopt has passed all messages some may not have been tried yet.
func (q *Store) Unreadable() store.Unreadable {
	q.mu.Lock()
	defer q.mu.Unlock()
	u := &q.index.unreadable
	return store.Unreadable{Messages: u.messages(), Segments: u.segments, Folders: u.folders, Reason: cmp.Or(u.reason, spool.ErrVersion.Error())}
}

// WalkUnreadable calls fn with every message that could not be read when it was
// last tried, and why, in the order of their IDs, until fn returns false.
func (q *Store) WalkUnreadable(fn func(id mail.ID, reason string) bool) {
	type message struct {
		id     mail.ID
		reason *string
	}
	q.mu.Lock()
	all := make([]message, 0, len(q.index.unreadable.parts))
	newer := spool.ErrVersion.Error()
	for id := range q.index.unreadable.newer {
		all = append(all, message{id, &newer})
	}
	for p, reason := range q.index.unreadable.parts {
		all = append(all, message{q.index.id(p.key), reason})
	}
	q.mu.Unlock()
	slices.SortFunc(all, func(a, b message) int { return cmp.Compare(a.id, b.id) })
	for _, m := range all {
		if !fn(m.id, *m.reason) {
			return
		}
	}
}

// examples is how many things the log names that have the same trouble.
const examples = 10

// logUnreadable writes one line about the messages that cannot be read, if there
// are more or fewer than it said before.
func (q *Store) logUnreadable() {
	q.mu.Lock()
	u := &q.index.unreadable
	n := u.messages()
	if n == u.said {
		q.mu.Unlock()
		return
	}
	u.said = n
	reason := cmp.Or(u.reason, spool.ErrVersion.Error())
	var some []string
	for id := range u.newer {
		if some = append(some, string(id)); len(some) == examples {
			break
		}
	}
	for p := range u.parts {
		if len(some) == examples {
			break
		}
		some = append(some, string(q.index.id(p.key)))
	}
	q.mu.Unlock()
	slices.Sort(some)
	q.log.Error("queue: messages cannot be read now, they stay and are tried again", zap.Int("messages", n), zap.String("reason", reason), zap.Strings("some", some))
}
