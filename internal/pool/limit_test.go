package pool_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// held is a connection that carries a transaction until it may end.
type held struct {
	busy *atomic.Int32
	most *atomic.Int32
	end  <-chan struct{}
}

func (h held) Send(context.Context, *mail.Envelope, mail.Content) (smtpclient.Result, error) {
	n := h.busy.Add(1)
	h.most.Store(max(n, h.most.Load()))
	<-h.end
	h.busy.Add(-1)
	return smtpclient.Result{Replies: []*reply.Reply{reply.New(250, "2.0.0", "OK")}}, nil
}

func (held) Reusable() bool   { return true }
func (held) MaxMessages() int { return 0 }
func (held) Quit()            {}
func (held) Close() error     { return nil }

// TestLimitIsLowered: with fewer connections allowed than are in use, transactions wait until
// enough have ended, although their connections could be used again. With more they begin.
func TestLimitIsLowered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var busy, most atomic.Int32
		end := make(chan struct{})
		p := pool.New(pool.Options{
			Connect: func(context.Context, smtpclient.Options) (net.Conn, error) { c, _ := net.Pipe(); return c, nil },
			Open: func(context.Context, net.Conn, smtpclient.Options) (pool.Conn, error) {
				return held{&busy, &most, end}, nil
			},
		})
		run(t, p)
		var done atomic.Int32
		send := func(n, limit int) {
			for i := range n {
				go func() {
					to := pool.Target{Options: smtpclient.Options{Addr: "192.0.2.1:25"}, IdleTimeout: time.Minute, MaxConnections: limit}
					if _, err := p.Send(t.Context(), to, envelope(i), content()); err != nil {
						t.Error(err)
					}
					done.Add(1)
				}()
			}
			synctest.Wait()
		}
		finish := func(n int) {
			for range n {
				end <- struct{}{}
				synctest.Wait()
			}
		}
		want := func(n int32) {
			t.Helper()
			if busy.Load() != n {
				t.Errorf("%d under way, not %d", busy.Load(), n)
			}
		}

		// First while they are in use, then while they are idle.
		send(4, 4)
		send(6, 2)
		want(4)
		finish(2)
		want(2)
		finish(1)
		want(2)
		finish(7)
		want(0)
		send(4, 4)
		finish(4)
		send(5, 2)
		want(2)
		send(1, 3)
		want(3)
		finish(6)
		if most.Load() != 4 || done.Load() != 20 || p.Stats().Waiting != 0 {
			t.Errorf("%d at a time, %d done, %+v", most.Load(), done.Load(), p.Stats())
		}
	})
}
