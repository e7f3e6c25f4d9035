package attempt

import (
	"reflect"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
	"tarishi/internal/store"
)

// restoreNotes takes what the queue remembers of deliveries out of its notes of the
// message, which it returns, and if this process knows nothing of this delivery
// it goes on with that.
func (a *Attempt) restoreNotes(notes mail.Notes) mail.Notes {
	// Plugins must not see them: they are about all deliveries of the message.
	notes, records, err := remember.Take(notes)
	if err != nil { // nothing that was written here
		a.logError("notes of deliveries cannot be read", zap.Error(err))
	}
	if a.records = records; a.known || records == nil && err == nil {
		return notes
	}

	// After a start there is nothing but the records.
	was, one := a.records.Of(a.account.Index)
	a.was.Remembered = was
	if a.was.Notes != nil {
		a.notes = a.was.Notes
	}
	a.force.Store(a.was.ForceTLS)
	a.spared = was.Spared
	if a.was.Stored, err = was.Text(); err != nil {
		a.logError("notes of a delivery cannot be compared", zap.Error(err))
	}
	if !one {
		a.was.Stored = "several" // no JSON, so it is recorded for all
	}
	return notes
}

// remember has the queue keep what plugins changed, and returns k as it is then.
// What cannot be kept lasts until the daemon stops.
func (a *Attempt) remember(k remember.Kept) remember.Kept {
	if !a.loaded || len(a.account.Later) == 0 || k.IsNothing() {
		return k
	}

	// Most deliveries leave nothing, or the same as before.
	text, err := k.Text()
	if err == nil && text == k.Stored {
		return k
	}
	if err == nil {
		deliveries := make([][]int, len(a.account.Later))
		for i, r := range a.account.Later {
			deliveries[i] = r.Index
		}
		err = a.m.o.Queue.SetNotes(a.unit.ID(), a.records.Replace(a.account.Index, deliveries, k.Remembered))
	}
	switch {
	case err == nil:
		k.Stored = text
	case !store.IsUnknown(err):
		a.logError("what plugins left with a delivery would not outlive a restart", zap.String("domain", a.unit.Domain()), zap.Error(err))
	}
	return k
}

// Postponed returns what the delivery's next attempt needs when this one has not been
// made.
func (a *Attempt) Postponed() remember.Kept { return a.collectKept(true) }

// collectKept returns the things to keep; asked: the attempt is still to be made.
func (a *Attempt) collectKept(asked bool) remember.Kept {
	k := remember.Kept{Asked: asked, Stored: a.was.Stored}
	k.Notes, k.Message, k.ForceTLS, k.Spared = a.notes, a.was.Message, a.force.Load(), a.spared
	if asked {
		k.Hops, k.ReversePath = a.hops, a.reversePath
	}
	if a.env.Notes != nil && !reflect.DeepEqual(a.env.Notes, a.queued) {
		k.Message = a.env.Notes
	}
	return k
}
