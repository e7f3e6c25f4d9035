package outbound

import (
	"fmt"
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/notify"
	"tarishi/internal/schedule"
)

// Waiting says what a delivery of a message waits for.
type Waiting struct {
	Domain     string
	Recipients []int // indices in the envelope
	Attempts   int   // that ended in a deferral
	Next       time.Time
	Reason     string // in a few words
	Host       string // that a running attempt is trying; "": none yet, or it does not run
}

// Explain tells what each delivery of a message waits for, in no order. Nothing
// is returned for a message that is not scheduled.
func (o *Outbound) Explain(id mail.ID) []Waiting {
	disabled := o.current().Disabled

	// The queue is asked before the lock is taken: it may have to read the disk.
	p, _ := o.o.Queue.Find(id)
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	var all []Waiting
	o.schedule.WalkOf(func(u *schedule.Unit) bool {
		w := Waiting{Domain: u.Domain(), Recipients: u.Recipients(), Attempts: u.Attempts(), Next: u.Next(), Reason: o.schedule.Why(u, now)}
		if a := o.running[u]; a != nil {
			w.Host = a.Host()
		}

		// Held recipients are in a unit until it comes up.
		held := 0
		for _, i := range w.Recipients {
			if o.held.Has(id, i) {
				held++
			}
		}
		switch {
		case u.Running():
		case held == len(w.Recipients):
			w.Reason = "held"
		case held > 0:
			w.Reason = fmt.Sprintf("%d held, the others: %s", held, w.Reason)
		case disabled:
			w.Reason = fmt.Sprintf("delivery is disabled (%s)", w.Reason)
		}
		all = append(all, w)
		return true
	}, id)

	// The rest is in no schedule: failed and to be reported, settled and unrecorded, parked.
	all = append(all, explainReports(o.notifier.Explain(id), &p)...)
	for _, d := range o.unrecorded {
		if d.ID == id {
			all = append(all, Waiting{Domain: d.Domain, Recipients: d.Recipients, Next: d.Next, Reason: "done with, but the queue could not record it yet"})
		}
	}
	for i, v := range o.held[id] {
		if v != nil {
			all = append(all, Waiting{Domain: v.Domain, Recipients: []int{i}, Attempts: v.Attempts, Next: v.Next, Reason: "held"})
		}
	}
	return all
}

// Destinations describes the limit domains with the most
// deliveries, the largest first.
func (o *Outbound) Destinations(limit int) []schedule.DestinationStat {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Destinations(o.o.Now(), limit)
}

// Suspensions returns the domains on suspended sites.
func (o *Outbound) Suspensions() map[string]schedule.Suspension {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Suspensions(o.o.Now())
}

// Overview describes limit domains, the oldest and the largest,
// and of all others together.
func (o *Outbound) Overview(limit int) ([]schedule.DestinationStat, schedule.Rest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.schedule.Overview(o.o.Now(), limit)
}

// explainReports returns which recipients of a message wait to be reported, by
// domain, and until when.
func explainReports(reports []notify.Waiting, p *mail.Pending) (all []Waiting) {
	for _, r := range reports {
		reason := "failed, its report waits for other recipients of the message"
		if r.Several {
			reason = "failed, its report waits: the sender has had many, the next one is about all failures since"
		}
		for _, one := range p.Recipients {
			if !slices.Contains(r.Recipients, one.Index) {
				continue
			}
			domain := one.Address.Host()

			// One line for each domain, as for deliveries that are scheduled.
			i := slices.IndexFunc(all, func(w Waiting) bool { return w.Domain == domain && w.Reason == reason })
			if i < 0 {
				i = len(all)
				all = append(all, Waiting{Domain: domain, Attempts: one.Attempts, Next: r.Due, Reason: reason})
			}
			all[i].Recipients = append(all[i].Recipients, one.Index)
		}
	}
	return all
}
