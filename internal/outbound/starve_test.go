package outbound

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// tarpits is a wire on which the servers of the domains tarpitN say nothing until
// the client gives up, those of slowN do for half a minute, and all others answer
// at once.
type tarpits struct {
	r     *rig
	known map[string]bool // domains that have an address

	mu        sync.Mutex
	began     map[int]time.Time // attempts that are held, by number
	n         int
	delivered map[string]time.Time // by domain
	awake     bool                 // tarpits behave
}

func newTarpits(r *rig) *tarpits {
	w := &tarpits{r: r, known: map[string]bool{}, began: map[int]time.Time{}, delivered: map[string]time.Time{}}
	r.wire.set(w.answer)
	return w
}

func (w *tarpits) answer(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
	domain := s.env.Recipients[0].Address.Domain
	w.mu.Lock()
	w.n++
	n := w.n
	w.began[n] = time.Now()
	held := strings.HasPrefix(domain, "tarpit") && !w.awake
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.began, n)
		w.mu.Unlock()
	}()
	wait := 2 * time.Millisecond
	switch {
	case held:
		wait = 5 * time.Minute
	case strings.HasPrefix(domain, "slow"):
		wait = 30 * time.Second
	}
	silent := func(err error) error {
		return &smtpclient.Failure{Stage: smtpclient.StageGreeting, Err: err, Fresh: true, Addr: s.addr}
	}
	over := time.NewTimer(wait)
	defer over.Stop()
	select {
	case <-ctx.Done():
		return nil, silent(ctx.Err())
	case <-over.C:
	}
	if held {
		return nil, silent(os.ErrDeadlineExceeded)
	}
	w.mu.Lock()
	w.delivered[domain] = time.Now()
	w.mu.Unlock()
	return []*reply.Reply{ok}, nil
}

// held counts the attempts that are longer than d under way.
func (w *tarpits) held(d time.Duration) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, began := range w.began {
		if time.Since(began) > d {
			n++
		}
	}
	return n
}

// send queues messages for each of n domains whose names begin with prefix.
func (w *tarpits) send(prefix string, n, messages int) {
	for range messages {
		for i := range n {
			domain := fmt.Sprintf("%s%d.test", prefix, i)
			if !w.known[domain] { // an attempt may look it up at any time from now on
				w.known[domain] = true
				w.r.dns.AddAddr(domain, fmt.Sprintf("198.51.%d.%d", 100+i/250, i%250+1))
			}
			p := w.r.put(w.r.envelope("x@" + domain))
			w.r.out.Enqueue(p)
		}
	}
}

// arrive expects that mail to n domains of that prefix is delivered within d.
func (w *tarpits) arrive(prefix string, n int, d time.Duration) {
	w.r.t.Helper()
	for range int(d / (50 * time.Millisecond)) {
		if w.arrived(prefix) >= n {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	w.r.t.Errorf("%d of %d %s domains got their mail within %v: %+v", w.arrived(prefix), n, prefix, d, w.r.out.Stat())
}

func (w *tarpits) arrived(prefix string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for domain := range w.delivered {
		if strings.HasPrefix(domain, prefix) {
			n++
		}
	}
	return n
}

// TestTarpitsStarveNobody holds that mail for others leaves at once, whenever it
// comes, and that what hangs keeps few connections.
func TestTarpitsStarveNobody(t *testing.T) {
	for _, domains := range []int{100, 300, 1000} {
		t.Run(fmt.Sprint(domains), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				r.o.EnvelopeTimeout = 10 * time.Minute
				r.start()
				w := newTarpits(r)
				w.send("tarpit", domains, 3)
				for i, after := range []time.Duration{0, time.Second, 4 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute, 10 * time.Minute, time.Hour} {
					time.Sleep(after)
					within := 5 * time.Second
					if domains > 300 && i < 4 {
						within *= 4 // three tarpits to each place and connection beside it
					}
					prefix := fmt.Sprintf("good%c", 'a'+i)
					w.send(prefix, 20, 1)
					w.arrive(prefix, 20, within)
					if after >= 30*time.Second {
						if n := w.held(11 * time.Second); n > r.o.ConcurrencyMax/4 {
							t.Errorf("%d attempts take longer than ten seconds", n)
						}
					}
					if n := w.held(0); n > r.o.ConcurrencyMax*(1+outside) {
						t.Errorf("%d connections", n)
					}
				}
			})
		})
	}
}

// TestKnownDestinationsTurnTarpits is the same with destinations that took mail
// before.
func TestKnownDestinationsTurnTarpits(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		w := newTarpits(r)
		w.awake = true
		w.send("tarpit", 300, 2)
		w.arrive("tarpit", 300, 10*time.Second)
		w.mu.Lock()
		w.awake = false
		w.mu.Unlock()
		w.send("tarpit", 300, 3)
		time.Sleep(time.Second)
		w.send("good", 20, 1)
		w.arrive("good", 20, 8*time.Second)
		time.Sleep(20 * time.Second)
		w.send("well", 20, 1)
		w.arrive("well", 20, time.Second)
	})
}

// TestSlowServersGetTheirMail: those that take half a minute, among tarpits and
// alone, and each for some messages.
func TestSlowServersGetTheirMail(t *testing.T) {
	for _, domains := range []int{0, 300} {
		inBubble(t, func(r *rig) {
			r.o.EnvelopeTimeout = 10 * time.Minute
			r.o.TempFailIntervals = []time.Duration{64 * time.Second, 128 * time.Second, 256 * time.Second, 512 * time.Second, 1024 * time.Second, 2048 * time.Second}
			r.start()
			w := newTarpits(r)
			w.send("tarpit", domains, 3)
			w.send("slow", 10, 1)
			within := 31 * time.Second
			if domains > 0 {
				within = 40 * time.Minute
			}
			w.arrive("slow", 10, within)
		})
	}
}

// TestEnvelopeTimeout: an attempt is ended after that time, a second later for each
// further recipient, and suspends its destination as one that timed out does.
func TestEnvelopeTimeout(t *testing.T) {
	for _, tt := range []struct {
		to    []string
		after time.Duration
	}{
		{[]string{"x@tarpit0.test"}, time.Minute},
		{[]string{"x@tarpit0.test", "y@tarpit0.test", "z@tarpit0.test"}, time.Minute + 2*time.Second},
	} {
		inBubble(t, func(r *rig) {
			r.o.EnvelopeTimeout = time.Minute
			r.dns.AddAddr("tarpit0.test", "198.51.100.1")
			r.start()
			newTarpits(r)
			r.send(tt.to...)
			r.pass(tt.after - time.Second)
			if r.out.Stat().Running != 1 {
				t.Fatalf("%+v", r.out.Stat())
			}
			r.pass(time.Second)
			if got := r.queue.takeOps(); len(got) != 1 || !strings.Contains(got[0], "attempts 1 in 1m4s: 451 4.4.2 Next hop did not let us send the message in time") {
				t.Fatalf("%q", got)
			}
			if d := r.out.Destinations(1); d[0].SuspendedUntil.IsZero() {
				t.Errorf("%+v", d)
			}
		})
	}
}
