// Package budget bounds the memory that all sessions together hold for mail that is still
// arriving.
package budget

import (
	"sync"
	"sync/atomic"
	"time"

	"tarishi/internal/smtpd/pace"
)

const (
	// Free is what the recipients of one session, and its message, may hold
	// without being counted: as with all else that each session holds, the number of
	// connections bounds it.
	Free = 16 << 10
	// shareStep is how much is taken from the budget at a time.
	shareStep = 64 << 10
	// bodyShare is how much of the budget bodies may have, in quarters: what cannot
	// go to a file must find memory however many of them arrive.
	bodyShare = 3
)

// Budget bounds the memory that all sessions together hold for mail that is still
// arriving: recipients, header sections, and bodies as far as they are not in a
// file. Only what needs more than Free is counted and can be refused. Bodies go
// to a file when there is no more; what cannot makes the slowest give way.
type Budget struct {
	limit atomic.Int64 // bytes; 0: none

	mu     sync.Mutex
	used   int64
	shares map[*Share]struct{} // that hold something
}

// Owner is a session with mail in memory. Its methods may be called from any goroutine.
type Owner interface {
	// Yield tells the session to give way.
	Yield()
	// Lately is what came of content lately, and how long that was waited for.
	Lately() (bytes int64, in time.Duration)
}

// New returns a Budget of limit bytes; 0: there is no limit.
func New(limit int64) *Budget {
	b := &Budget{shares: map[*Share]struct{}{}}
	b.limit.Store(limit)
	return b
}

// SetLimit changes the limit, in bytes. Where more is used than it allows, nothing more is
// given until enough has come back.
func (b *Budget) SetLimit(limit int64) { b.limit.Store(limit) }

// Used returns how many bytes are taken.
func (b *Budget) Used() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Share is what one session holds of the budget. Its methods are for the session's
// goroutine.
type Share struct {
	budget *Budget
	owner  Owner

	envelope, message int64 // bytes held
	counted           bool  // something was taken in this transaction

	taken   int64 // from the budget; guarded by budget.mu
	leaving bool  // has to give way; guarded by budget.mu
}

// NewShare returns the share of a session, with nothing in it.
func (b *Budget) NewShare(o Owner) Share { return Share{budget: b, owner: o} }

// AddEnvelope notes that recipients need n bytes more, or less. It returns false if there
// is no memory for them.
func (s *Share) AddEnvelope(n int64) bool { return s.holdEnvelope(s.envelope + n) }

// IsShort reports whether memory is so short that slow messages should leave it.
func (s *Share) IsShort() bool { return s.budget.isShort() }

// holdEnvelope notes that recipients need n bytes in all. It returns false if there
// is no memory for them.
func (s *Share) holdEnvelope(n int64) bool {
	was := s.envelope
	if s.envelope = n; s.fits() || s.Push() {
		return true
	}
	s.envelope = was
	return false
}

// HoldMessage notes that the message needs n bytes, and that its body has some of them
// if spillable. It returns false if there is no memory for them: then the body has to
// leave it.
func (s *Share) HoldMessage(n int64, spillable bool) bool {
	s.message = n
	if spillable {
		return s.fitsIn(s.budget.limit.Load() * bodyShare / 4)
	}
	return s.fits()
}

// fits adjusts what is taken from the budget to the need. It returns false if there is
// not enough.
func (s *Share) fits() bool { return s.fitsIn(s.budget.limit.Load()) }

// fitsIn is fits while no more than limit is used in all.
func (s *Share) fitsIn(limit int64) bool {
	b := s.budget
	if b.limit.Load() <= 0 {
		return true
	}
	// Nearly all mail is small and never gets to the lock.
	need := max(0, s.envelope-Free) + max(0, s.message-Free)
	if need == 0 && !s.counted {
		return true
	}
	need = (need + shareStep - 1) / shareStep * shareStep
	b.mu.Lock()
	defer b.mu.Unlock()

	// A session that has to give way can only give back.
	more := need - s.taken
	if more > 0 && (s.leaving || b.used+more > limit) {
		return false
	}
	if more == 0 {
		return true
	}
	b.used += more
	if s.taken = need; need == 0 {
		delete(b.shares, s)
	} else {
		b.shares[s], s.counted = struct{}{}, true
	}
	return true
}

// Push makes room for the need: slower sessions, the slowest first, have to
// give way. It returns false if that is not enough.
func (s *Share) Push() bool {
	for !s.fits() {
		if !s.budget.evict(s) {
			return false
		}
	}
	return true
}

// evict has the slowest session give way, if it is slower than s. Its memory
// counts as free from then on.
func (b *Budget) evict(s *Share) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s.leaving {
		return false
	}

	// Those that have not been watched for long enough are spared, and so is everyone if
	// s itself is the slowest.
	var slowest *Share
	least, watched := s.speed()
	for o := range b.shares {
		if o == s || o.leaving {
			continue
		}
		if v, ok := o.speed(); ok && (!watched || v < least) {
			slowest, least, watched = o, v, true
		}
	}
	if slowest == nil {
		return false
	}

	// Its memory counts as free at once; it comes back in a moment.
	b.used -= slowest.taken
	slowest.taken, slowest.leaving = 0, true
	delete(b.shares, slowest)
	slowest.owner.Yield()
	return true
}

// speed is the client's pace in bytes a second. One that has not been waited for
// long enough has none yet, and is no slower than anybody.
func (s *Share) speed() (float64, bool) {
	n, d := s.owner.Lately()
	return float64(n) / max(d.Seconds(), 1e-9), d >= pace.Window
}

// isShort reports whether memory is so short that slow messages should leave it.
func (b *Budget) isShort() bool {
	limit := b.limit.Load()
	if limit <= 0 {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used > limit/2
}

// Stay takes back that the session has to give way if it holds nothing that is
// counted any more.
func (s *Share) Stay() bool {
	if s.envelope > Free || s.message > Free {
		return false
	}
	s.budget.mu.Lock()
	defer s.budget.mu.Unlock()
	s.leaving = false
	return true
}

// Drop gives everything back at the end of a transaction. It returns true if the
// session had to give way meanwhile, which is done with now.
func (s *Share) Drop() (told bool) {
	s.envelope, s.message = 0, 0
	if !s.counted {
		return false
	}
	s.counted = false
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= s.taken
	told = s.leaving
	s.taken, s.leaving = 0, false
	delete(b.shares, s)
	return told
}
