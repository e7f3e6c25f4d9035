package fileserver

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/test/load"
)

func TestEverythingArrives(t *testing.T) {
	sink, err := load.Listen(load.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	s, err := Listen(Options{Addr: "127.0.0.1:0", Dir: dir, Next: sink.Addr(), Senders: 3})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- sink.Run(ctx) }()
	go func() { ended <- s.Run(ctx) }()
	r := load.Load{Addr: s.Addr(), Run: 4, Clients: 5, Messages: 100, Recipients: 2, Pipelining: true}.Send(ctx)
	if r.Accepted != 100 {
		t.Fatalf("%+v", r)
	}
	if tally := sink.Await(ctx, r); tally.Delivered != 200 || tally.Lost+tally.Duplicates != 0 || sink.Stats().Mixed != 0 {
		t.Errorf("%+v, sink %+v", tally, sink.Stats())
	}
	for ctx.Err() == nil {
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if ctx.Err() != nil {
		t.Error("files are left")
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestPutIsAFile(t *testing.T) {
	s := &store{dir: t.TempDir()}
	s.more.L = &s.mu
	env := &mail.Envelope{ID: "A.1", From: mail.Address{Local: "f", Domain: "a.test"}, Recipients: []mail.Recipient{{Address: mail.Address{Local: "t", Domain: "b.test"}}}}
	if err := s.Put(env, mail.Memory{[]byte("Subject: x\r\n"), []byte("\r\nbody\r\n")}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(filepath.Join(s.dir, "A.1"))
	if want := "A.1\nf@a.test\nt@b.test\nSubject: x\r\n\r\nbody\r\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	s.dir += "/absent"
	if err := s.Put(env, mail.Memory{}); err == nil {
		t.Error("a message was taken without a file")
	}
}

// A server that cannot deliver says so instead of piling up mail.
func TestNextHopRefuses(t *testing.T) {
	sink, err := load.Listen(load.SinkOptions{Rcpt: func(string) string { return "550 5.1.1 nobody" }})
	if err != nil {
		t.Fatal(err)
	}
	s, err := Listen(Options{Addr: "127.0.0.1:0", Dir: t.TempDir(), Next: sink.Addr()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	running := make(chan error, 1)
	go func() { running <- sink.Run(ctx) }()
	go load.Load{Addr: s.Addr(), Messages: 1}.Send(ctx)
	if err := s.Run(ctx); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("Run: %v", err)
	}
	cancel()
	<-running
}
