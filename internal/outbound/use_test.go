package outbound

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"weak"

	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// ended reports whether a channel is closed.
func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// gatekeeper answers Sends when a test lets it, and knows how many there are.
type gatekeeper struct {
	mu      sync.Mutex
	open    int
	most    int // at one time since the last look
	done    map[string]int
	release chan struct{}
}

func (g *gatekeeper) answer(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
	g.mu.Lock()
	g.open++
	g.most = max(g.most, g.open)
	g.mu.Unlock()
	<-g.release
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open--
	g.done[s.to]++
	return byName(ctx, s)
}

func (g *gatekeeper) running() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.open
}

// letGo has n attempts end, one after another.
func (g *gatekeeper) letGo(n int) {
	for range n {
		g.release <- struct{}{}
		synctest.Wait()
	}
}

func newGatekeeper() *gatekeeper {
	return &gatekeeper{done: map[string]int{}, release: make(chan struct{})}
}

// section is the one section for a domain, with so many attempts at a time.
func section(domain string, concurrency int) map[string]*destination.Rules {
	return map[string]*destination.Rules{domain: {Concurrency: destination.Range{Low: concurrency, High: concurrency}}}
}

// TestBusySiteFollows: a destination that is being served gets more attempts at once when
// its limit is raised, and no further ones when it is lowered until enough have ended,
// whichever section says so: for its name, its MX, or all. The same holds of all
// destinations together.
func TestBusySiteFollows(t *testing.T) {
	for name, set := range map[string]func(g *Generation, n int){
		"section for the domain": func(g *Generation, n int) { g.Destinations = section("a.test", n) },
		"section for its MX":     func(g *Generation, n int) { g.Destinations = section("mx:mx.a.test", n) },
		"default section":        func(g *Generation, n int) { g.Destinations = section("default", n) },
		"pool_concurrency_max":   func(g *Generation, n int) { g.PoolConcurrencyMax = n },
		"all together":           func(g *Generation, n int) { g.ConcurrencyMax, g.Destinations = n, section("default", 100) },
	} {
		// Of all places one destination has three quarters at first, and without a section it
		// begins with two and gets one more for each success.
		most := map[string][4]int{"all together": {3, 6, 2, 4}, "pool_concurrency_max": {2, 2, 2, 4}}[name]
		if most == [4]int{} {
			most = [4]int{3, 8, 2, 4}
		}
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(r *rig) {
				g := newGatekeeper()
				r.dns.AddAddr("mx.a.test", "192.0.2.77")
				r.dns.AddMX("a.test", 10, "mx.a.test")
				r.wire.set(g.answer)
				set(&r.o.Generation, 3)
				r.start()
				for i := range 30 {
					r.send(fmt.Sprintf("x%d@a.test", i))
				}
				want := func(n int) {
					t.Helper()
					if synctest.Wait(); g.running() != n {
						t.Errorf("%d attempts run, not %d", g.running(), n)
					}
				}

				want(most[0])
				r.use(func(next *Generation) { set(next, 8) })
				want(most[1])
				r.use(func(next *Generation) { set(next, 2) })
				for g.running() > 2 {
					g.letGo(1)
				}
				g.letGo(3)
				want(most[2])
				r.use(func(next *Generation) { set(next, 4) })
				if name == "pool_concurrency_max" {
					g.letGo(5)
				}
				want(most[3])
				for g.running() > 0 {
					g.letGo(1)
				}
				for i := range 30 {
					if n := g.done[fmt.Sprint("x", i)]; n != 1 {
						t.Errorf("message %d was sent %d times", i, n)
					}
				}
				r.wantIdle()
			})
		})
	}
}

// TestAttemptKeepsItsGeneration: an attempt ends with the hooks and settings that it began
// with, and what the generation before is needed for ends exactly with its last user.
func TestAttemptKeepsItsGeneration(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := newGatekeeper()
		r.wire.set(g.answer)
		heard := make(chan string, 10)
		plugin := func(name string) Chain {
			return hook.NewChain([]hook.Registration{{Point: hook.OnDelivered, Plugin: name, Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
				heard <- name + " " + e.Delivery.Recipients()[0].Address.Local
				return hook.Proceed()
			}}}, r.o.Log)
		}
		r.start()
		r.use(func(g *Generation) { g.Me, g.Chain = "old.test", plugin("old") })
		r.send("one@a.test")
		r.send("two@b.test")
		drained := r.use(func(g *Generation) { g.Me, g.Chain = "new.test", plugin("new") })
		r.send("three@c.test")
		for _, s := range r.wire.take() {
			want := map[string]string{"one": "old.test", "two": "old.test", "three": "new.test"}[s.to]
			if s.target.Helo != want {
				t.Errorf("%s is sent by %s, not %s", s.to, s.target.Helo, want)
			}
		}

		// The last of the two attempts ends it, whichever that is.
		open := 2
		for range 3 {
			g.letGo(1)
			who := <-heard
			if who[:3] == "old" {
				open--
			}
			if ended(drained) != (open == 0) {
				t.Errorf("%d attempts of the old generation run, drained: %v", open, ended(drained))
			}
			if who == "old three" || who == "new one" || who == "new two" {
				t.Errorf("the wrong plugin heard: %s", who)
			}
		}
		if open != 0 || !ended(r.use(func(*Generation) {})) {
			t.Errorf("%d attempts are left of the old generation", open)
		}
		r.wantIdle()
	})
}

// TestOldAttemptBringsNoOldLimits: an attempt that began before a reload, and finds out
// where it goes after it, is counted where it goes now, and by the limits of now.
func TestOldAttemptBringsNoOldLimits(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := newGatekeeper()
		r.wire.set(g.answer)
		asked := make(chan struct{})
		r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(context.Context, *hook.Event) hook.Verdict {
			<-asked
			return hook.Proceed()
		}})
		r.o.Destinations = section("a.test", 5)
		r.start()
		for i := range 20 {
			r.send(fmt.Sprintf("x%d@a.test", i))
		}
		r.use(func(next *Generation) { next.Destinations = section("a.test", 2) })
		close(asked)
		synctest.Wait()
		if n := g.running(); n != 2 {
			t.Errorf("%d attempts run, not 2", n)
		}
		for g.running() > 0 {
			g.letGo(1)
		}
		if g.most != 2 || len(g.done) != 20 {
			t.Errorf("%d at a time, %d of 20 done", g.most, len(g.done))
		}
		r.wantIdle()
	})
}

// TestPostponedIsAskedAnew: next hops that a hook gave for an attempt that has not been made
// are those of the generation before.
func TestPostponedIsAskedAnew(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := newGatekeeper()
		r.wire.set(g.answer)
		way := func(host string) Chain {
			return hook.NewChain([]hook.Registration{{Point: hook.OnGetMX, Plugin: "test", Handler: func(context.Context, *hook.Event) hook.Verdict {
				return hook.Verdict{Code: hook.OK, MX: []mail.NextHop{{Host: host, Limits: mail.Limits{Connections: 1}}}}
			}}}, r.o.Log)
		}
		r.start()
		r.use(func(next *Generation) { next.Chain = way("192.0.2.101") })
		for i := range 3 {
			r.send(fmt.Sprintf("x%d@a.test", i))
		}
		r.use(func(next *Generation) { next.Chain = way("192.0.2.102") })
		for g.running() > 0 {
			g.letGo(1)
		}
		sent := map[string]int{}
		for _, s := range r.wire.take() {
			sent[s.addr]++
		}
		if sent["192.0.2.101:25"] != 1 || sent["192.0.2.102:25"] != 2 {
			t.Errorf("%v", sent)
		}
		r.wantIdle()
	})
}

// TestUseAtAnyTime replaces generations at random while mail of several destinations is
// under way, some of it deferred: each recipient is delivered once, and no more attempts at
// a destination begin than the newest limits allow.
func TestUseAtAnyTime(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(r *rig) {
				random := rand.New(rand.NewPCG(seed, 11))
				var mu sync.Mutex
				running, limit, done, tries := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
				r.wire.set(func(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
					mu.Lock()
					domain := s.env.Recipients[0].Address.Domain
					if running[domain]++; running[domain] > limit[domain] {
						t.Errorf("%d attempts at %s, which may have %d", running[domain], domain, limit[domain])
					}
					tries[s.to]++
					first, wait := tries[s.to] == 1, time.Duration(len(s.to)*7+running[domain])*time.Second
					mu.Unlock()
					time.Sleep(wait)
					mu.Lock()
					defer mu.Unlock()
					running[domain]--
					if first && s.to[0] == 'l' {
						return []*reply.Reply{later}, nil
					}
					done[s.to]++
					return []*reply.Reply{ok}, nil
				})
				change := func(g *Generation) {
					mu.Lock()
					defer mu.Unlock()
					g.Destinations = map[string]*destination.Rules{}
					for _, d := range []string{"a.test", "b.test", "c.test"} {
						n := 1 + random.IntN(6)
						limit[d] = max(n, running[d]) // what runs may go on
						g.Destinations[d] = &destination.Rules{Concurrency: destination.Range{Low: n, High: n}}
					}
					g.ConcurrencyMax = 1 + random.IntN(20)
				}
				change(&r.o.Generation)
				r.start()
				var drained []<-chan struct{}
				for i := range 150 {
					kind := []string{"x", "later"}[random.IntN(2)]
					r.send(fmt.Sprintf("%s%d@%c.test", kind, i, "abc"[random.IntN(3)]))
					if random.IntN(4) == 0 {
						drained = append(drained, r.use(change))
					}
					r.pass(time.Duration(random.IntN(3000)) * time.Millisecond)
				}
				r.pass(2 * time.Hour)
				for _, d := range drained {
					if !ended(d) {
						t.Error("a generation that nobody holds is not drained")
					}
				}
				if len(done) != 150 {
					t.Errorf("%d of 150 delivered", len(done))
				}
				for to, n := range done {
					if n != 1 {
						t.Errorf("%s delivered %d times", to, n)
					}
				}
				r.wantIdle()
			})
		})
	}
}

// TestManyGenerations: a thousand generations later, in which mail was deferred to waiting
// domains and to busy ones, none is left but the last.
func TestManyGenerations(t *testing.T) {
	inBubble(t, func(r *rig) {
		g := newGatekeeper()
		r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
			if s.to == "busy" {
				return g.answer(ctx, s)
			}
			return byName(ctx, s)
		})
		r.start()
		r.send("busy@a.test")
		r.use(func(next *Generation) { next.Destinations = section("mx:b.test", 3) })
		before := runtime.NumGoroutine()
		var old []weak.Pointer[parts]
		for i := range 1000 {
			if i%50 == 0 {
				r.send(fmt.Sprintf("later%d@b.test", i))
			}
			old = append(old, weak.Make(r.out.current()))
			r.use(func(next *Generation) { next.Destinations = section("default", 1+i%7) })
		}
		if n := runtime.NumGoroutine(); n > before+10 {
			t.Errorf("%d goroutines, %d before", n, before)
		}

		r.wire.take() // which has envelopes, and with them attempts
		left := 0
		for range 3 {
			runtime.GC()
		}
		for _, p := range old {
			if p.Value() != nil {
				left++
			}
		}
		if left > 0 {
			t.Errorf("%d of %d generations are left", left, len(old))
		}
		g.letGo(1)
		r.out.Flush("")
		r.pass(time.Minute)
	})
}
