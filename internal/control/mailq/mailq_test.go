package mailq

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// three is a queue of three messages.
func three(t *testing.T) *memory {
	q := newMemory(t,
		envelope(t, "A.1", "one@client.test", "a@x.test", "b@x.test", "c@y.test"),
		envelope(t, "B.1", "Two@Client.test", "a@Y.test"),
		envelope(t, "C.1", "<>", "one@bücher.test"),
	)
	q.envelopes[1].Received = born.Add(-time.Hour)
	p := q.pending["B.1"]
	p.Received = born.Add(-time.Hour)
	q.pending["B.1"] = p
	return q
}

func threeRunning(t *testing.T) (Queue, Outbound) { return three(t), &flushes{} }

func TestList(t *testing.T) {
	both(t, threeRunning, func(t *testing.T, c *caller) {
		for _, row := range []struct {
			filter conditions
			want   string
		}{
			{conditions{}, "A.1 B.1 C.1"},
			{conditions{Limit: 2}, "A.1 B.1"},
			{conditions{Limit: 3}, "A.1 B.1 C.1"},
			{conditions{Domain: "y.test"}, "A.1 B.1"},
			{conditions{Domain: "Y.TEST."}, "A.1 B.1"},
			{conditions{Domain: "y.test", Limit: 1}, "A.1"},
			{conditions{Domain: "xn--bcher-kva.test"}, "C.1"},
			{conditions{Domain: "BÜCHER.test"}, "C.1"},
			{conditions{Domain: "nowhere.test"}, ""},
			{conditions{Sender: "<>"}, "C.1"},
			{conditions{Sender: "two@client.test"}, "B.1"},
			{conditions{Sender: "<two@client.test>"}, "B.1"},
			{conditions{Sender: "@client.test"}, "A.1 B.1"},
			{conditions{Sender: "@client.test", Domain: "x.test"}, "A.1"},
		} {
			if got := ids(t, c, row.filter); got != row.want {
				t.Errorf("%+v: %q, want %q", row.filter, got, row.want)
			}
		}
		for _, f := range []conditions{
			{Domain: "a b"}, {Domain: "@"}, {Domain: "a@b.test"}, {Sender: "nobody"}, {Sender: "@"}, {Sender: "@a b"}, {Limit: -1}, {Domain: ".."},
		} {
			err := c.List(t.Context(), f, func(*view.Message) error { return nil })
			if !errors.Is(err, control.ErrInvalid) {
				t.Errorf("%+v: %v", f, err)
			}
		}
	})
}

// What a list tells of a message.
func TestListed(t *testing.T) {
	next := born.Add(time.Hour)
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		p := q.pending["A.1"]
		p.Recipients = p.Recipients[1:2] // the others are settled
		p.Recipients[0].Attempts, p.Recipients[0].Next, p.Recipients[0].Last = 3, next, "451 4.7.1 <\x1b>"
		q.pending["A.1"] = p
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		var got *view.Message
		if err := c.List(t.Context(), conditions{Limit: 1}, func(m *view.Message) error { got = m; return nil }); err != nil {
			t.Fatal(err)
		}
		want := &view.Message{
			ID: "A.1", From: address(t, "one@client.test"), Received: born, Size: 24,
			Recipients: []view.Recipient{{
				Index: 1, Address: address(t, "b@x.test"), Status: view.Pending, Attempts: 3, Next: next, Last: "451 4.7.1 <\x1b>",
			}},
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	})
}

// Who is held is told in lists, counts and of one message.
func TestHeld(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.pending["A.1"].Recipients[1].Held = true
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		var listed []view.Recipient
		if err := c.List(t.Context(), conditions{}, func(m *view.Message) error { listed = append(listed, m.Recipients...); return nil }); err != nil {
			t.Fatal(err)
		}
		m, err := c.Show(t.Context(), "A.1")
		if err != nil {
			t.Fatal(err)
		}
		for _, all := range [][]view.Recipient{listed, m.Recipients} {
			held := 0
			for _, r := range all {
				if r.Held {
					held++
					if r.Index != 1 || r.Status != view.Pending {
						t.Errorf("%+v", r)
					}
				}
			}
			if held != 1 {
				t.Errorf("%d are held", held)
			}
		}
		s, err := c.Stat(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		held := 0
		for _, d := range s.Destinations {
			held += d.Held
		}
		if s.Others != nil {
			held += s.Others.Held
		}
		if s.Held != 1 || held != 1 {
			t.Errorf("%d are held, %d of destinations", s.Held, held)
		}
	})
}

// An error of the callback ends the list and comes back.
func TestListEnds(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.endless = true
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		stop, n := errors.New("stop"), 0
		err := c.List(t.Context(), conditions{}, func(*view.Message) error {
			if n++; n == 1000 {
				return stop
			}
			return nil
		})
		if !errors.Is(err, stop) || n != 1000 {
			t.Errorf("%d messages, %v", n, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := c.List(ctx, conditions{}, func(*view.Message) error { cancel(); return nil }); !errors.Is(err, context.Canceled) {
			t.Errorf("context over: %v", err)
		}
	})
}

func TestStat(t *testing.T) {
	both(t, threeRunning, func(t *testing.T, c *caller) {
		got, err := c.Stat(t.Context(), 0)
		want := &view.Stat{
			Running: true, Messages: 3, Recipients: 5, Bytes: 72, Deliveries: &view.Deliveries{Waiting: 3, Ready: 1, Running: 1, Suspended: 1}, DSNs: &view.DSNs{Queued: 1, Failed: 2, Double: 3}, Health: "ok",
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
		want.Oldest = born.Add(-time.Hour)
		want.Destinations = []view.Destination{{Domain: "y.test", Messages: 2, Recipients: 2}, {Domain: "x.test", Messages: 1, Recipients: 2}}
		want.Others = &view.Destination{Messages: 1, Recipients: 1}
		got, err = c.Stat(t.Context(), 2)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
	})
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := newMemory(t)
		q.sick = errors.New("452 4.3.1 no space")
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		got, err := c.Stat(t.Context(), 10)
		if err != nil || got.Health != "452 4.3.1 no space" || !got.Oldest.IsZero() || len(got.Destinations) != 0 || got.Others != nil {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// Domains beyond the cap are counted without their names.
func TestTallyCap(t *testing.T) {
	tl := tally{domains: map[string]*count{}}
	for i := range maxDomains + 10 {
		tl.addMessage(mail.Pending{Recipients: []mail.PendingRecipient{{Address: mail.Address{Local: "x", Domain: fmt.Sprintf("d%d.test", i)}}}})
	}
	all, others := tl.largest(5)
	if len(tl.domains) != maxDomains || len(all) != 5 || others == nil || others.Messages != maxDomains+5 {
		t.Errorf("%d domains, %v, %+v", len(tl.domains), all, others)
	}
}

func TestShow(t *testing.T) {
	next := born.Add(time.Hour)
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		env := q.envelopes[0]
		env.Body, env.UTF8, env.RequireTLS, env.Return, env.EnvelopeID = "8BITMIME", true, true, "HDRS", "x y"
		env.Recipients[2].Notify, env.Recipients[2].ORCPT = mail.NotifyNever, "rfc822;z@y.test"
		p := q.pending["A.1"]
		p.Recipients = p.Recipients[2:]
		p.Recipients[0].Attempts, p.Recipients[0].Next, p.Recipients[0].Last = 1, next, "451 later"
		q.pending["A.1"] = p
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		got, err := c.Show(t.Context(), "A.1")
		want := &view.Message{
			ID: "A.1", From: address(t, "one@client.test"), Received: born, Size: 24,
			Recipients: []view.Recipient{
				{Index: 0, Address: address(t, "a@x.test"), Status: view.Settled},
				{Index: 1, Address: address(t, "b@x.test"), Status: view.Settled},
				{
					Index: 2, Address: address(t, "c@y.test"), Status: view.Pending, Attempts: 1, Next: next, Last: "451 later",
					Notify: mail.NotifyNever, ORCPT: "rfc822;z@y.test",
				},
			},
			Body: "8BITMIME", UTF8: true, RequireTLS: true, Return: "HDRS", EnvelopeID: "x y",
			Header: "Subject: A.1\r\n\r\n",
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
		}
	})
}

func TestContent(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.contents["C.1"] = mail.Memory{[]byte("A: b\r\n\r\n\x00\x1b\xff"), []byte(big)}
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		if got := read(t, c, "C.1"); got != "A: b\r\n\r\n\x00\x1b\xff"+big {
			t.Errorf("%d bytes: %.40q…", len(got), got)
		}
		if got := read(t, c, "A.1"); got != "Subject: A.1\r\n\r\nHello.\r\n" {
			t.Errorf("%q", got)
		}
	})
}

func TestFlush(t *testing.T) {
	var out *flushes
	both(t, func(t *testing.T) (Queue, Outbound) {
		out = &flushes{}
		return newMemory(t), out
	}, func(t *testing.T, c *caller) {
		for _, domain := range []string{"", "Example.COM.", "bücher.test", "[127.0.0.1]"} {
			if n, err := c.Flush(t.Context(), domain); n != 7 || err != nil {
				t.Errorf("%q: %d, %v", domain, n, err)
			}
		}
		for _, domain := range []string{".", "a b", "a@b.test", "-", "\x00"} {
			if _, err := c.Flush(t.Context(), domain); !errors.Is(err, control.ErrInvalid) {
				t.Errorf("%q: %v", domain, err)
			}
		}
		if want := []string{"", "example.com", "xn--bcher-kva.test", "[127.0.0.1]"}; !reflect.DeepEqual(out.domains, want) {
			t.Errorf("flushed %q", out.domains)
		}
	})
}

func TestRemove(t *testing.T) {
	out := &flushes{}
	both(t, func(t *testing.T) (Queue, Outbound) {
		out.forgotten = nil
		return three(t), out
	}, func(t *testing.T, c *caller) {
		if err := c.Remove(t.Context(), "B.1"); err != nil {
			t.Error(err)
		}
		if got := ids(t, c, conditions{}); got != "A.1 C.1" {
			t.Errorf("left: %q", got)
		}
		if err := c.Remove(t.Context(), "B.1"); !errors.Is(err, control.ErrUnknown) {
			t.Errorf("a second time: %v", err)
		}
		if len(out.forgotten) != 1 || out.forgotten[0] != "B.1" {
			t.Errorf("outbound forgot %q", out.forgotten)
		}
	})
}

func TestWrongIDs(t *testing.T) {
	both(t, threeRunning, func(t *testing.T, c *caller) {
		for id, want := range map[mail.ID]error{
			"": control.ErrInvalid, "..": control.ErrInvalid, "../A.1": control.ErrInvalid, "A.1/content": control.ErrInvalid, "A.1?x": control.ErrInvalid, "A 1": control.ErrInvalid,
			"A.1\x00": control.ErrInvalid, mail.ID(strings.Repeat("A", 65)): control.ErrInvalid, "%41.1": control.ErrInvalid,
			"a.1": control.ErrUnknown, "A.2": control.ErrUnknown, mail.ID(strings.Repeat("A", 64)): control.ErrUnknown,
		} {
			_, errShow := c.Show(t.Context(), id)
			_, _, errContent := c.Content(t.Context(), id)
			errRemove := c.Remove(t.Context(), id)
			for _, err := range []error{errShow, errContent, errRemove} {
				if !errors.Is(err, want) {
					t.Errorf("%q: %v, want %v", id, err, want)
				}
			}
		}
	})
}

// A message that cannot be read can still be removed, and the failure is told.
func TestDamaged(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.damaged = "A.1"
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		if _, err := c.Show(t.Context(), "A.1"); err == nil || err.Error() != errDamage.Error() {
			t.Errorf("show: %v", err)
		}
		if err := c.Remove(t.Context(), "A.1"); err != nil {
			t.Errorf("remove: %v", err)
		}
	})
}

// Messages that cannot be read stand at the end of a list without conditions, and
// are counted and make health red.
func TestUnreadable(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.damaged = "A.1"
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		var last *view.Message
		err := c.List(t.Context(), conditions{}, func(m *view.Message) error { last = m; return nil })
		if err != nil || last.ID != "A.1" || last.Unreadable != errDamage.Error() {
			t.Errorf("%+v, %v", last, err)
		}
		for _, f := range []conditions{{Limit: 1}, {Domain: "x.test"}, {Sender: "@x.test"}} {
			if got := ids(t, c, f); strings.Contains(got, "A.1") {
				t.Errorf("%+v: %s", f, got)
			}
		}
		s, err := c.Stat(t.Context(), 0)
		if err != nil || s.Unreadable != 1 || s.Health != "1 message in the queue cannot be read: damaged on disk" {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// Without an outbound nothing can be changed.
func TestStopped(t *testing.T) {
	q := three(t)
	c := local(New(q, nil, nil))
	if _, err := c.Flush(t.Context(), ""); !errors.Is(err, control.ErrStopped) {
		t.Errorf("flush: %v", err)
	}
	if err := c.Remove(t.Context(), "A.1"); !errors.Is(err, control.ErrStopped) {
		t.Errorf("remove: %v", err)
	}
	if s, err := c.Stat(t.Context(), 1); err != nil || s.Running || s.Deliveries != nil || s.Health != "" || s.Messages != 3 {
		t.Errorf("stat: %+v, %v", s, err)
	}
	if got := ids(t, c, conditions{}); got != "A.1 B.1 C.1" {
		t.Errorf("list: %q", got)
	}
}

// unread is a queue that has read no message's state before the first Walk.
type unread struct {
	*memory
	walked bool
}

func (q *unread) Walk(fn func(mail.Pending) bool) {
	q.walked = true
	q.memory.Walk(fn)
}

func (q *unread) Stat() store.Stat {
	s := q.memory.Stat()
	if !q.walked {
		s.Recipients, s.Bytes = 0, 0
	}
	return s
}

// The counts of messages whose state nobody has read yet are right too, as when
// the files of a stopped daemon are looked into.
func TestStatUnread(t *testing.T) {
	q := three(t)
	want := q.Stat()
	s, err := local(New(&unread{memory: q}, nil, nil)).Stat(t.Context(), 1)
	if err != nil || s.Messages != want.Messages || s.Recipients != want.Recipients || s.Bytes != want.Bytes || s.Bytes == 0 {
		t.Errorf("stat: %+v, %v, want %+v", s, err, want)
	}
}

// So many walks at a time, and no more.
func TestBusy(t *testing.T) {
	q := three(t)
	q.walking, q.proceed = make(chan struct{}), make(chan struct{})
	c := serve(t, t.TempDir(), q, &flushes{}).dial()
	errs := make(chan error, maxWalks)
	for range maxWalks {
		go func() { errs <- c.List(context.Background(), conditions{}, func(*view.Message) error { return nil }) }()
		<-q.walking
	}
	if _, err := c.Stat(t.Context(), 1); !errors.Is(err, control.ErrBusy) {
		t.Errorf("one more: %v", err)
	}
	if _, err := c.Stat(t.Context(), 0); err != nil {
		t.Errorf("without a walk: %v", err)
	}
	close(q.proceed)
	for range maxWalks {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// ending is a Daemon that stops.
type ending struct{}

func (ending) Stopping() bool  { return true }
func (ending) Notes() []string { return []string{"one thing", "another"} }

func (ending) Configuration() *view.Configuration {
	return &view.Configuration{Generation: 3, Failures: 1, Problems: []string{"config/me: is empty"}}
}

func (ending) Reload(context.Context) (*view.Reload, error) { return nil, errors.New("stopping") }

// TestStopping: a daemon that stops is not told of as one that runs well.
func TestStopping(t *testing.T) {
	l := New(three(t), &flushes{}, nil)
	l.Watch(ending{})
	got, err := local(l).Stat(t.Context(), 0)
	if err != nil || !got.Running || !got.Stopping || got.Health != "stopping" || !reflect.DeepEqual(got.Notes, []string{"one thing", "another"}) ||
		!reflect.DeepEqual(got.Configuration, ending{}.Configuration()) {
		t.Errorf("%+v, %v", got, err)
	}
}
