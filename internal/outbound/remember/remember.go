// Package remember keeps what plugins left with the deliveries of a message in the
// message's notes, so that a restart does not end it. What becomes one delivery, or
// several, is found out anew at each start: a recipient may be named by many records,
// and the newest counts.
package remember

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"tarishi/internal/mail"
)

// Remembered is what plugins left with a delivery.
type Remembered struct {
	Notes    mail.Notes `json:"notes,omitempty"`  // hook.Delivery.Notes
	Message  mail.Notes `json:"message,omitzero"` // the message's, if they were changed
	ForceTLS bool       `json:"force_tls,omitempty"`
	Spared   bool       `json:"spared,omitempty"` // an imported message was deferred although its domain does not exist
}

// record is a Remembered as it stands in a message's notes, below
// mail.DeliveryNotes, by the first of its recipients and its version.
type record struct {
	Recipients []int `json:"recipients"` // indices in the queue's envelope
	Version    int   `json:"version"`    // later ones are greater
	Remembered
}

// Text returns it as JSON, "" if it is empty.
func (r Remembered) Text() (string, error) {
	b, err := json.Marshal(r)
	if err != nil || string(b) == "{}" {
		return "", err
	}
	return string(b), nil
}

// Records are those of a message, by their keys.
type Records map[string]record

// Take takes the records out of a message's notes, and returns the rest and them.
// With an error they cannot be read, and are gone.
func Take(notes mail.Notes) (rest mail.Notes, all Records, err error) {
	kept := notes.Get(mail.DeliveryNotes)
	if kept == nil {
		return notes, nil, nil
	}

	// The notes belong to the queue, and other attempts read them at the same time.
	rest = maps.Clone(notes)
	delete(rest, mail.DeliveryNotes)
	b, err := json.Marshal(kept)
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		return rest, nil, err
	}
	return rest, all, nil
}

// Of returns the memory of a delivery of some recipients. If they were
// several deliveries the notes are those of one of them, and one that forced TLS
// is enough. one is false if the recipients' records differ.
func (all Records) Of(recipients []int) (was Remembered, one bool) {
	var last record
	force, spared, keys := false, false, map[string]bool{}

	// Each recipient is in several records: the newest counts.
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
	return last.Remembered, len(keys) <= 1
}

// Replace returns the changes in a message's notes, values by dotted path, that make
// the deliveries now remember something, which one delivery of some recipients has
// become.
func (all Records) Replace(recipients []int, now [][]int, what Remembered) map[string]any {
	version := 0
	changes := map[string]any{}
	for key, r := range all {
		version = max(version, r.Version)
		if !slices.ContainsFunc(r.Recipients, func(i int) bool { return !slices.Contains(recipients, i) }) {
			changes[mail.DeliveryNotes+"."+key] = nil // nobody else needs it
		}
	}
	for _, these := range now {
		// The version makes it another key than that of a record that others need.
		key := fmt.Sprintf("%d-%d", slices.Min(these), version+1)
		changes[mail.DeliveryNotes+"."+key] = record{Recipients: these, Version: version + 1, Remembered: what}
	}
	return changes
}
