package outbound

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store"
)

// instant is a queue of one message under many ids, and a server that takes it
// at once: what is left is our own work.
type instant struct {
	store.Store // what is not called here

	env  mail.Envelope
	done sync.WaitGroup
}

func (q *instant) Watch(store.Deliverer)             {}
func (q *instant) Adopt(func(mail.Pending) bool) int { return 0 }
func (q *instant) Permit(mail.ID) error              { return nil }
func (q *instant) Find(mail.ID) (mail.Pending, bool) { return mail.Pending{}, false }

func (q *instant) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	return &q.env, mail.Memory{}, nil
}

func (q *instant) Settle(mail.ID, []int) error { q.done.Done(); return nil }

func (q *instant) reply() (smtpclient.Result, error) {
	return smtpclient.Result{Replies: []*reply.Reply{ok}}, nil
}

func (q *instant) Send(context.Context, pool.Target, *mail.Envelope, mail.Content) (smtpclient.Result, error) {
	return q.reply()
}

// BenchmarkDelivery is a message with one recipient, from Enqueue to Settle.
func BenchmarkDelivery(b *testing.B) {
	q := &instant{env: mail.Envelope{ID: "X.1", From: sender, Received: time.Now(), Recipients: make([]mail.Recipient, 1)}}
	resolver := &memory.Resolver{}
	var pending []mail.Pending
	for i := range 100 {
		domain := fmt.Sprintf("d%d.test", i)
		resolver.AddMX(domain, 10, "mx."+domain)
		resolver.AddAddr("mx."+domain, "192.0.2.1")
		q.env.Recipients[0] = mail.Recipient{Address: mail.Address{Local: "x", Domain: domain}}
		pending = append(pending, mail.NewPending(&q.env, 100))
	}
	o := New(Options{Generation: Generation{Settings: destination.Settings{ConcurrencyMax: 100, PoolConcurrencyMax: 10, LocalMXOK: true}, Resolver: resolver}, Queue: q, Pool: q})
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); o.Run(ctx) }()
	b.ReportAllocs()
	b.ResetTimer()
	q.done.Add(b.N)
	for i := range b.N {
		o.Enqueue(pending[i%len(pending)])
	}
	q.done.Wait()
	b.StopTimer()
	cancel()
	<-ended
}
