// Package notice decides when senders hear that their mail failed or is late:
// pure data structures without I/O or a clock. A Gathering holds reports back,
// Warnings remembers which recipients a sender was warned of, and a Failure is how
// the queue remembers a recipient that failed and was not reported yet.
package notice

import (
	"container/heap"
	"maps"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
)

// Bounds of what waits to be reported. Beyond them reports go out earlier, and
// are more; nothing goes unreported.
const (
	maxTogether = 5000    // recipients in a report about several messages
	maxWaiting  = 100_000 // recipients in all
	maxSenders  = 10_000  // with counted reports
)

// Gathering holds back reports of failures: those of a message for a moment while
// more of its recipients may fail, and those of a sender that has had many until the
// period is over. It holds recipients that the queue has marked as failed,
// see Failure; they are settled when their report is durable, and found again after
// a restart. The zero Gathering is empty, and not safe for concurrent use.
type Gathering struct {
	messages map[mail.ID]*Report // by message, which is the only one
	senders  map[string]*allowance
	due      dueHeap // all of it
	waiting  int     // recipients in all
	coming   map[mail.ID]*arrival
}

// arrival is what happens to a message while attempts at it find out what else of it may
// fail: between that and Hold others may be decided.
type arrival struct {
	attempts int
	decided  []int
}

// Begin notes that an attempt at a message is about to look for recipients that may still
// fail. End has to follow, after Hold if there is something to hold.
func (g *Gathering) Begin(id mail.ID) {
	if g.coming[id] == nil {
		if g.coming == nil {
			g.coming = map[mail.ID]*arrival{}
		}
		g.coming[id] = &arrival{}
	}
	g.coming[id].attempts++
}

// End undoes Begin.
func (g *Gathering) End(id mail.ID) {
	if g.coming[id].attempts--; g.coming[id].attempts == 0 {
		delete(g.coming, id)
	}
}

// Joins reports whether failures of a message, whose attempt has begun to look for others,
// belong to a report about it that is held back, or will be by another attempt.
func (g *Gathering) Joins(id mail.ID) bool {
	c := g.coming[id]
	return g.messages[id] != nil || c != nil && c.attempts > 1
}

// Awaits reports whether it matters to a report which recipients of a message are decided.
func (g *Gathering) Awaits(id mail.ID) bool { return g.messages[id] != nil || g.coming[id] != nil }

// All returns the reports that are held back, in no order. The slice is the
// Gathering's.
func (g *Gathering) All() []*Report { return g.due }

// MarkStuck notes that a report could not be made, or queued, when it was due.
func (r *Report) MarkStuck() { r.stuck = true }

// dueHeap has the earliest report in front, see container/heap.
type dueHeap []*Report

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].Due.Before(h[j].Due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push and Pop are for container/heap alone.
func (h *dueHeap) Push(r any) {
	r.(*Report).at = len(*h)
	*h = append(*h, r.(*Report))
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return r
}

// allowance is what one sender got in the current period.
type allowance struct {
	began     time.Time
	reports   int
	collected *Report // what goes beyond; nil: nothing
}

// Report is a report in the making.
type Report struct {
	Sender     string
	Due        time.Time // zero: now
	Recipients map[mail.ID][]int
	Order      []mail.ID // of the messages as they came; some may have been forgotten
	Several    bool      // it may be about several messages

	at    int          // in Gathering.due
	end   time.Time    // Due is never later; zero: it stays as it is
	n     int          // recipients
	stuck bool         // it could not be made, or queued, when it was due
	open  map[int]bool // of the one message: recipients that may still fail; nil: not known
}

// Admit reports whether a sender may get a separate report now, which is
// counted; if not, until is when the period ends.
func (g *Gathering) Admit(now time.Time, sender string, rate destination.Rate) (ok bool, until time.Time) {
	if rate.Count == 0 {
		return true, now
	}
	s := g.senders[sender]
	if s != nil && !now.Before(s.began.Add(rate.Per)) {
		s.began, s.reports = now, 0
	}

	// Where senders cannot be counted any more nothing is held back.
	if s == nil {
		if len(g.senders) >= maxSenders {
			maps.DeleteFunc(g.senders, func(_ string, s *allowance) bool { return s.collected == nil && !now.Before(s.began.Add(rate.Per)) })
		}
		if len(g.senders) >= maxSenders {
			return true, now
		}
		s = &allowance{began: now}
		g.putAllowance(sender, s)
	}
	if s.reports < rate.Count {
		s.reports++
		return true, now
	}
	return false, s.began.Add(rate.Per)
}

func (g *Gathering) putAllowance(sender string, s *allowance) {
	if g.senders == nil {
		g.senders = map[string]*allowance{}
	}
	g.senders[sender] = s
}

// Hold keeps recipients of a message for a report at due, one about this message
// alone, unless they are collected. begun says that nothing of the sender was
// collected before.
func (g *Gathering) Hold(id mail.ID, sender string, recipients []int, due time.Time, collected bool, rate destination.Rate) (r *Report, begun bool) {
	fresh := false
	if collected {
		s := g.senders[sender]
		if s == nil { // from before a restart
			s = &allowance{began: due.Add(-rate.Per), reports: rate.Count}
			g.putAllowance(sender, s)
		}
		if begun = s.collected == nil; begun {
			s.collected, fresh = &Report{Sender: sender, Due: due, Several: true, Recipients: map[mail.ID][]int{}}, true
		}
		r = s.collected
	} else if r = g.messages[id]; r == nil {
		r, fresh = &Report{Sender: sender, Due: due, Recipients: map[mail.ID][]int{}}, true
		if g.messages == nil {
			g.messages = map[mail.ID]*Report{}
		}
		g.messages[id] = r
	}
	if fresh {
		heap.Push(&g.due, r)
	} else if due.Before(r.Due) {
		g.reschedule(r, due)
	}

	// A message is listed once, however many of its recipients fail.
	if len(r.Recipients[id]) == 0 {
		r.Order = append(r.Order, id)
	}
	r.Recipients[id] = append(r.Recipients[id], recipients...)
	r.n += len(recipients)
	g.waiting += len(recipients)

	// A report that grows too long goes out now, and the next failure begins another.
	if r.n >= maxTogether {
		g.reschedule(r, time.Time{})
	}

	// In all there is a bound too: everything goes out, in the order of the heap.
	if g.waiting >= maxWaiting {
		for _, r := range g.due {
			r.Due = time.Time{}
		}
	}
	return r, begun
}

// Await has a report about one message wait until due, if that is later than it
// would have been, but never past the end that the first failure set. open are the
// recipients that may fail until then, as far as they were not known; those that were
// decided since Begin are taken out.
func (g *Gathering) Await(id mail.ID, r *Report, open map[int]bool, due, end time.Time) {
	if r.end.IsZero() {
		r.end = end
	}
	if c := g.coming[id]; r.open == nil && c != nil {
		for _, i := range c.decided {
			delete(open, i)
		}
	}
	if r.open == nil {
		r.open = open
	}
	if due.After(r.end) {
		due = r.end
	}
	if !r.Due.IsZero() && due.After(r.Due) {
		g.reschedule(r, due)
	}
}

// reschedule makes a report due at another time; zero: now.
func (g *Gathering) reschedule(r *Report, due time.Time) {
	r.Due = due
	heap.Fix(&g.due, r.at)
}

// Next returns when the first report is due.
func (g *Gathering) Next() (due time.Time, ok bool) {
	if len(g.due) == 0 {
		return due, false
	}
	return g.due[0].Due, true
}

// Decide notes that recipients of a message are delivered, or failed. When that
// leaves none that may fail at about the same time, and no attempt is about to hold more,
// its report is due.
func (g *Gathering) Decide(id mail.ID, recipients []int) {
	c := g.coming[id]
	if c != nil {
		c.decided = append(c.decided, recipients...)
	}
	r := g.messages[id]
	if r == nil || r.open == nil {
		return
	}
	for _, i := range recipients {
		delete(r.open, i)
	}
	if len(r.open) == 0 && c == nil {
		g.reschedule(r, time.Time{})
	}
}

// Flush makes reports that could not be queued due now.
func (g *Gathering) Flush() {
	for _, r := range g.due {
		if r.stuck {
			r.Due = time.Time{}
		}
	}
	heap.Init(&g.due)
}

// Take returns the reports that are due, which are not gathered any more.
func (g *Gathering) Take(now time.Time) (due []*Report) {
	for len(g.due) > 0 && !g.due[0].Due.After(now) {
		r := heap.Pop(&g.due).(*Report)
		if r.Several {
			g.senders[r.Sender].collected = nil
		} else {
			delete(g.messages, r.Order[0])
		}
		g.waiting -= r.n
		due = append(due, r)
	}
	return due
}

// Forget drops what waits of messages that are gone.
func (g *Gathering) Forget(gone func(mail.ID) bool) {
	for _, r := range g.due {
		for id, recipients := range r.Recipients {
			if gone(id) {
				r.n -= len(recipients)
				g.waiting -= len(recipients)
				delete(r.Recipients, id)
			}
		}
	}
}
