package outbound

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/destination"
	"tarishi/internal/dns/memory"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/smtptest"
)

// whole is an Outbound with the real queue, pool and client. All mail goes to
// one server.
type whole struct {
	*Outbound
	queue *disk.Store
	stop  func()
}

func startWhole(t *testing.T, dir string, port int, more ...hook.Registration) *whole {
	t.Helper()
	q, err := disk.Open(disk.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	p := pool.New(pool.Options{})
	toServer := func(context.Context, *hook.Event) hook.Verdict {
		return hook.Verdict{Code: hook.OK, MX: []mail.NextHop{{Host: "127.0.0.1", Port: port}}}
	}
	o := New(Options{
		Generation: Generation{
			Settings: destination.Settings{
				ConcurrencyMax: 20, TempFailIntervals: []time.Duration{time.Hour, time.Hour, time.Hour, time.Hour}, DelayWarning: -1,
				PoolTimeout: time.Minute, PoolConcurrencyMax: 4,
			},
			Me: "me.test", Grace: 5 * time.Second, ReplyGrace: 5 * time.Second, Resolver: &memory.Resolver{},
			Chain: hook.NewChain(append(more, hook.Registration{Point: hook.OnGetMX, Plugin: "test", Handler: toServer}), zap.NewNop()),
		},
		Queue: q, Pool: p,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 3)
	for _, run := range []func(context.Context) error{q.Run, p.Run, o.Run} {
		go func() { done <- run(ctx) }()
	}
	return &whole{o, q, func() {
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	}}
}

func (w *whole) send(t *testing.T, to ...string) {
	t.Helper()
	env := &mail.Envelope{ID: mail.NewID(mail.NewConnectionID(), 1), From: sender, Received: time.Now()}
	for _, s := range to {
		a, err := mail.ParseAddress(s)
		if err != nil {
			t.Fatal(err)
		}
		env.Recipients = append(env.Recipients, mail.Recipient{Address: a})
	}
	body := w.queue.NewBody()
	defer body.Discard()
	if _, err := body.Write([]byte("Subject: hello\r\n\r\n.a dot\r\n")); err != nil {
		t.Fatal(err)
	}
	content, err := body.Content()
	if err != nil {
		t.Fatal(err)
	}
	if err := w.queue.Put(env, content); err != nil {
		t.Fatal(err)
	}
	w.Enqueue(mail.NewPending(env, content.Size()))
}

// TestWhole follows messages through queue, client and a restart.
func TestWhole(t *testing.T) {
	var greylist atomic.Bool
	greylist.Store(true)
	server := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		switch {
		case strings.HasPrefix(e.Address, "no@"):
			return smtptest.Reply("550 5.1.1 unknown")
		case strings.HasPrefix(e.Address, "later@") && greylist.Load():
			return smtptest.Reply("450 4.2.0 greylisted")
		}
		return smtptest.Action{}
	}))
	dir := t.TempDir()
	w := startWhole(t, dir, server.Port())
	w.send(t, "x@a.test", "later@a.test", "no@a.test")
	for range 20 {
		w.send(t, "x@a.test", "y@b.test")
	}
	// 1 + 20 × 2 and the DSN.
	messages := server.WaitMessages(42)
	dsns := 0
	for _, m := range messages {
		if m.From == "" {
			dsns++
			if !strings.Contains(string(m.Content), "Diagnostic-Code: smtp; 550 5.1.1 unknown") {
				t.Errorf("%s", m.Content)
			}
		} else if string(m.Content) != "Subject: hello\r\n\r\n.a dot\r\n" {
			t.Errorf("%q", m.Content)
		}
	}
	if dsns != 1 {
		t.Errorf("%d DSNs", dsns)
	}
	if n := server.Connections(); n > 8 { // at most PoolConcurrencyMax, but for the start
		t.Errorf("%d connections", n)
	}
	w.stop()

	greylist.Store(false)
	w = startWhole(t, dir, server.Port())
	for end := time.Now().Add(time.Minute); w.Stat().Waiting == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the queue is not loaded")
		}
	}
	if got := w.queue.Stat(); got.Messages != 1 || got.Recipients != 1 {
		t.Errorf("%+v", got)
	}
	if n := w.Flush("a.test"); n != 1 {
		t.Errorf("%d flushed", n)
	}
	messages = server.WaitMessages(43)
	if r := messages[42].Rcpts; len(r) != 1 || !strings.HasPrefix(r[0].Address, "later@") {
		t.Errorf("%+v", r)
	}
	w.stop()
	if v := server.Violations(); len(v) > 0 {
		t.Error(v)
	}
}
