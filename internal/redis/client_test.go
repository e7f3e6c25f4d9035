package redis

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"tarishi/internal/ledger"
	"tarishi/internal/ledger/ledgertest"
	"tarishi/internal/test/redistest"
)

// patience is the time for an answer, on a machine that may be busy.
const patience = time.Minute

// open returns a client of a server.
func open(t *testing.T, s Server) *Client {
	t.Helper()
	if s.Timeout == 0 {
		s.Timeout = patience
	}
	c := New(s, nil)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestContract: a server passes the tests of a ledger. Its own time cannot be set, so lives
// are shortened instead, as if the time had passed.
func TestContract(t *testing.T) {
	server := redistest.Start(t)
	ledgertest.Run(t, time.Minute, func(t *testing.T) ledgertest.Subject {
		c := open(t, Server{Network: "unix", Addr: server.Socket, Database: 4})
		must(t, c.redis.FlushDB(t.Context()).Err())
		var passed atomic.Int64
		c.now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
		return ledgertest.Subject{Ledger: c, Pass: func(d time.Duration) {
			passed.Add(int64(d))
			for _, key := range c.redis.Keys(t.Context(), "*").Val() {
				left := c.redis.PTTL(t.Context(), key).Val()
				must(t, c.redis.PExpire(t.Context(), key, left-d).Err())
			}
		}}
	})
}

// The keys are Haraka's, with its types and lives, and numbers that a Haraka has written
// count.
func TestBesideHaraka(t *testing.T) {
	server := redistest.Start(t)
	c := open(t, Server{Network: "tcp", Addr: server.Addr, Database: 4})
	ctx, r := t.Context(), c.redis

	// As conn_concur_incr writes it, and an end too many.
	must(t, r.Incr(ctx, "concurrency|192.0.2.1").Err())
	h, err := c.Hold(ctx, ledger.Key{Name: "concurrency|192.0.2.1"}, 3*time.Minute)
	must(t, err)
	if h.Count != 2 || r.Get(ctx, "concurrency|192.0.2.1").Val() != "2" {
		t.Errorf("%d are counted, %v", h.Count, r.Get(ctx, "concurrency|192.0.2.1"))
	}
	if left := r.TTL(ctx, "concurrency|192.0.2.1").Val(); left <= 2*time.Minute || left > 3*time.Minute {
		t.Errorf("it lives for %s", left)
	}
	must(t, r.IncrBy(ctx, "concurrency|192.0.2.1", -4).Err())
	h.Release()
	if r.Exists(ctx, "concurrency|192.0.2.1").Val() != 0 {
		t.Errorf("%v is left", r.Get(ctx, "concurrency|192.0.2.1"))
	}
	must(t, r.IncrBy(ctx, "concurrency|192.0.2.1", -4).Err())
	if h, err = c.Hold(ctx, ledger.Key{Name: "concurrency|192.0.2.1"}, 3*time.Minute); err != nil || h.Count != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	must(t, r.Del(ctx, "concurrency|192.0.2.1").Err())
	if h.Release(); r.Exists(ctx, "concurrency|192.0.2.1").Val() != 0 {
		t.Error("the end of what has expired is counted")
	}

	// As outbound_increment writes it.
	must(t, r.HIncrBy(ctx, "outbound-rate:example.com", "TOTAL", 1).Err())
	h, err = c.Hold(ctx, ledger.Key{Name: "outbound-rate:example.com", Field: "TOTAL"}, 5*time.Minute)
	if must(t, err); h.Count != 2 || r.HGet(ctx, "outbound-rate:example.com", "TOTAL").Val() != "2" {
		t.Errorf("%d are counted", h.Count)
	}
	if h.Release(); r.HGet(ctx, "outbound-rate:example.com", "TOTAL").Val() != "1" {
		t.Errorf("%v is left", r.HGetAll(ctx, "outbound-rate:example.com"))
	}

	// As rate_conn_incr writes it: the milliseconds of each connection, also of old ones.
	now := time.Now().UnixMilli()
	must(t, r.HSet(ctx, "rate_conn:192.0.2.1", now-1000, 2, now-59_000, 1, now-61_000, 5).Err())
	if n, err := c.Mark(ctx, "rate_conn:192.0.2.1", time.Minute); err != nil || n != 4 {
		t.Errorf("%d connections, %v", n, err)
	}
	if r.HLen(ctx, "rate_conn:192.0.2.1").Val() != 3 || r.TTL(ctx, "rate_conn:192.0.2.1").Val() < 100*time.Second {
		t.Errorf("%v", r.HGetAll(ctx, "rate_conn:192.0.2.1"))
	}

	// As rate_limit writes it; a number without an end, which a crash left, gets one.
	must(t, r.Set(ctx, "rate_rcpt:a@example.com", 7, 0).Err())
	if n, err := c.Add(ctx, ledger.Key{Name: "rate_rcpt:a@example.com"}, 1, ledger.Life{For: time.Minute}); err != nil || n != 8 {
		t.Errorf("%d, %v", n, err)
	}
	if left := r.TTL(ctx, "rate_rcpt:a@example.com").Val(); left <= 0 || left > time.Minute {
		t.Errorf("it lives for %s", left)
	}
}

// A client that never stops costs a slot at a time, not a field for each event.
func TestSlots(t *testing.T) {
	server := redistest.Start(t)
	c := open(t, Server{Network: "unix", Addr: server.Socket})
	at := time.Now()
	c.now = func() time.Time { return at }
	for range 600 {
		_, err := c.Mark(t.Context(), "m", time.Minute)
		must(t, err)
		at = at.Add(200 * time.Millisecond)
	}
	if n := c.redis.HLen(t.Context(), "m").Val(); n > 62 {
		t.Errorf("%d fields", n)
	}
}

// What is held lives on while it is held, and what could not be released is released later.
func TestHeld(t *testing.T) {
	server := redistest.Start(t)
	c := open(t, Server{Network: "tcp", Addr: server.Addr, Timeout: 200 * time.Millisecond})
	k := ledger.Key{Name: "h"}
	var held []*ledger.Hold
	for len(held) < 3 {
		if h, err := c.Hold(t.Context(), k, time.Hour); err == nil { // the time is short for a busy machine
			held = append(held, h)
		}
	}
	calm := open(t, Server{Network: "tcp", Addr: server.Addr})
	must(t, calm.redis.PExpire(t.Context(), "h", time.Minute).Err())
	calm.held = c.held
	calm.renew(t.Context())
	if left := calm.redis.TTL(t.Context(), "h").Val(); left < 30*time.Minute {
		t.Errorf("it lives for %s", left)
	}

	before := calm.redis.Get(t.Context(), "h").Val()
	server.Pause()
	held[0].Release()
	held[1].Release()
	server.Resume()
	if len(c.held) != 1 || c.owed[k] != 2 {
		t.Errorf("held %v, owed %v", c.held, c.owed)
	}
	for c.Ping(t.Context()) != nil { // it ends with the test's time
	}
	// A release that the server has heard of and not answered counts twice, never too seldom.
	if after := calm.redis.Get(t.Context(), "h").Val(); len(c.owed) != 0 || after >= before {
		t.Errorf("%s after %s, owed %v", after, before, c.owed)
	}
}

// A server that is not there, or does not answer, costs no more than the time for a call.
func TestAway(t *testing.T) {
	server := redistest.Start(t)
	c := open(t, Server{Network: "tcp", Addr: server.Addr, Timeout: 100 * time.Millisecond})
	calls := map[string]func(ctx context.Context) error{
		"Add": func(ctx context.Context) error {
			_, err := c.Add(ctx, ledger.Key{Name: "n"}, 1, ledger.Life{For: time.Hour})
			return err
		},
		"Value": func(ctx context.Context) error { _, err := c.Value(ctx, ledger.Key{Name: "n"}); return err },
		"Mark":  func(ctx context.Context) error { _, err := c.Mark(ctx, "m", time.Hour); return err },
		"Marks": func(ctx context.Context) error { _, err := c.Marks(ctx, "m", time.Hour); return err },
		"Hold":  func(ctx context.Context) error { _, err := c.Hold(ctx, ledger.Key{Name: "h"}, time.Hour); return err },
		"Ping":  c.Ping,
	}
	for _, harm := range []func(){server.Pause, server.Stop} {
		harm()
		for name, call := range calls {
			began := time.Now()
			if err := call(t.Context()); err == nil {
				t.Errorf("%s: no error", name)
			}
			if took := time.Since(began); took > patience {
				t.Errorf("%s took %s", name, took)
			}
		}
	}
}
