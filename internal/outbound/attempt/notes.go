package attempt

import (
	"encoding/json"
	"maps"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// restoreNotes takes what the queue remembers of deliveries out of its notes of the
// message, which it returns, and if this process knows nothing of this delivery
// it goes on with that.
func (a *Attempt) restoreNotes(notes mail.Notes) mail.Notes {
	all := notes.Get(mail.DeliveryNotes)
	if all == nil {
		return notes
	}
	notes = maps.Clone(notes)
	delete(notes, mail.DeliveryNotes)
	b, err := json.Marshal(all)
	if err == nil {
		err = json.Unmarshal(b, &a.records)
	}
	if err != nil { // nothing that was written here
		a.log("notes of deliveries cannot be read", zap.Error(err))
		a.records = nil
	}
	if a.known {
		return notes
	}
	was, one := a.records.Of(a.index)
	a.was.notes, a.was.message, a.was.force = was.Notes, was.Message, was.ForceTLS
	if a.was.notes != nil {
		a.notes = a.was.notes
	}
	a.force.Store(a.was.force)
	a.was.spared = was.Spared
	a.spared = was.Spared
	if a.was.stored, err = a.was.remembered().Text(); err != nil {
		a.log("notes of a delivery cannot be compared", zap.Error(err))
	}
	if !one {
		a.was.stored = "several" // no JSON, so it is recorded for all
	}
	return notes
}

// remember has the queue keep what plugins changed, and returns k as it is then.
// What cannot be kept lasts until the daemon stops.
func (a *Attempt) remember(k Kept) Kept {
	if !a.loaded || len(a.left.Later) == 0 || k.IsNothing() {
		return k
	}
	text, err := k.remembered().Text()
	if err == nil && text == k.stored {
		return k
	}
	if err == nil {
		deliveries := make([][]int, len(a.left.Later))
		for i, r := range a.left.Later {
			deliveries[i] = r.Index
		}
		err = a.m.o.Queue.SetNotes(a.unit.ID(), a.records.Replace(a.index, deliveries, k.remembered()))
	}
	switch {
	case err == nil:
		k.stored = text
	case !a.m.unknown(err):
		a.log("what plugins left with a delivery would not outlive a restart", zap.String("domain", a.unit.Domain()), zap.Error(err))
	}
	return k
}
