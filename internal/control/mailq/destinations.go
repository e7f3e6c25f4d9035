package mailq

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
)

// listDestinations returns the domains with the most deliveries.
func (l *Local) listDestinations(_ context.Context, a control.Arguments) ([]view.DestinationState, error) {
	if l.outbound == nil {
		return nil, control.ErrStopped
	}
	all := []view.DestinationState{}
	for _, d := range l.outbound.Destinations(a.Number("limit", someDestinations)) {
		all = append(all, view.DestinationState{
			Domain: d.Domain, Site: d.Site, Waiting: d.Waiting, Ready: d.Ready, Running: d.Running, Oldest: d.Oldest.UTC(),
			Limit: d.Limit, Rate: formatRate(d.Rate), SuspendedUntil: d.SuspendedUntil.UTC(), LastError: d.LastError,
		})
	}
	return all, nil
}

func formatRate(r schedule.Rate) string {
	if r.Count == 0 {
		return ""
	}
	for unit, per := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
		if r.Per == per {
			return fmt.Sprintf("%d/%s", r.Count, unit)
		}
	}
	return fmt.Sprintf("%d/%v", r.Count, r.Per)
}

// explainDeliveries returns what each delivery of a message waits for: nothing while the daemon
// has not come to the message since its start.
func (l *Local) explainDeliveries(_ context.Context, a control.Arguments) ([]view.Delivery, error) {
	id := mail.ID(a.Text("id"))
	if l.outbound == nil {
		return nil, control.ErrStopped
	}
	if err := l.requireMessage(id); err != nil {
		return nil, err
	}

	// The reply is the queue's, the reason that an attempt does not begin is
	// outbound's.
	waiting := l.outbound.Explain(id)
	last := map[int]string{}
	if p, ok := l.queue.Find(id); ok {
		for _, r := range p.Recipients {
			last[r.Index] = r.Last
		}
	}
	slices.SortFunc(waiting, func(a, b outbound.Waiting) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), slices.Compare(a.Recipients, b.Recipients))
	})

	// Held recipients are known one by one: those that will be one delivery again
	// when they are released are shown as one.
	type delivery struct {
		domain   string
		attempts int
		next     int64
	}
	held := map[delivery]int{} // places in all
	all := []view.Delivery{}
	for _, w := range waiting {
		if w.Reason == "held" {
			key := delivery{w.Domain, w.Attempts, w.Next.UnixNano()}
			if i, ok := held[key]; ok {
				all[i].Recipients = append(all[i].Recipients, w.Recipients...)
				continue
			}
			held[key] = len(all)
		}
		d := view.Delivery{Domain: w.Domain, Recipients: w.Recipients, Attempts: w.Attempts, Reason: w.Reason, Host: w.Host}
		for _, i := range w.Recipients {
			if d.Last = last[i]; d.Last != "" {
				break
			}
		}
		if w.Next.Unix() > 0 { // else at once
			d.Next = w.Next.UTC()
		}
		all = append(all, d)
	}
	return all, nil
}
