package disk

import (
	"fmt"
	"testing"

	"tarishi/internal/mail"
)

// TestRecent loads messages for the first time, from memory, and again, from
// their records: what is said is the same, whatever the caller of Put does with
// its envelope, and nothing is kept of what was loaded, is finished or waits.
func TestRecent(t *testing.T) {
	q := open(t, Options{Dir: t.TempDir(), NoSync: true, SegmentSize: 64 << 10})
	plain := func(recipients int) *mail.Envelope {
		env := envelope(newID(), recipients)
		env.Notes = nil
		env.Origin = &mail.Origin{Helo: "client.example"}
		return env
	}
	kept := func(n int) {
		t.Helper()
		u := q.catalog.Usage()
		if u.Recent != n || n == 0 && u.RecentBytes != 0 || n > 0 && u.RecentBytes <= 0 {
			t.Errorf("%d envelopes are kept in %d bytes, want %d", u.Recent, u.RecentBytes, n)
		}
	}
	env := plain(2)
	want := *plain(2)
	want.ID = env.ID
	put(t, q, env, text(100))
	env.Recipients[0].Address.Local, env.Origin.Helo, env.From.Local = "other", "other", "other"
	kept(1)
	if p := pendings(q); p[env.ID].Recipients[0].Address.Local != "r0" {
		t.Errorf("%+v", p)
	}
	kept(1) // who only looks leaves it
	show := func(e mail.Envelope) string {
		o := *e.Origin
		e.Origin = nil
		return fmt.Sprintf("%+v %+v", e, o)
	}
	for i := range 3 {
		got, c, err := q.Load(env.ID)
		must(t, err)
		if show(*got) != show(want) {
			t.Fatalf("load %d:\n%s\nwant\n%s", i, show(*got), show(want))
		}
		got.Recipients[0].Address.Local, got.Origin.Helo = "other", "other"
		if string(read(t, c)) != string(text(100)) {
			t.Error("content differs")
		}
		kept(0)
	}

	env = plain(1)
	put(t, q, env, text(100))
	must(t, q.Settle(env.ID, []int{0}))
	kept(0)
	env = plain(1)
	put(t, q, env, text(100))
	must(t, q.Remove(env.ID))
	kept(0)
	env = plain(1)
	put(t, q, env, text(100))
	retireAll(t, q)
	kept(0)
	put(t, q, envelope(newID(), 1), nil) // it has notes
	kept(0)
}
