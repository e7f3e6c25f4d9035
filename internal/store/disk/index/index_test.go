package index

import (
	"encoding/json"
	"runtime"
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store/spool"
)

func newID() mail.ID { return mail.NewID(mail.NewConnectionID(), 1) }

// TestMemoryOfAWaitingMessage keeps the index lean.
func TestMemoryOfAWaitingMessage(t *testing.T) {
	const n = 50_000
	x := New()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range n {
		e := NewEntry(1, 4096)
		*e.StateOf(0) = State{Last: x.Intern("451 4.7.1 Greylisted, please try again later"), Next: 1, Attempts: 1}
		x.Add(newID(), e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; per > 200 {
		t.Errorf("%d bytes for each message", per)
	} else {
		t.Logf("%d bytes for each message", per)
	}
	runtime.KeepAlive(x)
}

// TestBounds: what is kept beside the entries has a limit for all messages together.
func TestBounds(t *testing.T) {
	x := New()
	k := x.Add(newID(), NewEntry(1, 10))
	x.Recent.bytes = maxRecent - 10
	x.Recent.AddPromise(k, &mail.Envelope{Recipients: make([]mail.Recipient, 1)}, spool.Sum{}, 11, nil)
	if x.Usage().Recent != 0 {
		t.Error("more envelopes than the bound are kept")
	}
	x.Recent.bytes = 0

	x.Notes.bytes = maxNoted - 50
	long := map[string]json.RawMessage{"v": json.RawMessage(`"` + strings.Repeat("x", 100) + `"`)}
	if err := x.Notes.AddNotes(k, long); err == nil || !x.Notes.IsEmpty() {
		t.Error("more notes than the bound are kept")
	}
	x.Notes.bytes = 0
	if err := x.Notes.AddNotes(k, long); err != nil {
		t.Fatal(err)
	}
	x.Remove(k)
	if u := x.Usage(); u != (Usage{}) || x.Recipients() != 0 || x.Bytes() != 0 {
		t.Errorf("%+v", u)
	}
}

// TestRestAndWake lets a message sleep and wakes it: the sums stay right, and what the
// journal says of a message whose file was not read wins over the file.
func TestRestAndWake(t *testing.T) {
	x := New()
	id := newID()
	x.AddUnread(id)
	k, e := x.Find(id)
	if !e.Is(Partial) || x.Recipients() != 0 {
		t.Fatalf("%+v", e)
	}
	e = x.OwnEntry(k, e)
	e.NoteChange(2, State{Settled: true})
	e.NoteChange(0, State{Hold: Held})
	e.NoteChange(1, State{Attempts: 3, Last: x.Intern("451 later")})
	st := &spool.State{Size: 100, Recipients: []spool.Recipient{
		{Status: spool.Pending, Attempts: 2}, {Status: spool.Pending, Attempts: 1}, {Status: spool.Pending},
	}}
	e = x.WakeEntry(k, e, st)
	if e.Left != 2 || x.Recipients() != 2 || x.Bytes() != 100 {
		t.Errorf("%+v, %d recipients, %d bytes", e, x.Recipients(), x.Bytes())
	}
	if s := e.StateOf(0); s.Hold != Held || s.Attempts != 2 {
		t.Errorf("%+v", s)
	}
	if s := e.StateOf(1); s.Attempts != 3 || s.LastReply() != "451 later" {
		t.Errorf("%+v", s)
	}
	if x.LetRest(k, e); x.Usage().Shared != 0 {
		t.Error("it sleeps although its file does not say all")
	}
	e.Flags &^= Stale
	if x.LetRest(k, e); x.Usage().Shared != 1 || x.Recipients() != 2 || x.Bytes() != 100 {
		t.Errorf("%+v, %d recipients, %d bytes", x.Usage(), x.Recipients(), x.Bytes())
	}
	_, e = x.Find(id)
	st.Recipients[2].Status = spool.Settled
	if x.WakeEntry(k, e, st); x.Recipients() != 2 || x.Bytes() != 100 {
		t.Errorf("%d recipients, %d bytes", x.Recipients(), x.Bytes())
	}
}
