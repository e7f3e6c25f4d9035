package record

import (
	"encoding/json"
	"fmt"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

var sample = &mail.Envelope{
	ID: "A.1", From: mail.Address{Local: "a b", Domain: "example.org"}, EnvelopeID: "x\ny",
	Recipients: []mail.Recipient{{Address: mail.Address{Local: "r0", Domain: "example.com"}}, {Address: mail.Address{Local: "r1", Domain: "example.com"}}},
}

func TestChangeRecords(t *testing.T) {
	for _, k := range []journal.Kind{KindSettled, KindDeferred, KindDone, KindHeld, KindReleased, KindNotes} {
		c := Change{ID: "A.1"}
		switch k {
		case KindDone:
		case KindNotes:
			c.Notes = map[string]json.RawMessage{"a.b": []byte(`{"c":[1,null]}`), "d": []byte("null")}
		default:
			c.Recipients = []int{0, 200, 70000}
		}
		if k == KindDeferred {
			c.Attempts, c.Next, c.Last = 3, 1<<40, "450 \xc3\xa9"
		}
		b := EncodeChange(k, c)
		got, err := DecodeChange(k, b)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(c) {
			t.Errorf("%+v %v", got, err)
		}
		for n := range b {
			if _, err := DecodeChange(k, b[:n]); err == nil && n < len(b) {
				t.Errorf("kind %d: %d of %d bytes are accepted", k, n, len(b))
			}
		}
	}
}

func FuzzRecords(f *testing.F) {
	m, err := EncodeMessage(sample, 3, false)
	if err != nil {
		f.Fatal(err)
	}
	SealMessage(m, spool.SumOf([]byte("abc")))
	f.Add(append(m, "abc"...))
	f.Add(EncodeChange(KindDeferred, Change{ID: "A.1", Recipients: []int{1}, Attempts: 1, Last: "x"}))
	f.Add(EncodeChange(KindNotes, Change{ID: "A.1", Notes: map[string]json.RawMessage{"a.b": []byte("1"), "c.d": []byte("null")}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeMessage(b, int64(len(b))); err == nil {
			_, _ = DecodeEnvelope(b[:m.Offset()], m)
		}
		if c, err := DecodeChange(KindNotes, b); err == nil {
			if _, err := json.Marshal(c.Notes); err != nil {
				t.Fatal(err)
			}
		}
		for _, k := range []journal.Kind{KindSettled, KindDeferred, KindDone, KindHeld, KindReleased} {
			if c, err := DecodeChange(k, b); err == nil && len(c.Recipients) > len(b) {
				t.Fatal("more recipients than bytes")
			}
		}
	})
}
