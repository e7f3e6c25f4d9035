package smtpd

import (
	"time"

	"tarishi/internal/smtpd/budget"
	"tarishi/internal/smtpd/pace"
	"tarishi/internal/smtpd/scan"
)

// Watch observes one transaction: how long its client is waited for, what content
// comes, and how much of a Budget its mail takes. Its methods are for the
// goroutine that holds the conversation.
type Watch struct {
	conn   *Conn
	pace   pace.Pace
	share  budget.Share
	chunks scan.Scanner // of BDAT: a CR may end one chunk and its LF begin the next
}

// StartWatch begins to watch a transaction. It ends with Stop.
func (c *Conn) StartWatch(b *budget.Budget, t pace.Terms) *Watch {
	w := &Watch{conn: c, pace: pace.Pace{Terms: t}}
	w.share = b.NewShare((*owner)(w))
	c.watch, c.pace = w, &w.pace
	return w
}

// Stop gives back the memory. A session that had to give way need not any more.
func (w *Watch) Stop() {
	if w.share.Drop() {
		w.conn.stay()
	}
	w.conn.watch, w.conn.pace = nil, nil
}

// BeginMessage is called before the content: from now on the client has to make
// progress with it.
func (w *Watch) BeginMessage() { w.pace.BeginMessage() }

// IsTooSlow reports, at the end of a window, whether the message came too slowly.
func (w *Watch) IsTooSlow() bool { return w.pace.IsTooSlow() }

// ReserveEnvelope takes n bytes more for recipients. It returns false if there is no
// memory for them.
func (w *Watch) ReserveEnvelope(n int64) bool { return w.share.AddEnvelope(n) }

// ReleaseEnvelope gives n bytes back.
func (w *Watch) ReleaseEnvelope(n int64) { w.share.AddEnvelope(-n) }

// HoldMessage notes that the message takes n bytes, and that its body could leave
// the memory if spillable. It returns false if there is no memory for them: then the
// body has to leave it.
func (w *Watch) HoldMessage(n int64, spillable bool) bool { return w.share.HoldMessage(n, spillable) }

// MakeRoom has slower sessions give way to this one. It returns false if that is not
// enough.
func (w *Watch) MakeRoom() bool { return w.share.Push() }

// ShouldSpill reports whether a message of n bytes in memory should leave it now: it
// is slow, and memory gets short.
func (w *Watch) ShouldSpill(n int64) bool {
	return w.pace.Waited() >= pace.Window && n > budget.Free && w.share.IsShort()
}

// Stay takes back that the session has to give way. It returns false if it holds
// too much for that.
func (w *Watch) Stay() bool {
	if !w.share.Stay() {
		return false
	}
	w.conn.stay()
	return true
}

// owner is a Watch as its Budget sees it.
type owner Watch

// Yield implements budget.Owner.
func (o *owner) Yield() { o.conn.yield() }

// Lately implements budget.Owner.
func (o *owner) Lately() (int64, time.Duration) { return o.pace.Lately() }
