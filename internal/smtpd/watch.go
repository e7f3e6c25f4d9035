package smtpd

import "time"

// Terms are what a client has to keep to during a transaction.
type Terms struct {
	MinRate int64         // of content, bytes a second; 0: none
	Window  time.Duration // over which MinRate is averaged
	Until   time.Time     // when the transaction has to be over; zero: never
}

// Watch observes one transaction: how long its client is waited for, what content
// comes, and how much of the Budget its mail takes. Its methods are for the
// goroutine that holds the conversation.
type Watch struct {
	conn   *Conn
	pace   pace
	share  share
	chunks scanner // of BDAT: a CR may end one chunk and its LF begin the next
}

// StartWatch begins to watch a transaction. It ends with Stop.
func (c *Conn) StartWatch(b *Budget, t Terms) *Watch {
	w := &Watch{conn: c, pace: pace{minRate: t.MinRate, window: t.Window, until: t.Until}}
	w.share = share{budget: b, owner: w}
	c.watch, c.pace = w, &w.pace
	return w
}

// Stop gives back the memory. A session that had to give way need not any more.
func (w *Watch) Stop() {
	if w.share.drop() {
		w.conn.stay()
	}
	w.conn.watch, w.conn.pace = nil, nil
}

// BeginMessage is called before the content: from now on the client has to make
// progress with it.
func (w *Watch) BeginMessage() { w.pace.receive() }

// IsTooSlow reports, at the end of a window, whether the message came too slowly.
func (w *Watch) IsTooSlow() bool { return w.pace.tooSlow() }

// ReserveEnvelope takes n bytes more for recipients. It returns false if there is no
// memory for them.
func (w *Watch) ReserveEnvelope(n int64) bool { return w.share.holdEnvelope(w.share.envelope + n) }

// ReleaseEnvelope gives n bytes back.
func (w *Watch) ReleaseEnvelope(n int64) { w.share.holdEnvelope(w.share.envelope - n) }

// HoldMessage notes that the message takes n bytes, and that its body could leave
// the memory if spillable. It returns false if there is no memory for them: then the
// body has to leave it.
func (w *Watch) HoldMessage(n int64, spillable bool) bool { return w.share.holdMessage(n, spillable) }

// MakeRoom has slower sessions give way to this one. It returns false if that is not
// enough.
func (w *Watch) MakeRoom() bool { return w.share.push() }

// ShouldSpill reports whether a message of n bytes in memory should leave it now: it
// is slow, and memory gets short.
func (w *Watch) ShouldSpill(n int64) bool {
	return w.pace.total >= paceWindow && n > freeShare && w.share.budget.isShort()
}

// Stay takes back that the session has to give way. It returns false if it holds
// too much for that.
func (w *Watch) Stay() bool {
	if !w.share.stay() {
		return false
	}
	w.conn.stay()
	return true
}

// yield implements owner.
func (w *Watch) yield() { w.conn.yield() }

// lately implements owner.
func (w *Watch) lately() (int64, time.Duration) { return w.pace.lately() }
