package attempt

import (
	"reflect"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
)

// Kept is what plugins left with a delivery until its next attempt.
type Kept struct {
	notes   mail.Notes     // hook.Delivery.Notes
	message mail.Notes     // the message's, if they were changed
	force   bool           // hook.Delivery.ForceTLS
	spared  bool           // Attempt.spared
	asked   bool           // send_email and get_mx have been asked about this attempt
	hops    []mail.NextHop // what they gave then
	stored  string         // what of it the queue remembers
}

// IsNothing reports whether the next attempt is the same without.
func (k Kept) IsNothing() bool {
	return len(k.notes) == 0 && k.message == nil && !k.force && !k.spared && !k.asked && k.stored == ""
}

// Clone is for another delivery of the message, which may run at the same time.
func (k Kept) Clone() Kept {
	k.notes, k.message = k.notes.Clone(), k.message.Clone()
	return k
}

func (k Kept) remembered() remember.Remembered {
	return remember.Remembered{Notes: k.notes, Message: k.message, ForceTLS: k.force, Spared: k.spared}
}

// Postponed returns what the delivery's next attempt needs when this one has not been
// made.
func (a *Attempt) Postponed() Kept { return a.keeps(true) }

// keeps returns what is to be kept; asked: the attempt is still to be made.
func (a *Attempt) keeps(asked bool) Kept {
	k := Kept{notes: a.notes, force: a.force.Load(), spared: a.spared, message: a.was.message, asked: asked, stored: a.was.stored}
	if asked {
		k.hops = a.hops
	}
	if a.env.Notes != nil && !reflect.DeepEqual(a.env.Notes, a.queued) {
		k.message = a.env.Notes
	}
	return k
}
