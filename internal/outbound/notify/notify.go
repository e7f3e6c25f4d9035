// Package notify reports failures that were gathered: those of one message, while more of
// its recipients may fail, and those of a sender that has had many reports. Package notice
// says when each is due.
//
// Recipients that wait for their report are marked as failed in the queue, and settled when
// the report is durable (I5). What cannot be read or written now is gathered again.
package notify

import (
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/outbound/notice"
	"tarishi/internal/outbound/report"
)

const (
	// loadWait is how long a report that fell due while no process ran waits at least
	// for what else of its sender the queue has, which is loaded message by message.
	loadWait = 10 * time.Second
	// maxWaits is how often a report is put off by the same wait, as long as further
	// recipients of the message fail.
	maxWaits = 6
)

// Queue is where messages live.
type Queue interface {
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	Find(id mail.ID) (mail.Pending, bool)
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
}

// Outbound is what has the schedule. None of its methods is called with the Notifier's lock
// held, and Reports alone while the Outbound's may be.
type Outbound interface {
	// Settle records that recipients are done with, now or when that is possible.
	Settle(id mail.ID, recipients []int)
	// Reschedule has recipients attempted that were taken for failed.
	Reschedule(p mail.Pending)
	// Enqueue sees to the delivery of a report that was put in the queue.
	Enqueue(p mail.Pending)
	// Signal says that Next may have changed.
	Signal()
	// Reports returns what the configuration says now: how many reports a sender gets, and
	// for how long others of a message are waited for.
	Reports() (rate destination.Rate, wait time.Duration)
	// Reporter returns the Reporter of now, which is used until release is called.
	Reporter() (r *report.Reporter, release func())
}

// Options are what a Notifier works with.
type Options struct {
	Queue    Queue
	Outbound Outbound
	Log      *zap.Logger
	Now      func() time.Time
}

// Notifier has what waits to be reported. Its methods may be called from any goroutine.
type Notifier struct {
	o Options

	mu        sync.Mutex
	gathering notice.Gathering
	warnings  notice.Warnings
}

// New returns a Notifier.
func New(o Options) *Notifier { return &Notifier{o: o} }

// Restore gathers what failed before a restart, and returns the recipients that are still
// to be attempted.
func (n *Notifier) Restore(p *mail.Pending) []mail.PendingRecipient {
	open := p.Recipients
	for at, r := range p.Recipients {
		f, ok := notice.Failure{}, false
		if r.Last != "" {
			f, ok = notice.ParseFailure(r.Last)
		}
		switch {
		case ok:
			// Nearly no message has one, so the list is copied only then.
			if len(open) == len(p.Recipients) {
				open = slices.Clone(p.Recipients[:at])
			}
			due := r.Next
			if soon := n.o.Now().Add(loadWait); f.Collected && due.Before(soon) {
				due = soon
			}
			n.hold(p.ID, p.From.String(), []int{r.Index}, due, f.Collected)
		case len(open) < at:
			open = append(open, r)
		}
	}
	return open
}

// hold gathers recipients for a report at due.
func (n *Notifier) hold(id mail.ID, sender string, recipients []int, due time.Time, collected bool) (begun bool) {
	rate, _ := n.o.Outbound.Reports()
	n.mu.Lock()
	defer n.mu.Unlock()
	_, begun = n.gathering.Hold(id, sender, recipients, due, collected, rate)
	return begun
}

// Begin notes that an attempt at a message is about to look for recipients that may still
// fail; End has to follow, after Hold.
func (n *Notifier) Begin(id mail.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gathering.Begin(id)
}

// End undoes Begin.
func (n *Notifier) End(id mail.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gathering.End(id)
}

// Admit reports whether the sender of a message may get a separate report now, which is
// counted; joins: others of the message wait already, or are about to. If not, until is when it may.
func (n *Notifier) Admit(id mail.ID, sender string) (joins, ok bool, until time.Time) {
	rate, _ := n.o.Outbound.Reports()
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gathering.Joins(id) {
		return true, true, time.Time{}
	}
	ok, until = n.gathering.Admit(n.o.Now(), sender, rate)
	return false, ok, until
}

// Hold keeps recipients for a report at due. Unless they are collected with others of the
// sender, open are the recipients that may fail until then.
func (n *Notifier) Hold(id mail.ID, sender string, recipients []int, due time.Time, collected bool, open map[int]bool) {
	rate, wait := n.o.Outbound.Reports()
	n.mu.Lock()
	r, begun := n.gathering.Hold(id, sender, recipients, due, collected, rate)
	if !collected {
		n.gathering.Await(id, r, open, due, n.o.Now().Add(maxWaits*wait))
	}
	n.mu.Unlock()
	if begun {
		n.logCollecting(sender, due)
	}
}

// logCollecting says once in a period why a sender's reports are late.
func (n *Notifier) logCollecting(sender string, until time.Time) {
	n.o.Log.Info("a sender has had many reports of failures, further ones are collected into one", zap.String("sender", sender), zap.Time("until", until))
}

// Decide notes that recipients of a message are delivered, or failed; decided lists them
// if a report about the message waits.
func (n *Notifier) Decide(id mail.ID, decided func() []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.gathering.Awaits(id) {
		n.gathering.Decide(id, decided())
	}
}

// Take returns the reports that are due, for Tell.
func (n *Notifier) Take(now time.Time) []*notice.Report {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gathering.Take(now)
}

// Next returns when the first report is due.
func (n *Notifier) Next() (due time.Time, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.gathering.Next()
}

// Flush makes reports due that could not be queued.
func (n *Notifier) Flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gathering.Flush()
}

// Forget drops what waits of messages that are gone.
func (n *Notifier) Forget(gone func(mail.ID) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.gathering.Forget(gone)
}

// Waiting is recipients of one message that failed and wait for their report.
type Waiting struct {
	Recipients []int
	Due        time.Time
	Several    bool // for one about other messages too
}

// Explain returns which recipients of a message wait for their report.
func (n *Notifier) Explain(id mail.ID) (all []Waiting) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, r := range n.gathering.All() {
		if list := r.Recipients[id]; len(list) > 0 {
			all = append(all, Waiting{Recipients: slices.Clone(list), Due: r.Due, Several: r.Several})
		}
	}
	return all
}

// ClaimWarning and DisclaimWarning are notice.Warnings.
func (n *Notifier) ClaimWarning(id mail.ID, own, others []int) (fresh, more []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.warnings.Claim(id, own, others)
}

// DisclaimWarning undoes ClaimWarning.
func (n *Notifier) DisclaimWarning(id mail.ID, recipients []int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.warnings.Disclaim(id, recipients)
}
