package mailq

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/store/disk"
	"tarishi/internal/web"
)

// The list and the counts of a queue of 10,000 messages, over the socket.
func BenchmarkQueue(b *testing.B) {
	const messages = 10_000
	dir := filepath.Join(b.TempDir(), "queue")
	q, err := disk.Open(disk.Options{Dir: dir, NoSync: true})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	content := mail.Memory{make([]byte, 4<<10)}
	for i := range messages {
		env := &mail.Envelope{
			ID: mail.ID(fmt.Sprintf("F47AC10B-58CC-4372-A567-%012X.1", i)), From: mail.Address{Local: "from", Domain: "client.test"},
			Received: born, Recipients: []mail.Recipient{{Address: mail.Address{Local: "to", Domain: fmt.Sprintf("d%d.test", i%1000)}}},
		}
		if err := q.Put(env, content); err != nil {
			b.Fatal(err)
		}
	}
	w := web.New(web.Options{})
	w.Handle(web.Operator, "/v1/", control.NewHandler(New(q, &flushes{}, nil).Operations(), nil))
	s, err := w.Listen(dir)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	daemon, err := control.Dial(b.Context(), dir)
	if err != nil {
		b.Fatal(err)
	}
	c := &caller{daemon}
	b.Run("list", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			n := 0
			if err := c.List(b.Context(), conditions{}, func(*view.Message) error { n++; return nil }); err != nil || n != messages {
				b.Fatal(n, err)
			}
		}
		b.ReportMetric(float64(messages)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
	b.Run("stat", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Stat(b.Context(), 10); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(messages)*float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	})
}
