package outbound

import (
	"reflect"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/schedule"
)

// kept is what plugins left with a delivery until its next attempt.
type kept struct {
	notes   mail.Notes     // hook.Delivery.Notes
	message mail.Notes     // the message's, if they were changed
	force   bool           // hook.Delivery.ForceTLS
	spared  bool           // attempt.spared
	asked   bool           // send_email and get_mx have been asked about this attempt
	hops    []mail.NextHop // what they gave then
	stored  string         // what of it the queue remembers
}

func (k kept) remembered() remember.Remembered {
	return remember.Remembered{Notes: k.notes, Message: k.message, ForceTLS: k.force, Spared: k.spared}
}

func (k kept) nothing() bool {
	return len(k.notes) == 0 && k.message == nil && !k.force && !k.spared && !k.asked && k.stored == ""
}

// keeps returns what is to be kept; asked: the attempt is still to be made.
func (a *attempt) keeps(asked bool) kept {
	k := kept{notes: a.notes, force: a.force.Load(), spared: a.spared, message: a.was.message, asked: asked, stored: a.was.stored}
	if asked {
		k.hops = a.hops
	}
	if a.env.Notes != nil && !reflect.DeepEqual(a.env.Notes, a.queued) {
		k.message = a.env.Notes
	}
	return k
}

// keepFor notes what u's next attempt finds again. The caller holds o.mu.
func (o *Outbound) keepFor(u *schedule.Unit, k kept) {
	if !k.nothing() {
		o.kept[u] = k
	}
}

// put leaves what the delivery's next attempt needs, for one that has not been
// made. The caller holds o.mu, and the schedule has the unit.
func (a *attempt) put() {
	a.moved = true
	delete(a.o.running, a.unit)
	a.o.keepFor(a.unit, a.keeps(true))
}
