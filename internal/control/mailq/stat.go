package mailq

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/schedule"
)

// countQueue returns the totals. The messages of destinations and the oldest one are only looked for
// if the number of destinations to list is above 0: that reads every message's
// envelope.
func (l *Local) countQueue(ctx context.Context, a control.Arguments) (*view.Stat, error) {
	s := &view.Stat{}

	// Only this takes longer with a full queue, so it is done on request.
	if top := a.Number("destinations", 0); top > 0 {
		t := tally{domains: map[string]*count{}}
		err := l.walkQueue(ctx, func(p mail.Pending) error {
			if s.Oldest.IsZero() || p.Received.Before(s.Oldest) {
				s.Oldest = p.Received
			}
			t.addMessage(p)
			return nil
		})
		if err != nil {
			return nil, err
		}
		s.Held = t.held
		s.Destinations, s.Others = t.largest(top)
	}

	// After the walk: of a message in the spool the queue knows no more than that
	// it is there, until somebody has read its state.
	q := l.queue.Stat()
	s.Messages, s.Recipients, s.Bytes = q.Messages, q.Recipients, q.Bytes
	unreadable := l.queue.Unreadable()
	s.Unreadable = unreadable.Messages

	// Without an outbound these stay absent: the files do not know them.
	if l.outbound != nil {
		s.Running = true
		d := l.deliveries()
		n := l.outbound.Counts()
		s.Deliveries, s.DSNs, s.Health = &d, &view.DSNs{Queued: n.DSN, Failed: n.DSNFailed, Double: n.Double}, "ok"
		if err := cmp.Or(l.queue.Healthy(), unreadable.Err()); err != nil {
			s.Health = err.Error()
		}
	}

	// A daemon that stops accepts nothing, whatever the queue thinks of itself.
	if l.daemon != nil {
		s.Stopping, s.Notes, s.Configuration = l.daemon.Stopping(), l.daemon.Notes(), l.daemon.Configuration()
		if s.Stopping {
			s.Health = "stopping"
		}
	}
	return s, nil
}

// reload has the daemon read its configuration again.
func (l *Local) reload(ctx context.Context, _ control.Arguments) (*view.Reload, error) {
	if l.daemon == nil {
		return nil, control.ErrStopped
	}
	return l.daemon.Reload(ctx)
}

// deliveries counts those that are due and wait for a suspended destination apart
// from those that are ready.
func (l *Local) deliveries() view.Deliveries {
	st := l.outbound.Stat()
	d := view.Deliveries{Waiting: st.Waiting, Ready: st.Ready, Running: st.Running}
	for _, s := range l.outbound.Suspensions() {
		d.Suspended += s.Ready
	}
	d.Suspended = min(d.Suspended, d.Ready) // the one was counted before the other
	d.Ready -= d.Suspended
	return d
}

// suspensions are the suspended destinations, none where no daemon runs.
func (l *Local) suspensions() map[string]schedule.Suspension {
	if l.outbound == nil {
		return nil
	}
	return l.outbound.Suspensions()
}

// tally counts pending recipients and their messages for each destination.
type tally struct {
	messages int
	held     int // recipients
	domains  map[string]*count
	rest     count // of the domains beyond maxDomains
}

type count struct {
	messages, recipients int
	held                 int // recipients
	last                 int // tally.messages when it was counted: a message counts once
}

func (t *tally) addMessage(p mail.Pending) {
	t.messages++
	for _, r := range p.Recipients {
		host := r.Address.Host()
		c := t.domains[host]

		// A sender of mail to many domains must not fill our memory with names.
		switch {
		case c != nil:
		case len(t.domains) < maxDomains:
			c = &count{}
			t.domains[strings.Clone(host)] = c // it is a piece of the whole envelope
		default:
			c = &t.rest
		}
		c.recipients++
		if r.Held {
			c.held++
			t.held++
		}

		// Several recipients of a message in one domain make one message there.
		if c.last != t.messages {
			c.last = t.messages
			c.messages++
		}
	}
}

// largest returns the n destinations with the most messages, and the sums of all
// others, nil if there are none.
func (t *tally) largest(n int) ([]view.Destination, *view.Destination) {
	all := make([]view.Destination, 0, len(t.domains))
	for host, c := range t.domains {
		all = append(all, view.Destination{Domain: host, Messages: c.messages, Recipients: c.recipients, Held: c.held})
	}
	slices.SortFunc(all, func(a, b view.Destination) int {
		if a.Messages != b.Messages {
			return b.Messages - a.Messages
		}
		return strings.Compare(a.Domain, b.Domain)
	})

	// The other domains are summed up, with those that were not counted by
	// name, so that the sums are those of the whole queue.
	n = min(n, len(all))
	others := view.Destination{Messages: t.rest.messages, Recipients: t.rest.recipients, Held: t.rest.held}
	for _, d := range all[n:] {
		others.Messages += d.Messages
		others.Recipients += d.Recipients
		others.Held += d.Held
	}
	if others == (view.Destination{}) {
		return all[:n:n], nil
	}
	return all[:n:n], &others
}
