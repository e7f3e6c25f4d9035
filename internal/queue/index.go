package queue

import (
	"encoding/binary"
	"encoding/hex"
	"hash/maphash"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/journal"
	"tarishi/internal/mail"
	"tarishi/internal/spool"
)

// key is a mail.ID in 20 bytes: the UUID and the transaction's number. An ID of
// another form gets a key with the zero UUID; index.odd knows it.
type key [20]byte

func parseKey(id mail.ID) (k key, ok bool) {
	if len(id) < 38 || len(id) > 47 || id[36] != '.' {
		return key{}, false
	}
	at := 0
	for _, part := range [...][2]int{{0, 8}, {9, 13}, {14, 18}, {19, 23}, {24, 36}} {
		n, err := hex.Decode(k[at:16], []byte(id[part[0]:part[1]]))
		if err != nil {
			return key{}, false
		}
		at += n
	}
	n, err := strconv.ParseUint(string(id[37:]), 10, 32)
	if err != nil || k.odd() {
		return key{}, false
	}
	binary.BigEndian.PutUint32(k[16:], uint32(n))
	return k, k.id() == id // there is one spelling only
}

func (k key) odd() bool { return [16]byte(k[:16]) == [16]byte{} }

func (k key) id() mail.ID {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, 47)
	for i, c := range k[:16] {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	b = append(b, '.')
	return mail.ID(strconv.AppendUint(b, uint64(binary.BigEndian.Uint32(k[16:])), 10))
}

// entry is what is kept in memory of a message.
type entry struct {
	loc   journal.Location // of the Message record; zero: the message is in the spool
	flags flags
	left  uint32 // recipients not settled
	size  int64  // bytes of content
	one   state  // of the only recipient
	many  *[]state
}

type flags uint8

const (
	arriving flags = 1 << iota // Put has not returned: not to be seen, not to be forgotten
	large                      // the content is in the spool, wherever the envelope is
	stale                      // changed since its state file was written, if there is one
	files                      // there may be files, though the message is in the journal
)

// state is what became of one recipient so far.
type state struct {
	last     string
	next     int64 // Unix milliseconds; 0: at once
	attempts int32
	settled  bool
}

func newEntry(recipients int, size int64) *entry {
	e := &entry{left: uint32(recipients), size: size}
	if recipients != 1 {
		many := make([]state, recipients)
		e.many = &many
	}
	return e
}

func (e *entry) is(f flags) bool { return e.flags&f != 0 }

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
	r := spool.Recipient{Status: spool.Pending, Attempts: int(s.attempts), Last: s.last}
	if s.next != 0 {
		t := s.at()
		r.Next = &t
	}
	return r
}

// index finds messages by ID. Queue.mu guards it.
type index struct {
	entries    map[key]*entry
	odd        map[key]mail.ID
	oddKeys    map[mail.ID]key
	odds       uint32
	recipients int
	bytes      int64
	texts      texts
}

func newIndex() index {
	return index{entries: map[key]*entry{}, odd: map[key]mail.ID{}, oddKeys: map[mail.ID]key{}, texts: texts{seed: maphash.MakeSeed()}}
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
	if k.odd() {
		delete(x.oddKeys, x.odd[k])
		delete(x.odd, k)
	}
}

// texts keeps one copy of replies that come again and again.
type texts struct {
	seed  maphash.Seed
	slots [256]string
}

func (t *texts) intern(s string) string {
	slot := &t.slots[maphash.String(t.seed, s)%uint64(len(t.slots))]
	if *slot != s {
		*slot = strings.Clone(s) // s may be a piece of something large
	}
	return *slot
}
