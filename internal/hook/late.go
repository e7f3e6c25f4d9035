package hook

import (
	"slices"
	"sync/atomic"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// errLate is what a client gets when a handler has outlived its timeout.
var errLate = reply.New(421, "4.3.0", textTimeout)

// lent is what an Event looked like before a handler with a timeout got it. If
// the handler is late everything that it can reach belongs to it from then on,
// maps above all: not even a look at them would be safe.
type lent struct {
	event    Event
	conn     Connection
	tx       Transaction
	delivery Delivery
	success  DeliveredParams
	denied   DeniedParams
}

// copy notes what e and its objects say. Recipients of a transaction are left
// out: copying them with each RCPT would cost their square.
func (l *lent) copy(e *Event) {
	l.event = *e
	if e.Conn != nil {
		l.conn = *e.Conn
	}
	if e.Tx != nil {
		l.tx = *e.Tx
	}
	if e.Denied != nil {
		l.denied = *e.Denied
	}
	if e.Delivery == nil {
		return
	}
	l.delivery = *e.Delivery
	l.delivery.Recipients = slices.Clone(e.Delivery.Recipients)
	l.delivery.MX = slices.Clone(e.Delivery.MX)
	l.delivery.Notes, l.delivery.Envelope.Notes = e.Delivery.Notes.Plain(), e.Delivery.Envelope.Notes.Plain()
	l.event.Failed, l.event.Deferred, l.event.Bounced = slices.Clone(e.Failed), slices.Clone(e.Deferred), slices.Clone(e.Bounced)
	if e.Success != nil {
		l.success = *e.Success
		l.success.OKRecipients = slices.Clone(e.Success.OKRecipients)
	}
}

// fresh returns an Event with objects of its own. Those of a connection say the
// same, but nothing that plugins noted, and a transaction has neither recipients nor
// content. A delivery goes on, so it has the notes that can be copied.
func (l *lent) fresh() *Event {
	e := l.event
	e.Params = nil
	if e.Conn != nil {
		c := l.conn
		c.Notes, c.Results, c.Auth = mail.Notes{}, NewResults(), nil
		e.Conn = &c
	}
	if e.Tx != nil {
		t := l.tx
		t.Notes, t.Results = mail.Notes{}, NewResults()
		t.Recipients, t.Header, t.Content, t.HeaderSize = nil, nil, nil, 0
		e.Tx = &t
	}
	if e.Delivery != nil {
		d := l.delivery
		if d.ForceTLS != nil { // what it has asked for by now is a promise
			d.ForceTLS = new(atomic.Bool)
			d.ForceTLS.Store(l.delivery.ForceTLS.Load())
		}
		e.Delivery = &d
	}
	if e.Success != nil {
		s := l.success
		e.Success = &s
	}
	if e.Denied != nil {
		d := l.denied
		e.Denied = &d
	}
	return &e
}

// outlasts reports whether the chain of p goes on, with fresh objects, behind a
// handler that was late: where other plugins end what they have begun, and where
// the delivery is done with in any case.
func (p Point) outlasts() bool {
	return p == OnResetTransaction || p == OnDisconnect || p == OnDeferred || p == OnBounce || p == OnDelivered
}

// lateVerdict is what a late handler answers instead.
func lateVerdict(p Point, e *Event) Verdict {
	switch {
	case p.failsOpen():
		return Proceed()
	case e.Conn != nil:
		return Verdict{Code: DenySoftDisconnect, Text: textTimeout, Reply: errLate}
	}
	return Answer(DenySoft, textTimeout)
}
