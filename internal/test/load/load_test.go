package load

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

// listen starts a sink that ends with the test.
func listen(t *testing.T, o SinkOptions) *Sink {
	t.Helper()
	s, err := Listen(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func TestLoadReachesSink(t *testing.T) {
	for _, c := range []struct {
		name     string
		load     Load
		sessions int // 0: one a client
	}{
		{"one client", Load{Messages: 20}, 0},
		{"pipelined", Load{Messages: 200, Clients: 5, Pipelining: true}, 0},
		{"ten recipients", Load{Messages: 40, Clients: 2, Recipients: 10}, 0},
		{"ten recipients, pipelined", Load{Messages: 40, Clients: 2, Recipients: 10, Pipelining: true}, 0},
		{"large", Load{Messages: 10, Size: 300_000, Pipelining: true}, 0},
		{"one message a session", Load{Messages: 12, Clients: 3, PerSession: 1}, 12},
		{"five messages a session", Load{Messages: 10, PerSession: 5}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := listen(t, SinkOptions{})
			ctx := within(t, 2*time.Minute)
			c.load.Addr, c.load.Run = s.Addr(), 3
			r := c.load.Send(ctx)
			if r.Accepted != c.load.Messages || r.Refused+r.Failed+r.Uncertain != 0 || r.Err != nil {
				t.Fatalf("report %+v", r)
			}
			tally := s.Await(ctx, r)
			if want := c.load.Messages * max(1, c.load.Recipients); tally.Delivered != want || tally.Lost+tally.Duplicates+tally.Unasked != 0 {
				t.Errorf("tally %+v, want %d delivered", tally, want)
			}
			stats := s.Stats()
			if c.sessions > 0 && (r.Sessions != c.sessions || stats.Connections != c.sessions) {
				t.Errorf("%d sessions, %d connections, want %d", r.Sessions, stats.Connections, c.sessions)
			}
			if stats.Messages != c.load.Messages || stats.Mixed != 0 {
				t.Errorf("sink %+v", stats)
			}
			if l := r.Latency; l.P50 <= 0 || l.P50 > l.P95 || l.P95 > l.P99 || l.P99 > l.Max {
				t.Errorf("latency %+v", l)
			}
			s.Forget(3)
			if s.Tally(r).Lost != r.Recipients() {
				t.Error("Forget forgot nothing")
			}
		})
	}
}

func TestDomains(t *testing.T) {
	s := listen(t, SinkOptions{Keep: true, NoPipelining: true})
	r := Load{Addr: s.Addr(), Messages: 7, Recipients: 2, Domains: 3, Domain: "many.test", Pipelining: true}.Send(within(t, 2*time.Minute))
	if r.Accepted != 7 {
		t.Fatal(r.Err)
	}
	if tally := s.Tally(r); tally.Delivered != 14 || tally.Lost != 0 {
		t.Errorf("tally %+v", tally)
	}
	for n, m := range s.Messages() {
		want := fmt.Sprintf("l0.%d.0@d%d.many.test l0.%d.1@d%d.many.test", n, n%3, n, n%3)
		if got := strings.Join(m.Recipients, " "); got != want {
			t.Errorf("message %d went to %s, want %s", n, got, want)
		}
	}
}

// Only a client that was offered PIPELINING may use it.
func TestSinkOffers(t *testing.T) {
	for _, without := range []bool{false, true} {
		s := listen(t, SinkOptions{NoPipelining: without})
		c, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "EHLO x\r\nQUIT\r\n")
		all, err := io.ReadAll(c)
		if offered := strings.Contains(string(all), "PIPELINING"); err != nil || offered == without || !strings.Contains(string(all), "250 8BITMIME") {
			t.Errorf("NoPipelining %v: %q, %v", without, all, err)
		}
	}
}

func TestDuration(t *testing.T) {
	s := listen(t, SinkOptions{})
	ctx := within(t, 2*time.Minute)
	accepted := 0
	for d := 50 * time.Millisecond; accepted == 0 && ctx.Err() == nil; d *= 2 { // a busy machine may send nothing in that time
		accepted = Load{Addr: s.Addr(), Clients: 3, Duration: d, Size: 100}.Send(ctx).Accepted
	}
	if accepted == 0 || accepted != s.Stats().Messages {
		t.Errorf("%d accepted, sink took %d", accepted, s.Stats().Messages)
	}
}

func TestContentSurvives(t *testing.T) {
	s := listen(t, SinkOptions{Keep: true})
	for _, size := range []int{1, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 70_000, 200_001} {
		before := len(s.Messages())
		r := Load{Addr: s.Addr(), Messages: 1, Size: size, Pipelining: true, Run: 9}.Send(within(t, 2*time.Minute))
		if r.Accepted != 1 {
			t.Fatal(r.Err)
		}
		want, _ := content(size, 9, "load@client.test")
		if size > 1000 && len(want) != size {
			t.Errorf("content(%d) has %d bytes", size, len(want))
		}
		if got := s.Messages()[before]; got.Content != string(want) || got.From != "<load@client.test>" ||
			strings.Join(got.Recipients, " ") != "l9.0.0@sink.test" {
			t.Errorf("size %d: from %q, recipients %q, %d bytes, want %d", size, got.From, got.Recipients, len(got.Content), len(want))
		}
	}
}

func TestOrigins(t *testing.T) {
	s := listen(t, SinkOptions{Keep: true})
	var sealed []byte
	r := Load{
		Addr: s.Addr(), Messages: 2, PerSession: 1, From: "me@here.test",
		Origins: []Origin{{netip.MustParseAddr("127.0.0.1"), "mail.here.test"}},
		Seal: func(message []byte) ([]byte, error) {
			sealed = message
			return []byte("X-Seal: yes\r\n"), nil
		},
	}.Send(within(t, 2*time.Minute))
	if r.Accepted != 2 {
		t.Fatal(r.Err)
	}
	for i, m := range s.Messages() {
		want := "X-Seal: yes\r\n" + strings.Replace(string(sealed), headerID(0, 0), headerID(0, uint32(i)), 1)
		if m.From != "<me@here.test>" || m.Content != want || !strings.Contains(want, "<me@here.test>") {
			t.Errorf("message %d from %q:\n%.200s", i, m.From, m.Content)
		}
	}
	r = Load{Addr: s.Addr(), Messages: 1, Seal: func([]byte) ([]byte, error) { return nil, io.ErrNoProgress }}.Send(t.Context())
	if r.Err != io.ErrNoProgress || r.Accepted != 0 {
		t.Errorf("%+v", r)
	}
}

func TestSinkRefuses(t *testing.T) {
	t.Run("at the final dot", func(t *testing.T) {
		s := listen(t, SinkOptions{Defer: 0.25})
		r := Load{Addr: s.Addr(), Messages: 40, Clients: 2}.Send(within(t, 2*time.Minute))
		if r.Accepted != 30 || r.Refused != 10 || s.Stats().Deferred != 10 || r.Err == nil {
			t.Errorf("report %+v, sink %+v", r, s.Stats())
		}
		if tally := s.Tally(r); tally.Delivered != 30 || tally.Lost+tally.Unasked != 0 {
			t.Errorf("tally %+v", tally)
		}
	})
	for _, pipelining := range []bool{false, true} {
		t.Run(fmt.Sprintf("recipients, pipelining %v", pipelining), func(t *testing.T) {
			s := listen(t, SinkOptions{Rcpt: func(to string) string {
				if strings.Contains(to, ".1@") || strings.HasPrefix(to, "l0.2.") {
					return "550 5.1.1 nobody here"
				}
				return ""
			}})
			l := Load{Addr: s.Addr(), Messages: 4, Recipients: 3, Pipelining: pipelining}
			r := l.Send(within(t, 2*time.Minute))
			if r.Accepted != 3 || r.Refused != 1 || r.Recipients() != 6 {
				t.Errorf("report %+v, recipients %d", r, r.Recipients())
			}
			if tally := s.Tally(r); tally.Delivered != 6 || tally.Lost+tally.Unasked != 0 {
				t.Errorf("tally %+v", tally)
			}
		})
	}
}

func TestTallyFindsLossAndDuplicate(t *testing.T) {
	s := listen(t, SinkOptions{})
	r := &Report{Started: time.Now(), accepted: []ID{{Run: 1, Message: 1, Recipient: 0}, {Run: 1, Message: 2, Recipient: 0}, {Run: 1, Message: 3, Recipient: 0}}, Load: Load{Run: 1}}
	field := func(n uint32) []byte { return []byte("A: b\r\n" + idField + headerID(1, n) + "\r\n") }
	s.took("<>", []string{"l1.1.0@x", "postmaster@x"}, field(1), nil)
	s.took("<>", []string{"l1.1.0@x"}, field(1), nil)
	s.took("<>", []string{"l1.3.0@x"}, field(2), nil) // another's content
	s.took("<>", []string{"l1.9.0@x"}, field(9), nil) // nobody asked for it
	got := s.Tally(r)
	got.Elapsed = 0
	if want := (Tally{Delivered: 2, Lost: 1, Duplicates: 1, Unasked: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if s.Stats().Mixed != 1 {
		t.Errorf("%d mixed, want 1", s.Stats().Mixed)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got := s.Await(ctx, r); got.Lost != 1 {
		t.Errorf("Await: %+v", got)
	}
}

// A server that dies after the final dot leaves the client uncertain; a patient
// client goes on with the next message.
func TestLostSessions(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "220 x\r\n250 x\r\n250 x\r\n250 x\r\n354 x\r\n")
			all := make([]byte, 0, 1<<16)
			for !bytes.Contains(all, []byte("\r\n.\r\n")) {
				n, err := c.Read(all[len(all):cap(all)])
				if all = all[:len(all)+n]; err != nil {
					break
				}
			}
			c.Close()
		}
	}()
	l := Load{Addr: ln.Addr().String(), Messages: 3, Size: 200}
	if r := l.Send(within(t, 2*time.Minute)); r.Uncertain != 1 || r.Accepted != 0 || r.Sessions != 1 || r.Err == nil {
		t.Errorf("impatient: %+v", r)
	}
	l.Patience = time.Minute
	if r := l.Send(within(t, 2*time.Minute)); r.Uncertain != 3 || r.Sessions != 3 {
		t.Errorf("patient: %+v", r)
	}
}

func TestParseID(t *testing.T) {
	for _, id := range []ID{{}, {Run: 1, Message: 2, Recipient: 3}, {Run: 65535, Message: 4294967295, Recipient: 65535}} {
		if got, ok := ParseID(id.String()); !ok || got != id {
			t.Errorf("%v read back as %v, %v", id, got, ok)
		}
	}
	for _, s := range []string{"", "l", "l1", "l1.2", "x1.2.3", "l1.2.x", "l70000.1.1", "l1.2.3.4"} {
		if _, ok := ParseID(s); ok {
			t.Errorf("ParseID(%q) was taken", s)
		}
	}
}

func TestUsage(t *testing.T) {
	if _, err := UsageOf(1 << 30); err == nil {
		t.Error("a process that is not there was measured")
	}
	before, err := UsageOf(os.Getpid())
	if err != nil || before.Peak < before.RSS {
		t.Fatalf("%+v, %v", before, err)
	}
	for range 100_000 { // each pass uses some
		after, err := UsageOf(os.Getpid())
		if err != nil || after.RSS < 1<<20 {
			t.Fatalf("%+v, %v", after, err)
		}
		if after.CPU > before.CPU {
			return
		}
	}
	t.Error("no CPU time was used")
}

func BenchmarkStraightToSink(b *testing.B) {
	s, err := Listen(SinkOptions{})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() { cancel(); <-done }()
	r := Load{Addr: s.Addr(), Messages: b.N, Clients: 20, Pipelining: true}.Send(ctx)
	if r.Accepted != b.N {
		b.Fatal(r.Err)
	}
}
