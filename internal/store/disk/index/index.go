// Package index is what package disk keeps in memory of its messages: an Entry for
// each, and beside it what only some have. It does no I/O and is not safe for
// concurrent use: the lock of package catalog guards it.
//
// An entry is in one of these states, which follow from Entry.Loc and Entry.Flags:
//
//	        Put                  record is durable
//	(none) ─────▶ Arriving ─────────────────────────▶ in the journal ◀─┐ the same,
//	                  │ failed                         ▲ │      │      │ with Large or
//	                  ▼            Open finds a record │ │      └──────┘ Files: a file
//	               (gone)         (none) ──────────────┘ │               beside it
//	                                           its files │
//	          Open lists both files          are durable ▼
//	(none) ───────────────────────▶ Partial ◀─────── in files ◀───┐ its files are
//	                                 │   │  LetRest  ▲   │        │ durable again
//	                                 │   └───────────┘   └──────▶ Stale, in files
//	                                 │     WakeEntry    Settle, Defer, Hold …   ▲
//	                                 └──────────────────────────────────────────┘
//	                                   WakeEntry, if the journal says more than the file
//
// From every one of them the last Settle, Remove and damage lead to (gone). Partial
// entries without a state of their own share one, so that a million messages that
// wait cost little more than their keys.
package index

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"iter"
	"maps"
	"slices"
	"strings"

	"tarishi/internal/mail"
	"tarishi/internal/store/spool"
)

// Key is a mail.Key. An ID of another form than that gets a key with the zero UUID;
// Index.odd knows it.
type Key mail.Key

func parseKey(id mail.ID) (Key, bool) {
	k, ok := id.Key()
	return Key(k), ok
}

// IsOdd reports whether only the index knows the ID.
func (k Key) IsOdd() bool { return [16]byte(k[:16]) == [16]byte{} }

// Index finds messages by ID.
type Index struct {
	Recent     Recent
	Notes      Notes
	Unreadable Unreadables

	entries    map[Key]*Entry
	odd        map[Key]mail.ID
	oddKeys    map[mail.ID]Key
	odds       uint32
	recipients int   // not settled, as far as it is known
	bytes      int64 // of content, likewise
	texts      texts

	// Messages with files that say all share these entries, which nobody may change:
	// those with a state file that was not read in this run, and by the number of recipients
	// that are left those that recipients and bytes count.
	unread  *Entry
	dormant map[uint32]*Entry
}

// New returns an empty Index.
func New() *Index {
	return &Index{
		Recent:     Recent{kept: map[Key]kept{}},
		Notes:      Notes{of: map[Key]*Noted{}},
		Unreadable: Unreadables{parts: map[part]*string{}, newer: map[mail.ID]bool{}},
		entries:    map[Key]*Entry{}, odd: map[Key]mail.ID{}, oddKeys: map[mail.ID]Key{},
		texts:  texts{seed: maphash.MakeSeed()},
		unread: &Entry{Flags: Partial}, dormant: map[uint32]*Entry{},
	}
}

// Key returns the key of an ID; ok is false for one of another form that is not here.
func (x *Index) Key(id mail.ID) (k Key, ok bool) {
	if k, ok := parseKey(id); ok {
		return k, true
	}
	k, ok = x.oddKeys[id]
	return k, ok
}

// ID returns the ID of a key, "" if it is not known (any more).
func (x *Index) ID(k Key) mail.ID {
	if k.IsOdd() {
		return x.odd[k]
	}
	return mail.Key(k).ID()
}

// Find returns a message's key and entry, or nil.
func (x *Index) Find(id mail.ID) (Key, *Entry) {
	k, ok := x.Key(id)
	if !ok {
		return Key{}, nil
	}
	return k, x.entries[k]
}

// Len, Recipients and Bytes are the sums over all messages. Those of recipients and
// bytes leave out what no state file was read of.
func (x *Index) Len() int { return len(x.entries) }

// Recipients is how many are not settled.
func (x *Index) Recipients() int { return x.recipients }

// Bytes is how many bytes of content there are.
func (x *Index) Bytes() int64 { return x.bytes }

// Add puts a message in and returns its key.
func (x *Index) Add(id mail.ID, e *Entry) Key {
	k, ok := x.Key(id)

	// An ID of another form gets the next free number as its key, since Key has room for UUIDs
	// only.
	if !ok {
		x.odds++
		binary.BigEndian.PutUint32(k[16:], x.odds)
		x.odd[k], x.oddKeys[id] = id, k
	}
	x.entries[k] = e
	x.recipients += int(e.Left)
	x.bytes += e.Size
	return k
}

// AddUnread puts a message in with nothing known but the names of its files.
func (x *Index) AddUnread(id mail.ID) { x.Add(id, x.unread) }

// OwnEntry returns an entry that a message need not share with others, if it did because
// its state file was not read. It is stale: the file does not say all.
func (x *Index) OwnEntry(k Key, e *Entry) *Entry {
	if e == x.unread {
		e = &Entry{Flags: Partial | Stale}
		x.entries[k] = e
	}
	return e
}

// Remove takes a message out.
func (x *Index) Remove(k Key) {
	e := x.entries[k]
	x.recipients -= int(e.Left)
	x.bytes -= e.Size
	delete(x.entries, k)

	// Everything that was kept beside the entry goes with it, or the bounds of those parts would
	// fill up with messages that are gone.
	x.Recent.TakePromise(k)
	x.Notes.DropNotes(k)
	x.Unreadable.forgetMessage(k)
	if k.IsOdd() {
		delete(x.oddKeys, x.odd[k])
		delete(x.odd, k)
	}
}

// Settle marks recipients of a whole entry and reports whether any is news.
func (x *Index) Settle(e *Entry, recipients ...int) (news bool) {
	for _, i := range recipients {
		if e.settleRecipient(i) {
			x.recipients--
			news = true
		}
	}
	return news
}

// WakeEntry makes a partial entry whole with its state file st, and returns it. It counts
// from then on.
func (x *Index) WakeEntry(k Key, e *Entry, st *spool.State) *Entry {
	full := e.completeWith(st, &x.texts)
	x.recipients += int(full.Left) - int(e.Left)
	if !e.Is(counted) {
		x.bytes += full.Size
	}
	x.entries[k] = full
	return full
}

// LetRest lets a message sleep if its files say all: its entry becomes one that many
// share.
func (x *Index) LetRest(k Key, e *Entry) {
	if !e.Spooled() || e.Is(Arriving|Stale|Partial) {
		return
	}

	// Entries that say the same are one object. It counts the recipients that are left, so that the
	// sums stay right.
	d := x.dormant[e.Left]
	if d == nil {
		d = &Entry{Flags: Partial | counted, Left: e.Left}
		x.dormant[e.Left] = d
	}
	x.entries[k] = d
}

// Uncount takes the bytes of a message out of the sum that was removed while its
// entry was partial: the entry does not know them.
func (x *Index) Uncount(e *Entry, size int64) {
	if e.Is(counted) {
		x.bytes -= max(0, size)
	}
}

// Intern returns one copy of replies that come again and again; nil for "".
func (x *Index) Intern(s string) *string { return x.texts.intern(s) }

// All yields every message, in no order. The index must not change meanwhile, but for
// the message that was yielded last.
func (x *Index) All() iter.Seq2[Key, *Entry] { return maps.All(x.entries) }

// Snapshot returns all keys: first those of messages in the journal, in the order of
// their arrival.
type Snapshot struct {
	arrived []arrival
	spooled []Key
}

// arrival is where a message stands in the journal.
type arrival struct {
	at  uint64 // segment and offset
	key Key
}

// Snapshot notes all keys. It does no more, as nobody can use the index meanwhile.
func (x *Index) Snapshot() (s Snapshot) {
	for k, e := range x.entries {
		if e.Spooled() {
			s.spooled = append(s.spooled, k)
		} else {
			s.arrived = append(s.arrived, arrival{uint64(e.Loc.Segment)<<32 | uint64(e.Loc.Offset), k})
		}
	}
	return s
}

// Ordered returns the keys: first those of messages in the journal, in the order of
// their arrival.
func (s Snapshot) Ordered() []Key {
	slices.SortFunc(s.arrived, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	keys := make([]Key, 0, len(s.arrived)+len(s.spooled))
	for _, a := range s.arrived {
		keys = append(keys, a.key)
	}
	return append(keys, s.spooled...)
}

// texts keeps one copy of replies that come again and again.
type texts struct {
	seed  maphash.Seed
	slots [256]*string
}

func (t *texts) intern(s string) *string {
	if s == "" {
		return nil
	}

	// A slot holds one text at a time. A collision costs a copy, never a wrong reply.
	slot := &t.slots[maphash.String(t.seed, s)%uint64(len(t.slots))]
	if *slot == nil || **slot != s {
		s = strings.Clone(s) // it may be a piece of something large
		*slot = &s
	}
	return *slot
}

// Usage is what the index takes in memory, beside one entry for each message.
type Usage struct {
	Entries     int // messages
	Shared      int // of these: that share an entry
	Odd         int // IDs of an unusual form
	Noted       int // messages with notes,
	NoteBytes   int // and their bytes of JSON
	Recent      int // envelopes that nobody has loaded yet,
	RecentBytes int // and their bytes as records
}

// Usage looks at every message.
func (x *Index) Usage() Usage {
	u := Usage{
		Entries: len(x.entries), Odd: max(len(x.odd), len(x.oddKeys)), Noted: len(x.Notes.of), NoteBytes: x.Notes.bytes,
		Recent: len(x.Recent.kept), RecentBytes: x.Recent.bytes,
	}

	// Shared entries are found by comparing pointers: only those two kinds are ever shared.
	for _, e := range x.entries {
		if e == x.unread || e == x.dormant[e.Left] {
			u.Shared++
		}
	}
	return u
}
