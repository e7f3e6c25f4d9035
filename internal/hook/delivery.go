package hook

import (
	"slices"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
)

// Delivery is what outbound hooks are about: one message to one destination. Haraka
// calls it hmail, and its Envelope todo: Received is queue_time, Envelope.Notes
// todo.notes, Attempts num_failures. It belongs to the attempt; handlers see it
// through a DeliveryView.
type Delivery struct {
	mail.Envelope        // Recipients: only those of this delivery; see Notes for its own
	Domain        string // the destination: lower case, A-labels
	// Attempts are those that ended in a deferral: earlier ones, and at deferred, or
	// at bounce after a deferral too many, the one that the hook is about.
	Attempts int
	// Notes are for plugins. They, ForceTLS and changes of the Envelope's Notes
	// last until the delivery is done with: the queue keeps them with each
	// deferral, as JSON, so a number is a float64 after a restart. What is no JSON,
	// or more than 64 KiB of it, lasts until the daemon stops. Never nil.
	Notes   mail.Notes
	Content mail.Content // the message
	// Path returns the name of a file that holds the message, to be read only
	// and only while the hook runs. Asking for it may cost a write to the disk.
	Path func() (string, error)
	// ForceTLS, set at send_email or get_mx, has this attempt refuse to go on
	// without TLS, and all later ones.
	ForceTLS    bool
	ReversePath *mail.Address  // set at send_email or get_mx: for MAIL of this attempt, and no reports
	MX          []mail.NextHop // bounce, deferred: where it was tried
}

// View returns what handlers see of d, which may be nil.
func (d *Delivery) View() DeliveryView { return DeliveryView{state: d} }

// DeliveryView is what a handler sees of a delivery. When the handler's time is over
// its methods return zero values or ErrRevoked, and change nothing.
type DeliveryView struct {
	gate  *lease.Gate
	state *Delivery
}

// IsZero reports whether the handler is asked about no delivery.
func (v DeliveryView) IsZero() bool { return v.state == nil }

// ID names the message.
func (v DeliveryView) ID() mail.ID {
	return lease.Look(v.gate, v.state, func(d *Delivery) mail.ID { return d.ID })
}

// From is the reverse-path.
func (v DeliveryView) From() mail.Address {
	return lease.Look(v.gate, v.state, func(d *Delivery) mail.Address { return d.From })
}

// Recipients are those of this delivery. The list must not be changed; it is a copy,
// unless the handler has no timeout.
func (v DeliveryView) Recipients() []mail.Recipient {
	return lease.Look(v.gate, v.state, func(d *Delivery) []mail.Recipient {
		if v.gate == nil {
			return slices.Clip(d.Recipients)
		}
		return slices.Clone(d.Recipients)
	})
}

// Envelope returns a copy of the envelope, as TransactionView.Envelope does.
func (v DeliveryView) Envelope() mail.Envelope {
	return lease.Look(v.gate, v.state, func(d *Delivery) mail.Envelope { return lendEnvelope(v.gate, d.Envelope) })
}

// Domain is the destination: lower case, A-labels.
func (v DeliveryView) Domain() string {
	return lease.Look(v.gate, v.state, func(d *Delivery) string { return d.Domain })
}

// Attempts are those that ended in a deferral: see Delivery.Attempts.
func (v DeliveryView) Attempts() int {
	return lease.Look(v.gate, v.state, func(d *Delivery) int { return d.Attempts })
}

// Notes are those of the delivery: see Delivery.Notes.
func (v DeliveryView) Notes() lease.Notes {
	if v.state == nil {
		return lease.Notes{}
	}
	return lease.ViewNotes(v.gate, &v.state.Notes)
}

// MessageNotes are those of the message, which its transaction left. What is changed in
// them is kept with this delivery.
func (v DeliveryView) MessageNotes() lease.Notes {
	if v.state == nil {
		return lease.Notes{}
	}
	return lease.ViewNotes(v.gate, &v.state.Envelope.Notes)
}

// Content is the message.
func (v DeliveryView) Content() mail.Content {
	return lease.Look(v.gate, v.state, func(d *Delivery) mail.Content { return lease.Content(v.gate, d.Content) })
}

// Path returns the name of a file that holds the message, to be read only and only
// while the hook runs. Asking for it may cost a write to the disk.
func (v DeliveryView) Path() (string, error) {
	path := lease.Look(v.gate, v.state, func(d *Delivery) func() (string, error) { return d.Path })
	if path == nil {
		return "", ErrRevoked
	}
	return path()
}

// Filename is the name of the message's file, without its folder.
func (v DeliveryView) Filename() string {
	return lease.Look(v.gate, v.state, func(d *Delivery) string { return string(d.ID) + ".eml" })
}

// ForceTLS reports whether attempts refuse to go on without TLS.
func (v DeliveryView) ForceTLS() bool {
	return lease.Look(v.gate, v.state, func(d *Delivery) bool { return d.ForceTLS })
}

// SetForceTLS has this attempt and all later ones refuse to go on without TLS. It is
// for the points send_email and get_mx, and it cannot be taken back.
func (v DeliveryView) SetForceTLS() {
	lease.Touch(v.gate, v.state, func(d *Delivery) { d.ForceTLS = true })
}

// SetReversePath sets Delivery.ReversePath, at send_email and get_mx.
func (v DeliveryView) SetReversePath(a mail.Address) {
	lease.Touch(v.gate, v.state, func(d *Delivery) { d.ReversePath = &a })
}

// MX is where the message was tried, at bounce and deferred.
func (v DeliveryView) MX() []mail.NextHop {
	return lease.Look(v.gate, v.state, func(d *Delivery) []mail.NextHop { return slices.Clone(d.MX) })
}
