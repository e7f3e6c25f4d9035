package record

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

var sample = &mail.Envelope{
	ID: "A.1", From: mail.Address{Local: "a b", Domain: "example.org"}, EnvelopeID: "x\ny",
	Recipients: []mail.Recipient{{Address: mail.Address{Local: "r0", Domain: "example.com"}}, {Address: mail.Address{Local: "r1", Domain: "example.com"}}},
}

// TestEnvelopeIsWhatJSONMakesOfIt compares the JSON that is written by hand with the
// real one: with every member empty and not, and with what has to be escaped.
func TestEnvelopeIsWhatJSONMakesOfIt(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	words := []string{"", "", "a", "b.c", "x y", `q"u\`, "<&>", "ü", "\u2028", "\x7f", "\xff", "tab\t", "a/b", "用户"}
	word := func() string { return words[rnd.IntN(len(words))] }
	maybe := func() bool { return rnd.IntN(2) == 0 }
	address := func() mail.Address { return mail.Address{Local: word() + word(), Domain: word()} }
	zones := []*time.Location{time.UTC, time.FixedZone("", 3600), time.FixedZone("", -9*3600-1800), time.FixedZone("", 1234)}
	for range 5000 {
		env := &mail.Envelope{
			ID: mail.ID(word()), From: address(), Received: time.Unix(rnd.Int64N(4e9), rnd.Int64N(1e9)*rnd.Int64N(2)).In(zones[rnd.IntN(len(zones))]),
			Body: word(), UTF8: maybe(), RequireTLS: maybe(), Return: word(), EnvelopeID: word(),
		}
		for range rnd.IntN(4) {
			env.Recipients = append(env.Recipients, mail.Recipient{Address: address(), Notify: mail.Notify(rnd.IntN(3)), ORCPT: word()})
		}
		if maybe() {
			env.Notes = mail.Notes{"a": map[string]any{word(): word()}}
		}
		if maybe() {
			env.Origin = &mail.Origin{Port: rnd.IntN(2) * 25, Name: word(), Helo: word(), Protocol: word(), Login: word()}
			env.Origin.Addr, _ = netip.ParseAddr([]string{"", "192.0.2.1", "2001:db8::1", "fe80::1%eth0", "::ffff:192.0.2.1"}[rnd.IntN(5)])
		}
		want, wantErr := json.Marshal(env)
		got, err := appendEnvelope([]byte("x"), env)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%+v: %v, want %v", env, err, wantErr)
		}
		if err == nil && string(got) != "x"+string(want) {
			t.Fatalf("%s\nwant\n%s", got[1:], want)
		}
	}
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
