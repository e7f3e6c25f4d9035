package outbound

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// TestEveryRecipientEndsOnce: destinations come and go, operators hold, release
// and flush, plugins delay, the queue fails now and then, the daemon is started
// again; in the end every recipient has ended once (the queue of the rig panics
// at a second settlement), and nothing is left anywhere.
func TestEveryRecipientEndsOnce(t *testing.T) {
	for seed := range uint64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inBubble(t, func(r *rig) { r.lifeAtRandom(rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func (r *rig) lifeAtRandom(random *rand.Rand) {
	var mu sync.Mutex
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	r.dns.AddAddr("mx.test", "192.0.2.9")
	domains := []string{"a.test", "b.test", "c.test"} // and some that share their MX
	for i := range 5 {
		d := fmt.Sprintf("shared%d.test", i)
		r.dns.AddMX(d, 10, "mx.test")
		domains = append(domains, d)
	}
	r.o.TempFailIntervals = []time.Duration{time.Minute, time.Minute, 5 * time.Minute, time.Hour, 3 * time.Hour}
	r.o.MaxLifetime, r.o.Jitter, r.o.ConcurrencyMax = 24*time.Hour, 20, 12
	r.sections(map[string]*destination.Rules{
		"mx:mx.test": {Concurrency: destination.Range{Low: 1, High: 3}}, "b.test": {Rate: destination.Rate{Count: 30, Per: time.Hour}},
	})
	r.o.DelayWarning = 2 * time.Hour
	delivered := map[string]int{}
	r.wire.set(func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error) {
		time.Sleep(time.Duration(roll(30)) * time.Second)
		if roll(4) == 0 {
			return refused(ctx, s)
		}
		var all []*reply.Reply
		for _, to := range s.env.Recipients {
			one := []*reply.Reply{ok, ok, later, later, no}[roll(5)]
			if one == ok && !s.env.From.IsNull() {
				mu.Lock()
				delivered[fmt.Sprint(s.env.ID, to.Address)]++
				mu.Unlock()
			}
			all = append(all, one)
		}
		return all, nil
	})
	r.regs = append(r.regs, hook.Registration{Point: hook.OnSendEmail, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
		if roll(10) == 0 {
			return hook.Verdict{Code: hook.Delay, Delay: time.Duration(roll(600)) * time.Second}
		}
		return hook.Proceed()
	}})
	r.start()
	var ids []mail.ID
	for step := range 400 {
		switch roll(8) {
		default:
			to := []string{fmt.Sprintf("x%d@%s", step, domains[roll(len(domains))])}
			for range roll(3) {
				to = append(to, fmt.Sprintf("y%d@%s", len(to), domains[roll(len(domains))]))
			}
			env := r.envelope(to...)
			r.queue.set("put", nil)
			p := r.put(env)
			ids = append(ids, env.ID)
			r.out.Enqueue(p)
		case 0, 1:
			if len(ids) > 0 { // it may be done with: then that is an error
				_ = r.out.Hold(ids[roll(len(ids))], []int{roll(2)})
			}
		case 2:
			if len(ids) > 0 {
				_ = r.out.Release(ids[roll(len(ids))], nil)
			}
		case 3:
			r.out.Flush([]string{"", domains[roll(len(domains))]}[roll(2)])
		case 4:
			err := []error{nil, nil, errDisk}[roll(3)]
			r.queue.set([]string{"put", "settle", "defer", "load"}[roll(4)], err)
		case 5:
			if roll(10) == 0 {
				for _, op := range []string{"put", "settle", "defer", "load"} {
					r.queue.set(op, nil) // what could not be settled is delivered again, as is known
				}
				r.pass(10 * time.Minute)
				r.restart()
			}
		}
		r.pass(time.Duration(roll(60)) * time.Second)
	}
	for _, op := range []string{"put", "settle", "defer", "load"} {
		r.queue.set(op, nil)
	}
	for _, id := range ids {
		_ = r.out.Release(id, nil)
	}
	r.pass(3 * 24 * time.Hour)
	synctest.Wait()
	r.wantIdle()
	if len(r.out.held)+len(r.out.kept)+len(r.out.unrecorded) > 0 {
		r.t.Errorf("left over: %v %v %v", r.out.held, r.out.kept, r.out.unrecorded)
	}
	for to, n := range delivered {
		if n != 1 {
			r.t.Errorf("%s was delivered %d times", to, n)
		}
	}
}
