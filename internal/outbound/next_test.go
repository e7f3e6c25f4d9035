package outbound

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// TestNextMX: an attempt at two MX, of which the first defers and fails recipients
// that it does not take: each line, hook and report names the host that replied.
func TestNextMX(t *testing.T) {
	inBubble(t, func(r *rig) {
		for n := 1; n <= 2; n++ {
			r.dns.AddMX("two.test", 10*n, fmt.Sprintf("mx%d.two.test", n))
			r.dns.AddAddr(fmt.Sprintf("mx%d.two.test", n), fmt.Sprintf("192.0.2.1%d", n))
		}
		r.o.TempFailIntervals = []time.Duration{time.Minute}
		r.o.MaxLifetime = 24 * time.Hour
		r.o.DelayWarning = -1
		r.o.NextMXOnDeferral = true
		delivered, deferred, bounced := r.on(hook.OnDelivered, hook.Proceed()), r.on(hook.OnDeferred, hook.Proceed()), r.on(hook.OnBounce, hook.Proceed())
		r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
			var all []*reply.Reply
			for _, x := range s.env.Recipients {
				switch {
				case x.Address.Local == "no":
					all = append(all, no)
				case x.Address.Local == "never", x.Address.Local == "second" && strings.Contains(s.addr, ".11:"):
					all = append(all, reply.New(451, "4.3.0", "not here"))
				default:
					all = append(all, ok)
				}
			}
			return all, nil
		})
		r.start()
		r.send("first@two.test", "second@two.test", "never@two.test", "no@two.test")
		seen := r.wantSent("0s sender@from.test>first,second,never,no 192.0.2.11:25", "0s sender@from.test>second,never 192.0.2.12:25", "0s >sender 192.0.2.4:25")
		r.pass(0)
		hosts := map[string]any{}
		for _, line := range r.logs.All() {
			if slices.Contains([]string{"delivered", "deferred", "failed"}, line.Message) {
				m := line.ContextMap()
				hosts[fmt.Sprint(line.Message, m["to"])] = m["host"]
			}
		}
		for of, want := range map[string]string{
			"delivered[first@two.test]": "mx1.two.test", "delivered[second@two.test]": "mx2.two.test", "deferred[never@two.test]": "mx2.two.test", "failed[no@two.test]": "mx1.two.test",
		} {
			if hosts[of] != want {
				t.Errorf("%s: host %v, want %s (%v)", of, hosts[of], want, hosts)
			}
		}
		var events []string
		for _, e := range *delivered {
			events = append(events, "delivered "+e.Success.Host+" "+e.Success.OKRecipients[0].Address.Local)
		}
		for _, list := range [][]hook.Event{*deferred, *bounced} {
			for _, e := range list {
				for _, x := range e.Failed {
					events = append(events, x.Host+" "+x.Recipient.Address.Local)
				}
			}
		}
		if got := strings.Join(events, ", "); got != "delivered mx1.two.test first, delivered mx2.two.test second, delivered from.test sender, mx2.two.test never, mx1.two.test no" {
			t.Error(got)
		}
		i := slices.IndexFunc(seen, func(s attemptSeen) bool { return s.env.From == mail.Address{} })
		if text := read(t, seen[i].body); !strings.Contains(text, "Remote-MTA: dns; mx1.two.test") || strings.Contains(text, "mx2.two.test") {
			t.Error(text)
		}
		r.pass(time.Minute)
		r.wantSent("1m0s sender@from.test>never 192.0.2.11:25", "1m0s sender@from.test>never 192.0.2.12:25", "1m0s >sender 192.0.2.4:25")
	})
}
