package outbound

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/mail"
)

// remembered is what plugins left with a delivery and the queue keeps, so that
// a restart does not end it.
type remembered struct {
	Notes    mail.Notes `json:"notes,omitempty"`  // hook.Delivery.Notes
	Message  mail.Notes `json:"message,omitzero"` // the message's, if they were changed
	ForceTLS bool       `json:"force_tls,omitempty"`
	Spared   bool       `json:"spared,omitempty"` // see attempt.spare
}

// record is a remembered as it stands in a message's notes, below
// mail.DeliveryNotes, by the first of its recipients and its version. What becomes one delivery,
// or several, is found out anew at each start, so a recipient may be named by
// many: the newest counts.
type record struct {
	Recipients []int `json:"recipients"` // indices in the queue's envelope
	Version    int   `json:"version"`    // later ones are greater
	remembered
}

// text returns what it says as JSON, "" if that is nothing.
func (r remembered) text() (string, error) {
	b, err := json.Marshal(r)
	if err != nil || string(b) == "{}" {
		return "", err
	}
	return string(b), nil
}

// recall takes what the queue remembers of deliveries out of its notes of the
// message, which it returns, and if this process knows nothing of this delivery
// it goes on with that.
func (a *attempt) recall(notes mail.Notes) mail.Notes {
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
	was, one := a.records.of(a.index)
	a.was.notes, a.was.message, a.was.force = was.Notes, was.Message, was.ForceTLS
	if a.was.notes != nil {
		a.notes = a.was.notes
	}
	a.force.Store(a.was.force)
	a.was.spared = was.Spared
	a.spared = was.Spared
	if a.was.stored, err = a.was.remembered().text(); err != nil {
		a.log("notes of a delivery cannot be compared", zap.Error(err))
	}
	if !one {
		a.was.stored = "several" // no JSON, so it is recorded for all
	}
	return notes
}

// remember has the queue keep what plugins changed, and returns k as it is then.
// What cannot be kept lasts until the daemon stops.
func (a *attempt) remember(k kept) kept {
	if !a.loaded || len(a.later) == 0 || k.nothing() {
		return k
	}
	text, err := k.remembered().text()
	if err == nil && text == k.stored {
		return k
	}
	if err == nil {
		err = a.o.o.Queue.SetNotes(a.unit.ID(), a.records.replace(a.index, a.later, k.remembered()))
	}
	switch {
	case err == nil:
		k.stored = text
	case !unknown(err):
		a.log("what plugins left with a delivery would not outlive a restart", zap.String("domain", a.unit.Domain()), zap.Error(err))
	}
	return k
}

// records are those of a message, by their keys.
type records map[string]record

// of returns what is remembered of a delivery of some recipients. If they were
// several deliveries the notes are those of one of them, and one that forced TLS
// is enough. one is false if the recipients' records differ.
func (all records) of(recipients []int) (was remembered, one bool) {
	var last record
	force, spared, keys := false, false, map[string]bool{}
	for _, i := range recipients {
		var newest record
		from := ""
		for key, r := range all {
			if r.Version > newest.Version && slices.Contains(r.Recipients, i) {
				newest, from = r, key
			}
		}
		keys[from] = true
		force, spared = force || newest.ForceTLS, spared || newest.Spared
		if newest.Version > last.Version {
			last = newest
		}
	}
	last.ForceTLS, last.Spared = force, spared
	return last.remembered, len(keys) <= 1
}

// replace returns the changes in a message's notes that make what a delivery of
// some recipients has become remember what now does.
func (all records) replace(recipients []int, now []rest, what remembered) map[string]any {
	version := 0
	changes := map[string]any{}
	for key, r := range all {
		version = max(version, r.Version)
		if !slices.ContainsFunc(r.Recipients, func(i int) bool { return !slices.Contains(recipients, i) }) {
			changes[mail.DeliveryNotes+"."+key] = nil // nobody else needs it
		}
	}
	for _, r := range now {
		// The version makes it another key than that of a record that others need.
		key := fmt.Sprintf("%d-%d", slices.Min(r.index), version+1)
		changes[mail.DeliveryNotes+"."+key] = record{Recipients: r.index, Version: version + 1, remembered: what}
	}
	return changes
}
