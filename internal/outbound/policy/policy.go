// Package policy says what holds for the deliveries to one destination: the main
// section of outbound.ini with the sections for its domain and its mail exchangers,
// as back-off, limits, source addresses and settings of an attempt.
package policy

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"tarishi/internal/delivery"
	"tarishi/internal/destination"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/schedule"
)

// StartConcurrency is the initial limit of a site without a configured one: a dead
// one does not hold more places until that is known, and otherwise each success
// dares one more.
const StartConcurrency = 2

// Options are what a Table works with.
type Options struct {
	Config         *destination.Settings
	Jitter         float64 // by how much of itself a wait may vary: 0 to 1
	MaxConcurrency int     // attempts at a time at one site without a configured limit; 0: no cap
}

// Table has the policies that were asked for, one for each pair of sections. Its
// methods may be called from any goroutine.
type Table struct {
	o Options

	mu       sync.Mutex
	policies map[sections]*Policy
}

// sections are the names of those that count for a destination; "": none.
type sections struct{ domain, mx string }

// New returns a Table without policies.
func New(o Options) *Table { return &Table{o: o, policies: map[sections]*Policy{}} }

// Policy is what holds for the deliveries of one destination. It does not change.
type Policy struct {
	destination.Rules
	Backoff Backoff
	Limits  *schedule.Limits

	mu   sync.Mutex
	hops map[int]*schedule.Limits // the same for next hops with a cap of their own
}

// For returns what holds for a domain with some mail exchangers; nil: they are not
// known yet.
func (t *Table) For(domain string, hosts []string) *Policy {
	section, mx := t.o.Config.Match(domain, hosts)
	key := sections{section, mx}
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.policies[key]
	if p == nil {
		p = t.newPolicy(t.o.Config.For(domain, hosts))
		t.policies[key] = p
	}
	return p
}

// Apart reports whether a domain is a site for itself, see destination.Settings.
func (t *Table) Apart(domain string) bool { return t.o.Config.Apart(domain) }

func (t *Table) newPolicy(d destination.Rules) *Policy {
	p := &Policy{Rules: d}
	p.Backoff = Backoff{Intervals: d.TempFailIntervals, MaxLifetime: d.MaxLifetime, Jitter: t.o.Jitter}

	// Sites without configured limits begin small and grow with success.
	p.Limits = &schedule.Limits{
		Low: 1, High: t.o.MaxConcurrency, Start: StartConcurrency,
		Rate:     schedule.Rate{Count: d.Rate.Count, Per: d.Rate.Per},
		Lifetime: d.MaxLifetime, Patience: p.Backoff.Patience(), Warning: max(0, d.DelayWarning), Probes: d.TempFailIntervals,
	}
	if c := d.Concurrency; c != (destination.Range{}) {
		p.Limits.Low, p.Limits.High, p.Limits.Start = c.Low, c.High, c.Low
	}
	return p
}

// LimitsAt are the limits at a next hop from get_mx, which may have its own cap
// for connections.
func (p *Policy) LimitsAt(h mail.NextHop) *schedule.Limits {
	if h.Limits == (mail.Limits{}) {
		return p.Limits
	}
	return p.capped(h.Limits.Connections)
}

// capped are the limits where a next hop allows n connections; 0: any number.
func (p *Policy) capped(n int) *schedule.Limits {
	if p.Concurrency != (destination.Range{}) {
		return p.Limits
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hops[n] == nil {
		l := *p.Limits
		l.High = n
		if p.hops == nil {
			p.hops = map[int]*schedule.Limits{}
		}
		p.hops[n] = &l
	}
	return p.hops[n]
}

// Settings are what the policy says for one attempt from a source.
func (p *Policy) Settings(source destination.Source) delivery.Settings {
	return delivery.Settings{
		Bind: source.Bind, Helo: source.Helo, TLS: p.TLS, MaxConnections: p.Concurrency.High, MaxMessages: p.MaxMessages,
	}
}

// source chooses one of the sources that fit, by their weights. Without one it
// returns false.
func (p *Policy) source(random float64, fits func(destination.Source) bool) (destination.Source, bool) {
	// Each source has a part of the line from 0 to sum that is as long as its weight.
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
	return destination.Source{}, false
}

// ChooseSource returns the source of an attempt. The address in notes.outbound_ip
// comes first; it takes along the name that is paired with it, or with none.
func (p *Policy) ChooseSource(env *mail.Envelope, random float64) destination.Source {
	noted, err := netip.ParseAddr(env.Notes.String(nexthop.NoteIP))
	s, _ := p.source(random, func(s destination.Source) bool { return err != nil || !s.Bind.IsValid() || s.Bind == noted })
	return s
}

// OtherSource returns a source with an address of the other family than s's.
func (p *Policy) OtherSource(s destination.Source, random float64) (destination.Source, bool) {
	return p.source(random, func(t destination.Source) bool {
		return s.Bind.IsValid() && t.Bind.IsValid() && t.Bind.Unmap().Is4() != s.Bind.Unmap().Is4()
	})
}

// jitterSeed makes the waits of one message and destination the same in every
// process: what happened before a restart can be told from them.
var jitterSeed = [2]uint64{0x7461726973686921, 0x6d61696c}

// Wait returns the wait after deferral number attempts of a message to a domain.
// It is random, but always the same.
func (p *Policy) Wait(id mail.ID, domain string, attempts int) (wait time.Duration, ok bool) {
	wait, ok = p.Backoff.Interval(attempts)
	if !ok || p.Backoff.Jitter == 0 {
		return wait, ok
	}

	// Not the process, but the message and its destination give the random numbers.
	seed := jitterSeed
	for _, text := range []string{string(id), domain} {
		for i := 0; i < len(text); i++ { // FNV-1a
			seed[0] = (seed[0] ^ uint64(text[i])) * 0x100000001b3
		}
	}
	seed[1] ^= uint64(attempts)
	return p.Backoff.Spread(wait, rand.New(rand.NewPCG(seed[0], seed[1])).Float64()), true
}

// Warned reports whether the sender of a message was warned that it is late,
// perhaps by a process that has ended since: its last deferral was late enough.
func (p *Policy) Warned(m *mail.Pending, domain string, attempts int, next time.Time) bool {
	if p.DelayWarning <= 0 || attempts == 0 {
		return false
	}
	wait, ok := p.Wait(m.ID, domain, attempts)
	if !ok {
		return false
	}

	// The wait is known, so the time of the deferral is too.
	deferred := next.Add(-wait)
	if end := m.Received.Add(p.MaxLifetime); p.MaxLifetime > 0 && !next.Before(end.Add(-time.Millisecond)) {
		deferred = end.Add(-wait) // or later
	}
	return !deferred.Before(m.Received.Add(p.DelayWarning - 2*time.Millisecond))
}
