package outbound

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"tarishi/internal/conf"
	"tarishi/internal/delivery"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/schedule"
)

// strangers is with how many attempts at a time a site begins for which nothing
// else is configured: if it is dead it does not hold more places until that is
// known, and if it is not each success dares one more.
const strangers = 2

// policy is what holds for the deliveries of one destination.
type policy struct {
	conf.Destination
	backoff schedule.Backoff
	limits  *schedule.Limits
	hops    map[int]*schedule.Limits // the same for next hops with a cap of their own
}

// policy returns what holds for a domain whose mail exchangers are hosts; nil:
// not known yet. There is one for each pair of sections.
func (o *Outbound) policy(domain string, hosts []string) *policy {
	section, mx := o.o.Config.Match(domain, hosts)
	key := [2]string{section, mx}
	o.policyMu.Lock()
	defer o.policyMu.Unlock()
	p := o.policies[key]
	if p == nil {
		p = o.newPolicy(o.o.Config.For(domain, hosts))
		o.policies[key] = p
	}
	return p
}

func (o *Outbound) newPolicy(d conf.Destination) *policy {
	p := &policy{Destination: d}
	p.backoff = schedule.Backoff{Intervals: d.TempFailIntervals, MaxLifetime: d.MaxLifetime, Jitter: o.o.Jitter}
	p.limits = &schedule.Limits{
		Low: 1, High: o.o.PoolConcurrencyMax, Start: strangers,
		Rate:     schedule.Rate{Count: d.Rate.Count, Per: d.Rate.Per},
		Lifetime: d.MaxLifetime, Patience: p.backoff.Patience(), Warning: max(0, d.DelayWarning), Probes: d.TempFailIntervals,
	}
	if c := d.Concurrency; c != (conf.Range{}) {
		p.limits.Low, p.limits.High, p.limits.Start = c.Low, c.High, c.Low
	}
	return p
}

// hopLimits are p's limits at a next hop from get_mx, which may have a cap of its
// own for its connections.
func (o *Outbound) hopLimits(p *policy, h mail.NextHop) *schedule.Limits {
	if h.Limits == (mail.Limits{}) || p.Concurrency != (conf.Range{}) {
		return p.limits
	}
	o.policyMu.Lock()
	defer o.policyMu.Unlock()
	n := h.Limits.Connections
	if p.hops[n] == nil {
		l := *p.limits
		l.High = n
		if p.hops == nil {
			p.hops = map[int]*schedule.Limits{}
		}
		p.hops[n] = &l
	}
	return p.hops[n]
}

// settings are what the policy says for one attempt.
func (p *policy) settings(source conf.Source) delivery.Settings {
	return delivery.Settings{
		Bind: source.Bind, Helo: source.Helo, TLS: p.TLS, MaxConnections: p.Concurrency.High, MaxMessages: p.MaxMessages,
	}
}

// source chooses one of the sources that fit, by their weights. Without one it
// returns false.
func (p *policy) source(random float64, fits func(conf.Source) bool) (conf.Source, bool) {
	sum := 0
	for _, s := range p.Sources {
		if fits(s) {
			sum += s.Weight
		}
	}
	at := int(random * float64(sum))
	for _, s := range p.Sources {
		if !fits(s) {
			continue
		}
		if at -= s.Weight; at < 0 {
			return s, true
		}
	}
	return conf.Source{}, false
}

// choose returns the source of an attempt. The address in notes.outbound_ip
// comes first; it takes along the name that is paired with it, or with none.
func (p *policy) choose(env *mail.Envelope, random float64) conf.Source {
	noted, err := netip.ParseAddr(env.Notes.String(nexthop.NoteIP))
	s, _ := p.source(random, func(s conf.Source) bool { return err != nil || !s.Bind.IsValid() || s.Bind == noted })
	return s
}

// other returns a source whose address is of the other family than s's.
func (p *policy) other(s conf.Source, random float64) (conf.Source, bool) {
	return p.source(random, func(t conf.Source) bool {
		return s.Bind.IsValid() && t.Bind.IsValid() && t.Bind.Unmap().Is4() != s.Bind.Unmap().Is4()
	})
}

// jitterSeed makes the waits of one message and destination the same in every
// process: what happened before a restart can be told from them.
var jitterSeed = [2]uint64{0x7461726973686921, 0x6d61696c}

// wait returns the wait after deferral number attempts of a message to a domain.
// It is random, but always the same.
func (p *policy) wait(id mail.ID, domain string, attempts int) (wait time.Duration, ok bool) {
	wait, ok = p.backoff.Interval(attempts)
	if !ok || p.backoff.Jitter == 0 {
		return wait, ok
	}
	seed := jitterSeed
	for _, text := range []string{string(id), domain} {
		for i := 0; i < len(text); i++ { // FNV-1a
			seed[0] = (seed[0] ^ uint64(text[i])) * 0x100000001b3
		}
	}
	seed[1] ^= uint64(attempts)
	return p.backoff.Spread(wait, rand.New(rand.NewPCG(seed[0], seed[1])).Float64()), true
}

// warned reports whether the sender of a message has been told that it is late,
// by a process that may have ended since: its last deferral was late enough.
func (p *policy) warned(m *mail.Pending, domain string, attempts int, next time.Time) bool {
	if p.DelayWarning <= 0 || attempts == 0 {
		return false
	}
	wait, ok := p.wait(m.ID, domain, attempts)
	if !ok {
		return false
	}
	deferred := next.Add(-wait)
	if end := m.Received.Add(p.MaxLifetime); p.MaxLifetime > 0 && !next.Before(end.Add(-time.Millisecond)) {
		deferred = end.Add(-wait) // or later
	}
	return !deferred.Before(m.Received.Add(p.DelayWarning - 2*time.Millisecond))
}
