package index

import (
	"cmp"
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/spool"
)

// Unreadables remembers what could not be read when it was last tried.
type Unreadables struct {
	Segments int    // of the journal
	Folders  int    // of the spool
	Reason   string // the last

	parts map[part]*string // of messages, with the reason
	newer map[mail.ID]bool // of a newer version: not in the index any more
	said  int              // messages that the log knows of
}

// part is a message's envelope with its states, or its content.
type part struct {
	Key
	content bool
}

func (u *Unreadables) countMessages() int { return len(u.parts) + len(u.newer) }

// AddNewer notes a message that only a later version of this program can read.
func (u *Unreadables) AddNewer(id mail.ID) { u.newer[id] = true }

// forgetMessage is for a message that leaves the queue.
func (u *Unreadables) forgetMessage(k Key) {
	if len(u.parts) > 0 {
		delete(u.parts, part{k, false})
		delete(u.parts, part{k, true})
	}
}

// Readable notes that a part of a message could be read after all.
func (x *Index) Readable(id mail.ID, content bool) {
	u := &x.Unreadable
	if len(u.parts) == 0 {
		return
	}

	// The count that was logged falls with the real one: a later rise is logged again.
	if k, known := x.Key(id); known {
		delete(u.parts, part{k, content})
		u.said = min(u.said, u.countMessages()) // more is news again
	}
}

// NoteUnreadable remembers why a part of a message cannot be read.
func (x *Index) NoteUnreadable(id mail.ID, content bool, reason string) {
	k, known := x.Key(id)
	if !known {
		return
	}
	u := &x.Unreadable
	if !content {
		delete(u.parts, part{k, true}) // it counts once
	}

	// Reasons repeat, often for a whole disk, so they share their text.
	u.Reason = reason
	u.parts[part{k, content}] = x.texts.intern(reason)
}

// Summary counts what cannot be read.
func (u *Unreadables) Summary() store.Unreadable {
	return store.Unreadable{Messages: u.countMessages(), Segments: u.Segments, Folders: u.Folders, Reason: u.lastReason()}
}

func (u *Unreadables) lastReason() string { return cmp.Or(u.Reason, spool.ErrVersion.Error()) }

// Unread is a message that cannot be read, and why.
type Unread struct {
	ID     mail.ID
	Reason string
}

// UnreadMessages returns all that cannot be read, in the order of their IDs.
func (x *Index) UnreadMessages() []Unread {
	all := make([]Unread, 0, x.Unreadable.countMessages())
	for id := range x.Unreadable.newer {
		all = append(all, Unread{ID: id, Reason: spool.ErrVersion.Error()})
	}
	for p, reason := range x.Unreadable.parts {
		all = append(all, Unread{ID: x.ID(p.Key), Reason: *reason})
	}
	slices.SortFunc(all, func(a, b Unread) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// TakeNews reports whether other messages cannot be read than when it was asked last: how
// many, why, and some of them.
func (x *Index) TakeNews(most int) (messages int, reason string, some []string, news bool) {
	u := &x.Unreadable
	n := u.countMessages()
	if n == u.said {
		return n, "", nil, false
	}
	u.said = n

	// A few examples are enough to go and look.
	for id := range u.newer {
		if some = append(some, string(id)); len(some) == most {
			break
		}
	}
	for p := range u.parts {
		if len(some) == most {
			break
		}
		some = append(some, string(x.ID(p.Key)))
	}
	slices.Sort(some)
	return n, u.lastReason(), some, true
}
