package remember

import (
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tarishi/internal/mail"
)

// TestRecordsOfDeliveries follows deliveries of one message that change, lose
// recipients, fall apart and are put together by starts: each finds what it left.
func TestRecordsOfDeliveries(t *testing.T) {
	type unit struct {
		recipients   []int
		text, stored string
	}
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		queued := map[string]any{} // below mail.DeliveryNotes
		read := func() (all Records) {
			b, err := json.Marshal(queued)
			if err == nil {
				err = json.Unmarshal(b, &all)
			}
			if err != nil {
				t.Fatal(err)
			}
			return all
		}
		units := []*unit{{recipients: []int{0, 1, 2, 3}}, {recipients: []int{4}}, {recipients: []int{5, 6, 7}}}
		for step := range 30 {
			u := units[rnd.IntN(len(units))]
			if rnd.IntN(2) == 0 {
				if u.text = strconv.Itoa(step); rnd.IntN(3) == 0 {
					u.text = ""
				}
			}
			before := slices.Clone(u.recipients)
			later := [][]int{u.recipients}
			if n := len(u.recipients); n > 1 {
				switch cut := 1 + rnd.IntN(n-1); rnd.IntN(3) {
				case 0: // some are done with
					later = [][]int{u.recipients[cut:]}
				case 1: // two deliveries from now on
					later = [][]int{u.recipients[cut:], u.recipients[:cut]}
				}
			}
			if u.text != u.stored {
				var what Remembered
				if u.text != "" {
					what.Notes = mail.Notes{"t": u.text}
				}
				for path, v := range read().Replace(before, later, what) {
					_, key, _ := strings.Cut(path, ".")
					if queued[key] = v; v == nil {
						delete(queued, key)
					}
				}
				u.stored = u.text
			}
			u.recipients = later[0]
			if len(later) > 1 {
				units = append(units, &unit{later[1], u.text, u.stored})
			}
			all := read()
			for _, u := range units {
				if got, _ := all.Of(u.recipients); got.Notes.String("t") != u.text && u.stored == u.text {
					t.Fatalf("seed %d, step %d: %v of %v, want %q; %v", seed, step, got, u.recipients, u.text, queued)
				}
			}
			if rnd.IntN(4) == 0 && len(units) > 1 { // a start puts two together
				i := rnd.IntN(len(units) - 1)
				a, b := units[i], units[i+1]
				units = slices.Delete(units, i, i+1)
				b.recipients = append(slices.Clone(a.recipients), b.recipients...)
				got, one := all.Of(b.recipients)
				if text := got.Notes.String("t"); text != a.text && text != b.text || !one && a.text == "" && b.text == "" && text != "" {
					t.Fatalf("seed %d: %q of %q and %q", seed, text, a.text, b.text)
				}
				if b.text, b.stored = got.Notes.String("t"), "several"; one {
					b.stored = b.text
				}
			}
			if len(queued) > 40 {
				t.Fatalf("seed %d: %d records", seed, len(queued))
			}
		}
	}
}

// TestRememberedText: notes that were all taken away are not notes that are as
// they were.
func TestRememberedText(t *testing.T) {
	for want, r := range map[string]Remembered{
		"":                    {},
		`{"message":{}}`:      {Notes: mail.Notes{}, Message: mail.Notes{}},
		`{"force_tls":true}`:  {ForceTLS: true},
		`{"notes":{"a":"b"}}`: {Notes: mail.Notes{"a": "b"}},
	} {
		if got, err := r.Text(); err != nil || got != want {
			t.Errorf("%s %v, want %s", got, err, want)
		}
	}
}
