package notice

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

var (
	no    = reply.New(550, "5.1.1", "no such user")
	later = reply.New(451, "4.2.0", "later")
)

// TestGatheringIsBounded: neither one sender nor all together make it grow without
// end, and all that came comes out.
func TestGatheringIsBounded(t *testing.T) {
	var g Gathering
	now := time.Unix(1e9, 0)
	rate := destination.Rate{Count: 1, Per: time.Hour}
	total, taken, most := 0, 0, 0
	take := func() {
		for _, r := range g.Take(now) {
			taken += r.n
			if r.n > maxTogether {
				t.Fatal(r.n)
			}
		}
	}
	for i := range 3 * maxTogether {
		g.Hold(mail.ID(fmt.Sprintf("A%d", i)), "one", []int{0}, now.Add(time.Hour), true, rate)
		total++
		take()
	}
	if taken != total {
		t.Fatal(taken, total)
	}
	for i := range 2*maxWaiting + 10 {
		g.Hold(mail.ID(fmt.Sprintf("B%d", i)), fmt.Sprint("s", i%200), []int{0}, now.Add(time.Hour), i%2 == 0, rate)
		total++
		most = max(most, g.waiting)
		take()
	}
	if most > maxWaiting {
		t.Fatal(most)
	}
	now = now.Add(time.Hour)
	if take(); taken != total || g.waiting != 0 || len(g.due) != 0 || len(g.messages) != 0 {
		t.Fatal(taken, total, g.waiting)
	}
	for i := range maxSenders + 100 {
		if ok, _ := g.Admit(now, fmt.Sprint("t", i), rate); !ok {
			t.Fatal(i)
		}
	}
	if len(g.senders) > maxSenders {
		t.Fatal(len(g.senders))
	}
}

// TestDecidedAtOnce: attempts at one message that end at the same moment have one report,
// which waits for nothing that was decided while they looked for what may still fail.
func TestDecidedAtOnce(t *testing.T) {
	now := time.Unix(1e9, 0)
	later, end := now.Add(10*time.Second), now.Add(time.Minute)
	hold := func(g *Gathering, recipient int, open ...int) {
		still := map[int]bool{}
		for _, i := range open {
			still[i] = true
		}
		r, _ := g.Hold("A", "one", []int{recipient}, later, false, destination.Rate{})
		g.Await("A", r, still, later, end)
		g.End("A")
	}
	taken := func(g *Gathering) (n int) {
		for _, r := range g.Take(now) {
			n += r.n
		}
		return n
	}

	// The other is delivered after it was seen to be open.
	var g Gathering
	g.Begin("A")
	g.Decide("A", []int{1})
	hold(&g, 0, 1)
	if n := taken(&g); n != 0 {
		t.Errorf("%d recipients are reported before the attempt is over", n)
	}
	if g.Decide("A", []int{0}); taken(&g) != 1 {
		t.Error("the report waits for a recipient that is delivered")
	}

	// The other sees this one marked as failed, and ends first.
	g.Begin("A")
	g.Begin("A")
	if !g.Joins("A") {
		t.Error("two attempts would make a report each")
	}
	hold(&g, 1)
	if g.Decide("A", []int{1}); taken(&g) != 0 {
		t.Error("a report leaves without a failure that is about to join it")
	}
	hold(&g, 0, 1)
	if g.Decide("A", []int{0}); taken(&g) != 2 || len(g.coming) != 0 || g.Awaits("A") {
		t.Errorf("%+v", g)
	}

	// One alone joins nothing.
	if g.Begin("A"); g.Joins("A") {
		t.Error("an attempt joins itself")
	}
}

func TestFailureText(t *testing.T) {
	at := time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)
	for _, f := range []Failure{
		{At: at, Reply: no, Host: "mx.a.test"},
		{At: at, Reply: later, Collected: true},
		{At: at, Reply: reply.New(550, "", "at x: 5.1.1, collected"), Host: "2001:db8::1", Collected: true},
		{At: at, Reply: no.Because(errors.New("disk")), Host: "mx.a.test"},
		{At: at, Reply: reply.New(554, "5.7.26", "")},
	} {
		got, ok := ParseFailure(f.String())
		if !ok || !got.At.Equal(at) || got.Host != f.Host || got.Collected != f.Collected || got.Reply.String() != f.Reply.String() || (got.Reply.Cause == nil) != (f.Reply.Cause == nil) {
			t.Errorf("%q: %+v", f.String(), got)
		}
	}
	for _, s := range []string{"", "550 5.1.1 no", "failed", "failed x: 550 no", "failed 2031-05-06T07:08:09Z", "failed 2031-05-06T07:08:09Z: 250 ok", "failed 2031-05-06T07:08:09Z: no"} {
		if f, ok := ParseFailure(s); ok {
			t.Errorf("%q: %+v", s, f)
		}
	}
}

// TestWarningsAreBounded: the oldest are forgotten first.
func TestWarningsAreBounded(t *testing.T) {
	var w Warnings
	for i := range maxWarnings {
		w.Claim(mail.ID(fmt.Sprint(i)), []int{0}, []int{1})
	}
	if len(w.recipients) != maxWarnings/2 || len(w.order) != maxWarnings/2 || w.n != maxWarnings || w.recipients["0"] != nil || w.recipients[mail.ID(fmt.Sprint(maxWarnings-1))] == nil {
		t.Error(len(w.recipients), len(w.order), w.n)
	}
	w.Disclaim(mail.ID(fmt.Sprint(maxWarnings-1)), []int{0, 1})
	if fresh, more := w.Claim(mail.ID(fmt.Sprint(maxWarnings-1)), []int{1}, []int{0}); len(fresh) != 1 || len(more) != 1 || w.n != maxWarnings {
		t.Error(fresh, more, w.n)
	}
}
