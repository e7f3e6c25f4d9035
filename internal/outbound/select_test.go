package outbound

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// pair is a queue in which a message is held only when two of them are to be at a
// time.
type pair struct {
	instant
	both sync.WaitGroup
	once chan struct{}
}

func (q *pair) Find(mail.ID) (p mail.Pending, ok bool) { return p, false }

func (q *pair) Hold(mail.ID, []int) error {
	select {
	case <-q.once:
		q.both.Done()
	default:
	}
	q.both.Wait()
	return nil
}

// TestHoldTogether: messages are held at a time, so that they share the syncs of
// the queue.
func TestHoldTogether(t *testing.T) {
	q := &pair{once: make(chan struct{}, 2)}
	q.both.Add(cap(q.once))
	for range cap(q.once) {
		q.once <- struct{}{}
	}
	o := New(Options{Generation: Generation{Settings: destination.Settings{ConcurrencyMax: 1}}, Queue: q})
	var all sync.WaitGroup
	for i := range 1000 {
		all.Go(func() {
			if err := o.Hold(mail.ID(fmt.Sprintf("%d.1", i)), nil); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait() // for ever, if they wait for each other
}

// TestSelection: the messages that attempts run for, and the domains at a site.
func TestSelection(t *testing.T) {
	inBubble(t, func(r *rig) {
		wait := make(chan struct{})
		r.wire.set(func(context.Context, attemptSeen) ([]*reply.Reply, error) {
			<-wait
			return []*reply.Reply{ok, ok}, nil
		})
		r.dns.AddMX("one.test", 10, "a.test")
		r.dns.AddMX("two.test", 10, "a.test")
		r.start()
		first, second := r.send("x@one.test", "y@one.test"), r.send("z@two.test")
		synctest.Wait()
		want := map[mail.ID][]int{first.ID: {0, 1}, second.ID: {0}}
		if got := r.out.Active(); !reflect.DeepEqual(got, want) {
			t.Errorf("active: %v", got)
		}
		at := r.out.Sites(func(site string) bool { return strings.Contains(site, "a.test") })
		if !reflect.DeepEqual(at, map[string]bool{"one.test": true, "two.test": true}) {
			t.Errorf("at a.test: %v", at)
		}
		if got := r.out.Sites(func(site string) bool { return site == "nowhere.test" }); len(got) > 0 {
			t.Errorf("nowhere: %v", got)
		}
		close(wait)
		synctest.Wait()
		if got := r.out.Active(); len(got) > 0 {
			t.Errorf("still active: %v", got)
		}
	})
}

// TestFlushMessages: several messages are due at once, others wait on.
func TestFlushMessages(t *testing.T) {
	inBubble(t, func(r *rig) {
		r.start()
		var ids []mail.ID
		for range 3 {
			ids = append(ids, r.send("later@a.test").ID)
		}
		synctest.Wait()
		r.wire.take()
		if n := r.out.FlushMessages(ids[:2]...); n != 2 {
			t.Errorf("%d deliveries", n)
		}
		r.pass(time.Second)
		if got := r.wire.take(); len(got) != 2 {
			t.Errorf("%+v", got)
		}
	})
}
