package pool_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// erratic is a connection that takes its time, breaks now and then, and counts
// itself.
type erratic struct {
	open   *atomic.Int32
	broken atomic.Bool
	closed sync.Once
}

func (e *erratic) Send(ctx context.Context, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	select {
	case <-time.After(rand.N(time.Millisecond)):
	case <-ctx.Done():
		e.broken.Store(true)
		return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageMail, Err: ctx.Err()}
	}
	if rand.N(10) == 0 {
		e.broken.Store(true)
		return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageRecipient, Err: errors.New("lost")}
	}
	return smtpclient.Result{Replies: []*reply.Reply{reply.New(250, "2.0.0", "ok")}}, nil
}

func (*erratic) MaxMessages() int { return 0 }

func (e *erratic) Reusable() bool { return !e.broken.Load() }
func (e *erratic) Quit()          { e.Close() }
func (e *erratic) Close() error {
	e.closed.Do(func() { e.open.Add(-1) })
	return nil
}

// TestSlotsSurvive: however Sends, their contexts, connections and dials end, no
// slot is lost, none is given twice, nothing stays open, and who waits is served.
func TestSlotsSurvive(t *testing.T) {
	synctest.Test(t, testSlotsSurvive)
}

func testSlotsSurvive(t *testing.T) {
	const slots = 3
	var open, most atomic.Int32
	p := pool.New(pool.Options{
		Connect: func(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
			select {
			case <-time.After(rand.N(300 * time.Microsecond)):
			case <-ctx.Done():
				return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: ctx.Err(), Addr: o.Addr}
			}
			ours, theirs := net.Pipe()
			theirs.Close()
			return ours, nil
		},
		Open: func(_ context.Context, raw net.Conn, o smtpclient.Options) (pool.Conn, error) {
			raw.Close()
			if rand.N(5) == 0 { // an answer, so that the address is not left alone
				return nil, &smtpclient.Failure{Stage: smtpclient.StageHello, Reply: reply.New(450, "4.0.0", "no"), Addr: o.Addr}
			}
			n := open.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			return &erratic{open: &open}, nil
		},
	})
	stop := run(t, p)
	to := pool.Target{Options: smtpclient.Options{Addr: "192.0.2.1:25"}, MaxConnections: slots, MaxMessages: 4, IdleTimeout: time.Minute}
	var sent atomic.Int32
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			for range 200 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(8*time.Millisecond))
				if _, err := p.Send(ctx, to, envelope(1), content()); err == nil {
					sent.Add(1)
				}
				cancel()
			}
		})
	}
	all.Wait()
	if sent.Load() < 200 {
		t.Errorf("only %d were sent", sent.Load())
	}
	if m := most.Load(); m > slots {
		t.Errorf("%d connections at once", m)
	}
	// All slots are there still: as many at once as there are get a connection.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 10 * slots {
		all.Go(func() {
			for ctx.Err() == nil {
				if _, err := p.Send(ctx, to, envelope(1), content()); err == nil {
					return
				}
			}
			t.Error("no slot any more")
		})
	}
	all.Wait()
	stop()
	if st := p.Stats(); st.Open != 0 || st.Idle != 0 || st.Waiting != 0 || open.Load() != 0 || len(p.Hosts()) != 0 {
		t.Errorf("%+v, %d open, %v", st, open.Load(), p.Hosts())
	}
}

// numbered is a socket that counts itself.
type numbered struct {
	net.Conn
	open   *atomic.Int32
	closed *sync.Once
}

func (c numbered) Close() error {
	c.closed.Do(func() { c.open.Add(-1) })
	return c.Conn.Close()
}

// TestRaceLeavesNothing: whichever of a host's addresses answer, when, and
// whoever leaves meanwhile, every socket is either a connection's or closed, and
// the host is found again.
func TestRaceLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sockets, conns atomic.Int32
		p := pool.New(pool.Options{
			Connect: func(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
				limit := time.NewTimer(o.ConnectTimeout)
				defer limit.Stop()
				wait := time.NewTimer(time.Duration(rand.N(8)) * 250 * time.Millisecond) // often a draw
				defer wait.Stop()
				select {
				case <-wait.C:
					if rand.N(3) > 0 {
						break
					}
					return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("refused"), Addr: o.Addr}
				case <-limit.C:
					return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: context.DeadlineExceeded, Addr: o.Addr}
				case <-ctx.Done():
					return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: ctx.Err(), Addr: o.Addr}
				}
				ours, theirs := net.Pipe()
				theirs.Close()
				sockets.Add(1)
				return numbered{ours, &sockets, &sync.Once{}}, nil
			},
			Open: func(_ context.Context, raw net.Conn, o smtpclient.Options) (pool.Conn, error) {
				raw.Close()
				if rand.N(5) == 0 {
					return nil, &smtpclient.Failure{Stage: smtpclient.StageGreeting, Reply: reply.New(450, "4.0.0", "no"), Addr: o.Addr}
				}
				conns.Add(1)
				return &erratic{open: &conns}, nil
			},
		})
		stop := run(t, p)
		to := pool.Target{Options: smtpclient.Options{Host: "h.test", ConnectTimeout: 1500 * time.Millisecond}, MaxMessages: 2, IdleTimeout: time.Second}
		for _, a := range []string{"192.0.2.1:25", "[2001:db8::1]:25", "192.0.2.2:25", "192.0.2.3:25"} {
			to.Addrs = append(to.Addrs, netip.MustParseAddrPort(a))
		}
		var sent atomic.Int32
		var all sync.WaitGroup
		for range 20 {
			all.Go(func() {
				for range 50 {
					ctx, cancel := context.WithTimeout(t.Context(), rand.N(5*time.Second))
					if _, err := p.Send(ctx, to, envelope(1), content()); err == nil {
						sent.Add(1)
					} else {
						time.Sleep(time.Second) // of back-off
					}
					cancel()
				}
			})
		}
		all.Wait()
		if n := sent.Load(); n < 100 {
			t.Errorf("only %d were sent", n)
		}
		stop()
		synctest.Wait()
		if st := p.Stats(); sockets.Load() != 0 || conns.Load() != 0 || st.Open != 0 || st.Waiting != 0 {
			t.Errorf("%d sockets and %d connections are left: %+v", sockets.Load(), conns.Load(), st)
		}
	})
}
