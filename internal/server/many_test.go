package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
)

// TestManyOfOneSender: 20,000 messages of one sender are held, released, flushed and
// removed with one call each, in a daemon with its real queue and schedule, and
// those of others are left alone.
func TestManyOfOneSender(t *testing.T) {
	t.Parallel() // beside those that wait
	many, others := 20_000, 100
	if raced {
		many = 3000 // a few batches
	}
	root := t.TempDir()
	cfg := instanceIn(t, root, map[string]string{
		"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n", "dns.ini": "servers[]=127.0.0.1:9\n", "outbound.ini": "disabled=true\n", "log.ini": "level=error\n",
	})
	stop, s := launch(t, cfg)
	fillFrom(t, s, "bulk", many)
	fillFrom(t, s, "other", others)
	daemon, err := control.Dial(t.Context(), cfg.QueueDir)
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	ofBulk := control.Arguments{"sender": {"bulk@from.test"}}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)

	held, done := 0, 0
	count := func(c control.Caller, name string, a control.Arguments) (n int) {
		t.Helper()
		err := c.Call(t.Context(), mailq.Row(name), a, func(v any) error {
			n++
			if f, ok := v.(control.Failure); ok && f.Failure() != nil {
				return f.Failure()
			}
			return nil
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return n
	}
	if done = count(daemon, "queue hold", ofBulk); done != many {
		t.Errorf("%d are held", done)
	}
	if held = count(daemon, "queue list", control.Arguments{"state": {"held"}}); held != many {
		t.Errorf("%d are listed as held", held)
	}
	if done = count(daemon, "queue release", control.Arguments{"sender": {"bulk@*"}, "state": {"held"}, "limit": {"2000"}}); done != 2000 {
		t.Errorf("%d are released", done)
	}
	if done = count(daemon, "queue release", ofBulk); done != many {
		t.Errorf("%d are released", done)
	}
	for i, sender := range []string{"bulk@from.test", "other@*.test"} {
		err := control.Each(t.Context(), daemon, mailq.Row("queue flush"), control.Arguments{"sender": {sender}}, func(f *view.Flushed) error {
			if f.Deliveries != 0 { // they are due anyway
				return fmt.Errorf("%d deliveries", f.Deliveries)
			}
			return nil
		})
		if err != nil {
			t.Errorf("flush %d: %v", i, err)
		}
	}
	if done = count(daemon, "queue remove", ofBulk); done != many {
		t.Errorf("%d are removed", done)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("heap %d KiB before, %d KiB after", before.HeapAlloc>>10, after.HeapAlloc>>10)
	if n := s.outbound.Stat(); n.Waiting+n.Ready+n.Running != others {
		t.Errorf("scheduled are %+v", n)
	}
	if done = count(daemon, "queue list", nil); done != others {
		t.Errorf("%d messages are left", done)
	}
	stop()

	// What was said to be removed is not in the files either.
	files, stopped, err := mailq.Open(t.Context(), cfg.QueueDir, io.Discard)
	if err != nil || !stopped {
		t.Fatal(stopped, err)
	}
	defer files.Close()
	if n := count(files, "queue list", control.Arguments{"sender": {"other@from.test"}, "state": {"ready"}}); n != others {
		t.Errorf("%d messages are in the files", n)
	}
	if n := count(files, "queue list", ofBulk); n != 0 {
		t.Errorf("%d messages have come back", n)
	}
	err = files.Call(context.Background(), mailq.Row("queue remove"), ofBulk, func(any) error { return nil })
	if !errors.Is(err, control.ErrStopped) {
		t.Errorf("files are changed: %v", err)
	}
}

// fillFrom puts messages of a sender in the queue, many at a time, so that they
// share syncs.
func fillFrom(t *testing.T, s *Server, sender string, messages int) {
	t.Helper()
	next := make(chan int)
	var running sync.WaitGroup
	for range 64 {
		running.Go(func() {
			for i := range next {
				env := &mail.Envelope{
					ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: sender, Domain: "from.test"}, Received: time.Now(),
					Recipients: []mail.Recipient{{Address: mail.Address{Local: "r", Domain: fmt.Sprintf("d%d.test", i%100)}}},
				}
				content := mail.Memory{[]byte("Subject: hello\r\n\r\nbody\r\n")}
				if err := s.queue.Put(env, content); err != nil {
					t.Error(err)
					continue
				}
				s.outbound.Enqueue(mail.NewPending(env, content.Size()))
			}
		})
	}
	for i := range messages {
		next <- i
	}
	close(next)
	running.Wait()
}
