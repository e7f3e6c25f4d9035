package limit

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// delivery is one attempt after another at a message for a domain.
type delivery struct {
	*host
	state *hook.Delivery
}

func (h *host) deliver(domain string) *delivery {
	h.next++
	return &delivery{h, &hook.Delivery{Envelope: mail.Envelope{ID: mail.ID(fmt.Sprint("M", h.next))}, Domain: domain, Notes: mail.Notes{}}}
}

func (d *delivery) run(p hook.Point) hook.Verdict {
	return d.chain.Run(d.t.Context(), p, &hook.Event{Delivery: d.state.View(), Host: d.state.Domain})
}

// delayed asks whether an attempt may begin; 0: it may.
func (d *delivery) delayed(t *testing.T, want time.Duration) {
	t.Helper()
	v := d.run(hook.OnSendEmail)
	if got := v.Delay; got != want || (v.Code == hook.Delay) != (want > 0) {
		t.Errorf("%s: %s for %s, want %s", d.state.Domain, v.Code, got, want)
	}
}

func TestOutbound(t *testing.T) {
	for _, end := range []hook.Point{hook.OnDelivered, hook.OnDeferred, hook.OnBounce} {
		h := newHost(t, "[outbound]\nenabled=true\nExample.com=2\nother.example=0\n")
		first, second, third := h.deliver("example.com"), h.deliver("example.com"), h.deliver("example.com")
		first.delayed(t, 0)
		second.delayed(t, 0)
		third.delayed(t, 30*time.Second)
		for range 9 {
			h.deliver("other.example").delayed(t, 0)
			h.deliver("sub.example.com").delayed(t, 0)
		}

		// An attempt that was interrupted counts once, and so does its end.
		first.delayed(t, 0)
		first.run(end)
		first.run(hook.OnBounce)
		first.run(hook.OnDeferred)
		if len(first.state.Notes) > 0 {
			t.Errorf("%s leaves %v", end, first.state.Notes)
		}
		third.delayed(t, 0)
		first.delayed(t, 30*time.Second)
		h.deliver("example.com").delayed(t, 30*time.Second)
	}
}

// A delivery of which nothing is heard does not count for ever.
func TestOutboundLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "[outbound]\nenabled=true\nexample.com=1\ndelay=7\n")
		lost := h.deliver("example.com")
		lost.delayed(t, 0)
		time.Sleep(claimLife - time.Minute)
		next := h.deliver("example.com")
		next.delayed(t, 7*time.Second)
		time.Sleep(2 * time.Minute)
		next.delayed(t, 0)
		lost.run(hook.OnDelivered) // it was found after all
		h.deliver("example.com").delayed(t, 7*time.Second)
	})
}

func TestRateOutbound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "[outbound]\nenabled=true\nsub.example.com=1\n[rate_outbound]\nenabled=true\nexample.com=2/10m\nfree.example=0\ndefault=3\n")
		first, second := h.deliver("sub.example.com"), h.deliver("example.com")
		first.delayed(t, 0)
		second.delayed(t, 0)
		h.deliver("a.sub.example.com").delayed(t, 10*time.Minute)
		first.run(hook.OnDelivered)

		// What the rate postpones does not count as running.
		h.deliver("sub.example.com").delayed(t, 10*time.Minute)
		h.deliver("sub.example.com").delayed(t, 10*time.Minute)
		for n := range 4 {
			want := time.Duration(0)
			if n == 3 {
				want = time.Minute
			}
			h.deliver("elsewhere.example").delayed(t, want)
			h.deliver("free.example").delayed(t, 0)
		}
		time.Sleep(10 * time.Minute)
		h.deliver("sub.example.com").delayed(t, 0)
	})
}
