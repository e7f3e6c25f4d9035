package disk

import (
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// key is a mail.Key. An ID of another form than that gets a key with the zero
// UUID; index.odd knows it.
type key mail.Key

func parseKey(id mail.ID) (key, bool) {
	k, ok := id.Key()
	return key(k), ok
}

func (k key) odd() bool { return [16]byte(k[:16]) == [16]byte{} }

func (k key) id() mail.ID { return mail.Key(k).ID() }

// entry is what is kept in memory of a message: 64 bytes for one with one
// recipient.
type entry struct {
	loc  journal.Location // of the Message record; zero: the message is in the spool
	left uint32           // recipients not settled
	size int64            // bytes of content
	many *[]state
	one  state // of the only recipient
	flags
}

type flags uint8

const (
	arriving flags = 1 << iota // Put has not returned: not to be seen, not to be forgotten
	large                      // the content is in the spool, wherever the envelope is
	stale                      // changed since its state file was written, if there is one
	files                      // there may be files, though the message is in the journal

	// The message is in the spool and what its state file says is not in memory:
	// size is 0, as is left unless it is counted, and the states only say what the
	// journal knows beside the file.
	partial
	counted // a partial entry that the index's sums include
)

// state is what became of one recipient so far.
type state struct {
	next     int64   // Unix milliseconds; 0: at once
	last     *string // nil: ""
	attempts int32
	settled  bool
	hold     hold
}

// hold says whether a recipient is held. In a partial entry unsaid means that
// the state file says it, in others that it is not.
type hold uint8

const (
	unsaid hold = iota
	held
	released
)

func (s *state) text() string {
	if s.last == nil {
		return ""
	}
	return *s.last
}

func newEntry(recipients int, size int64) *entry {
	e := &entry{left: uint32(recipients), size: size}
	if recipients != 1 {
		many := make([]state, recipients)
		e.many = &many
	}
	return e
}

func (f flags) is(any flags) bool { return f&any != 0 }

func (e *entry) spooled() bool { return e.loc == journal.Location{} }

// recipients is how many there are in the envelope.
func (e *entry) recipients() int {
	if e.many != nil {
		return len(*e.many)
	}
	return 1
}

func (e *entry) state(i int) *state {
	if e.many != nil {
		return &(*e.many)[i]
	}
	return &e.one
}

// states returns a copy.
func (e *entry) states() []state {
	if e.many != nil {
		return append([]state(nil), *e.many...)
	}
	return []state{e.one}
}

// note records for a partial entry what the journal says of recipient i.
func (e *entry) note(i int, s state) {
	to := e.reach(i)
	if s.settled || !to.settled && s.attempts >= to.attempts {
		s.hold = to.hold
		*to = s
	}
}

// noteHold is note for what the journal says of a hold.
func (e *entry) noteHold(i int, h hold) {
	if s := e.reach(i); !s.settled {
		s.hold = h
	}
}

// reach returns the state of recipient i of a partial entry, which may not know
// yet that there are so many.
func (e *entry) reach(i int) *state {
	if n := e.recipients(); i >= n {
		many := append(e.states(), make([]state, i+1-n)...)
		e.many = &many
	}
	return e.state(i)
}

// complete returns the whole of a partial entry, whose state file is st.
func (e *entry) complete(st *spool.State, t *texts) *entry {
	whole := newEntry(len(st.Recipients), st.Size)
	whole.flags = e.flags &^ (partial | counted)
	for i, s := range st.Recipients {
		if s.Status == spool.Settled {
			whole.settle(i)
			continue
		}
		to := whole.state(i)
		to.attempts, to.last = int32(s.Attempts), t.intern(clip(s.Last))
		if s.Next != nil {
			to.next = millis(*s.Next)
		}
		to.setHeld(s.Held)
	}
	for i := range min(whole.recipients(), e.recipients()) {
		s, known := whole.state(i), *e.state(i)
		switch {
		case known.settled:
			whole.settle(i)
			continue
		case s.settled:
			continue
		case known.hold != unsaid:
			s.setHeld(known.hold == held)
		}
		known.hold = s.hold
		// The spool may know of a later attempt whose record was lost.
		if known != (state{hold: s.hold}) && known.attempts >= s.attempts {
			*s = known
		}
	}
	return whole
}

// settle marks a recipient and reports whether that is news.
func (e *entry) settle(i int) bool {
	s := e.state(i)
	if s.settled {
		return false
	}
	*s = state{settled: true}
	e.left--
	return true
}

// setHeld is for entries that are whole.
func (s *state) setHeld(on bool) {
	s.hold = unsaid
	if on {
		s.hold = held
	}
}

func (s *state) at() time.Time {
	if s.next == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.next).UTC()
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixMilli())
}

// document returns the state as the spool writes it.
func (s *state) document() spool.Recipient {
	if s.settled {
		return spool.Recipient{Status: spool.Settled}
	}
	r := spool.Recipient{Status: spool.Pending, Attempts: int(s.attempts), Last: s.text(), Held: s.hold == held}
	if s.next != 0 {
		t := s.at()
		r.Next = &t
	}
	return r
}

// index finds messages by ID. Store.mu guards it.
type index struct {
	entries    map[key]*entry
	odd        map[key]mail.ID
	oddKeys    map[mail.ID]key
	odds       uint32
	recipients int
	bytes      int64
	texts      texts
	recent     recent
	notes      map[key]*noted // of messages in the journal, or stale
	noteBytes  int
	unreadable unreadables

	// The messages whose files say all share these entries, which nobody may
	// change: those whose state file was not read in this run, and by the number
	// of recipients that are left those that recipients and bytes count.
	unread  *entry
	dormant map[uint32]*entry
}

func newIndex() index {
	return index{
		entries: map[key]*entry{}, odd: map[key]mail.ID{}, oddKeys: map[mail.ID]key{}, texts: texts{seed: maphash.MakeSeed()},
		recent: recent{promises: map[key]promised{}}, notes: map[key]*noted{},
		unreadable: unreadables{parts: map[part]*string{}, newer: map[mail.ID]bool{}},
		unread:     &entry{flags: partial}, dormant: map[uint32]*entry{},
	}
}

func (x *index) key(id mail.ID) (key, bool) {
	if k, ok := parseKey(id); ok {
		return k, true
	}
	k, ok := x.oddKeys[id]
	return k, ok
}

func (x *index) id(k key) mail.ID {
	if k.odd() {
		return x.odd[k]
	}
	return k.id()
}

func (x *index) find(id mail.ID) (key, *entry) {
	k, ok := x.key(id)
	if !ok {
		return key{}, nil
	}
	return k, x.entries[k]
}

// add puts a message in and returns its key.
func (x *index) add(id mail.ID, e *entry) key {
	k, ok := x.key(id)
	if !ok {
		x.odds++
		binary.BigEndian.PutUint32(k[16:], x.odds)
		x.odd[k], x.oddKeys[id] = id, k
	}
	x.entries[k] = e
	x.recipients += int(e.left)
	x.bytes += e.size
	return k
}

func (x *index) remove(k key) {
	e := x.entries[k]
	x.recipients -= int(e.left)
	x.bytes -= e.size
	delete(x.entries, k)
	x.recent.take(k)
	x.dropNotes(k)
	x.unreadable.forget(k)
	if k.odd() {
		delete(x.oddKeys, x.odd[k])
		delete(x.odd, k)
	}
}

// arrival is where a message stands in the journal.
type arrival struct {
	at uint64 // segment and offset
	k  key
}

// snapshot returns all keys: of the messages in the journal, with their places,
// and of those in the spool. It does no more, as nobody can use the index
// meanwhile.
func (x *index) snapshot() (arrived []arrival, spooled []key) {
	for k, e := range x.entries {
		if e.spooled() {
			spooled = append(spooled, k)
		} else {
			arrived = append(arrived, arrival{uint64(e.loc.Segment)<<32 | uint64(e.loc.Offset), k})
		}
	}
	return arrived, spooled
}

// ordered returns the keys of a snapshot: first those of messages in the journal,
// in the order of their arrival.
func ordered(arrived []arrival, spooled []key) []key {
	slices.SortFunc(arrived, func(a, b arrival) int { return cmp.Compare(a.at, b.at) })
	keys := make([]key, 0, len(arrived)+len(spooled))
	for _, a := range arrived {
		keys = append(keys, a.k)
	}
	return append(keys, spooled...)
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
	slot := &t.slots[maphash.String(t.seed, s)%uint64(len(t.slots))]
	if *slot == nil || **slot != s {
		s = strings.Clone(s) // it may be a piece of something large
		*slot = &s
	}
	return *slot
}
