package mail

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// FuzzAppendJSON: the bytes are json.Marshal's, whatever is in an envelope.
func FuzzAppendJSON(f *testing.F) {
	f.Add("ABC.1", "user", "example.org", "8BITMIME", "rfc822;x@y", int64(1e18), uint8(3), true)
	f.Add("", "", "", "", "", int64(0), uint8(0), false)
	f.Add("<&>", "a \"b\"\\", "b\u00fccher.example", "\x00\x7f\u2028", "\xff", int64(-1<<62), uint8(255), true)
	f.Fuzz(func(t *testing.T, id, local, domain, text, other string, at int64, notify uint8, flag bool) {
		e := &Envelope{ID: ID(id), From: Address{local, domain}, Received: time.Unix(0, at).UTC(), Body: text, UTF8: flag, EnvelopeID: other}
		if flag {
			e.Received = time.Unix(at/1e9, at%1e9).In(time.FixedZone("x", int(notify)*60))
			e.Recipients = []Recipient{{Address: Address{local, domain}}, {Address: Address{other, text}, Notify: Notify(notify), ORCPT: other}}
			e.Notes = Notes{text: other, "list": []any{1.5, nil, true}}
			e.RequireTLS, e.Return = notify > 100, "FULL"
			e.Origin = &Origin{Addr: netip.AddrFrom4([4]byte{1, 2, 3, notify}), Port: int(at), Name: text, Helo: other, Protocol: "ESMTP", Login: local}
		}
		if notify%3 == 1 {
			e.Recipients, e.Origin = []Recipient{}, &Origin{}
		}
		want, wantErr := json.Marshal(e)
		got, err := e.AppendJSON([]byte("x"))
		if (err == nil) != (wantErr == nil) || err == nil && string(got) != "x"+string(want) {
			t.Fatalf("%s %v\nwant %s %v", got, err, want, wantErr)
		}
	})
}

func TestAppendJSONErrors(t *testing.T) {
	for name, e := range map[string]*Envelope{
		"year":  {Received: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"notes": {Notes: Notes{"f": func() {}}},
	} {
		if b, err := e.AppendJSON(nil); err == nil {
			t.Errorf("%s: %s", name, b)
		}
	}
	e := &Envelope{ID: "x", Recipients: []Recipient{{Address: Address{"a", "b.example"}}}, Received: time.Now()}
	b := make([]byte, 0, 512)
	if n := testing.AllocsPerRun(100, func() { _, _ = e.AppendJSON(b) }); n > 2 { // the texts of addresses
		t.Errorf("%v allocations", n)
	}
}
