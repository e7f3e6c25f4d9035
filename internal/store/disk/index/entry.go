package index

import (
	"time"

	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// Entry is the part of a message in memory: 64 bytes for one with one
// recipient.
type Entry struct {
	Loc  journal.Location // of the Message record; zero: the message is in the spool
	Left uint32           // recipients not settled
	Size int64            // bytes of content
	many *[]State
	one  State // of the only recipient
	Flags
}

// Flags are what else is to be known of an Entry.
type Flags uint8

// The Flags.
const (
	Arriving Flags = 1 << iota // Put has not returned: not to be seen, not to be forgotten
	Large                      // the content is in the spool, wherever the envelope is
	Stale                      // changed since its state file was written, if there is one
	Files                      // there may be files, though the message is in the journal

	// Partial: the message is in the spool and what its state file says is not in
	// memory. Size is 0, as is Left unless it is counted, and the states only say
	// what the journal knows beside the file.
	Partial
	counted // a partial entry that the index's sums include
)

// Is reports whether any of some flags is set.
func (f Flags) Is(any Flags) bool { return f&any != 0 }

// State is what became of one recipient so far.
type State struct {
	Next     int64   // Unix milliseconds; 0: at once
	Last     *string // nil: ""
	Attempts int32
	Settled  bool
	Hold     Hold
}

// Hold says whether a recipient is held. In a partial entry Unsaid means that the
// state file says it, in others that it is not.
type Hold uint8

// The values of Hold.
const (
	Unsaid Hold = iota
	Held
	Released
)

// LastReply is the reply that deferred the recipient last.
func (s *State) LastReply() string {
	if s.Last == nil {
		return ""
	}
	return *s.Last
}

// SetHeld is for entries that are whole.
func (s *State) SetHeld(on bool) {
	s.Hold = Unsaid
	if on {
		s.Hold = Held
	}
}

// Due is when the recipient is to be tried; the zero time: at once.
func (s *State) Due() time.Time {
	if s.Next == 0 {
		return time.Time{}
	}
	return time.UnixMilli(s.Next).UTC()
}

// Millis is a time as State.Next has it.
func Millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return max(1, t.UnixMilli())
}

// Document returns the state as the spool writes it.
func (s *State) Document() spool.Recipient {
	if s.Settled {
		return spool.Recipient{Status: spool.Settled}
	}
	r := spool.Recipient{Status: spool.Pending, Attempts: int(s.Attempts), Last: s.LastReply(), Held: s.Hold == Held}
	if s.Next != 0 {
		t := s.Due()
		r.Next = &t
	}
	return r
}

// NewEntry returns the entry of a message without settled recipients.
func NewEntry(recipients int, size int64) *Entry {
	e := &Entry{Left: uint32(recipients), Size: size}
	if recipients != 1 {
		many := make([]State, recipients)
		e.many = &many
	}
	return e
}

// Spooled reports whether the message is in files alone.
func (e *Entry) Spooled() bool { return e.Loc == journal.Location{} }

// Recipients is how many there are in the envelope.
func (e *Entry) Recipients() int {
	if e.many != nil {
		return len(*e.many)
	}
	return 1
}

// StateOf returns that of recipient i, to be changed by the owner of the entry.
func (e *Entry) StateOf(i int) *State {
	if e.many != nil {
		return &(*e.many)[i]
	}
	return &e.one
}

// Copy returns an entry that shares nothing with e.
func (e *Entry) Copy() Entry {
	c := *e
	if e.many != nil {
		many := e.states()
		c.many = &many
	}
	return c
}

// states returns a copy of all.
func (e *Entry) states() []State {
	if e.many != nil {
		return append([]State(nil), *e.many...)
	}
	return []State{e.one}
}

// SettledRecipients returns those that are known to be settled, of an entry that may
// be partial.
func (e *Entry) SettledRecipients() (settled []int) {
	for i := range e.Recipients() {
		if e.StateOf(i).Settled {
			settled = append(settled, i)
		}
	}
	return settled
}

// settleRecipient marks a recipient and reports whether that is news.
func (e *Entry) settleRecipient(i int) bool {
	s := e.StateOf(i)
	if s.Settled {
		return false
	}

	// A settled recipient needs no reply and no time any more, and gives up their memory.
	*s = State{Settled: true}
	e.Left--
	return true
}

// NoteChange records for a partial entry what the journal says of recipient i.
func (e *Entry) NoteChange(i int, s State) {
	// The state file has not been read, so only the order of the journal's own records counts.
	// Holding and trying again are independent: a record about one leaves the other as it was.
	to := e.reachState(i)
	switch {
	case s.Hold != Unsaid:
		if !to.Settled {
			to.Hold = s.Hold
		}
	case s.Settled || !to.Settled && s.Attempts >= to.Attempts:
		s.Hold = to.Hold
		*to = s
	}
}

// reachState returns the state of recipient i of a partial entry, which may not know yet
// that there are so many.
func (e *Entry) reachState(i int) *State {
	// The number of recipients is in the file. Until it is read, the states grow with the highest
	// index.
	if n := e.Recipients(); i >= n {
		many := append(e.states(), make([]State, i+1-n)...)
		e.many = &many
	}
	return e.StateOf(i)
}

// completeWith returns the whole of a partial entry with the state file st.
func (e *Entry) completeWith(st *spool.State, t *texts) *Entry {
	whole := NewEntry(len(st.Recipients), st.Size)
	whole.Flags = e.Flags &^ (Partial | counted)

	// The file comes first; texts that many messages share are kept once.
	for i, s := range st.Recipients {
		if s.Status == spool.Settled {
			whole.settleRecipient(i)
			continue
		}
		to := whole.StateOf(i)
		to.Attempts, to.Last = int32(s.Attempts), t.intern(record.ClipReply(s.Last))
		if s.Next != nil {
			to.Next = Millis(*s.Next)
		}
		to.SetHeld(s.Held)
	}

	// What the journal said at the start is newer than the file, as a rule.
	for i := range min(whole.Recipients(), e.Recipients()) {
		s, known := whole.StateOf(i), *e.StateOf(i)
		switch {
		case known.Settled:
			whole.settleRecipient(i)
			continue
		case s.Settled:
			continue
		case known.Hold != Unsaid:
			s.SetHeld(known.Hold == Held)
		}
		known.Hold = s.Hold
		// The spool may know of a later attempt than the journal, if its record was lost.
		if known != (State{Hold: s.Hold}) && known.Attempts >= s.Attempts {
			*s = known
		}
	}
	return whole
}
