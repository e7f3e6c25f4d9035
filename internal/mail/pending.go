package mail

import "time"

// Pending is what the queue tells about a message that still has recipients to
// serve, without its content.
type Pending struct {
	ID         ID
	From       Address
	Received   time.Time
	Size       int64              // bytes of content
	Recipients []PendingRecipient // only those not settled yet
}

// PendingRecipient is one recipient that is neither delivered nor failed.
type PendingRecipient struct {
	Index    int // in Envelope.Recipients
	Address  Address
	Attempts int       // that ended in a deferral
	Next     time.Time // due; the zero time: at once
	Last     string    // the reply that deferred it last; "": none yet
	Held     bool      // not to be attempted until it is released
}

// NewPending describes a message that has just been put in the queue.
func NewPending(e *Envelope, size int64) Pending {
	p := Pending{ID: e.ID, From: e.From, Received: e.Received, Size: size}
	p.Recipients = make([]PendingRecipient, len(e.Recipients))
	for i, r := range e.Recipients {
		p.Recipients[i] = PendingRecipient{Index: i, Address: r.Address}
	}
	return p
}
