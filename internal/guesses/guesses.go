// Package guesses counts wrong passwords by client, and has those wait that offer too
// many.
package guesses

import (
	"context"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

const (
	// guessWait is how long a client waits after its last free guess. It doubles
	// with each further one up to maxGuessWait.
	guessWait    = 30 * time.Second
	maxGuessWait = time.Hour
	// forgetGuess is the time after which one wrong password is forgotten.
	forgetGuess = 10 * time.Minute
	// sameGuess is how long after it the same wrong password counts again: a
	// program with an old password, which asks every few minutes, guesses nothing
	// and must not lock out others behind the same address.
	sameGuess = 30 * time.Second
	// maxGuessers is how many clients are remembered; beyond it one is forgotten for
	// each that comes.
	maxGuessers = 1 << 14
)

// Counter counts wrong passwords by client: an IPv4 address, or the /64 of an IPv6
// address. Its methods may be called from any goroutine.
type Counter struct {
	now  func() time.Time
	seed maphash.Seed

	mu      sync.Mutex
	free    int // wrong passwords before a client has to wait; 0: as many as it likes
	clients map[netip.Addr]*guesser
}

// Place is the right to have one password verified. The zero value is a place where
// nothing is counted.
type Place struct {
	counter *Counter
	ip      netip.Addr
}

// guesser is one client.
type guesser struct {
	pending int       // passwords that are being verified
	wrong   int       // that were not, and are not forgotten
	last    time.Time // the latest of wrong, or when one was forgotten since
	until   time.Time // before then nothing is verified
	tried   [16]guess // the latest wrong ones: so many programs with an old password
	next    int       // in tried

	freed chan struct{} // closed when a place is given back; nil: nobody waits for one
}

// guess is a name and a password.
type guess struct {
	hash uint64
	at   int64 // Unix time in nanoseconds; 0: none
}

// New returns a Counter for which free wrong passwords are free, 0: any number, and
// now is the time.
func New(free int, now func() time.Time) *Counter {
	return &Counter{free: free, now: now, seed: maphash.MakeSeed(), clients: map[netip.Addr]*guesser{}}
}

// SetFree changes how many wrong passwords are free, for all clients at once: one that
// waits, and would not have to with the new number, need not any more.
func (g *Counter) SetFree(free int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.free = free
	for _, c := range g.clients {
		if free == 0 || c.wrong < free {
			c.until = time.Time{}
		}
		// There may be more places than before.
		c.wakeWaiting()
	}
}

// network returns what ip is counted under: hosts choose among the addresses of an
// IPv6 network as they like (RFC 8981).
func network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if ip.Is6() && !ip.IsLinkLocalUnicast() {
		net, _ := ip.Prefix(64)
		return net.Addr()
	}
	return ip
}

// MustWait reports whether the client at ip has to wait before its next password.
func (g *Counter) MustWait(ip netip.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.clients[network(ip)]
	return g.free > 0 && c != nil && g.now().Before(c.until)
}

// TakePlace takes a place for the verification of one password, which has to be given back,
// or reports that the client has to wait, or that ctx has ended. Passwords offered in
// parallel get no more places than wrong ones are free: the others are held until
// one of these is verified, for they may be right.
func (g *Counter) TakePlace(ctx context.Context, ip netip.Addr) (place Place, ok bool) {
	for {
		// A new limit may come while a client is held, so each try begins anew.
		place, freed, ok := g.tryPlace(network(ip))
		if freed == nil {
			return place, ok
		}
		select {
		case <-freed:
		case <-ctx.Done():
			return Place{}, false
		}
	}
}

// tryPlace is TakePlace without the waiting: freed is closed when it is worth another try;
// nil: there is an answer.
func (g *Counter) tryPlace(ip netip.Addr) (place Place, freed <-chan struct{}, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.free == 0 {
		return Place{}, nil, true
	}
	// A client is remembered while it has a place or something to remember.
	now := g.now()
	c := g.clients[ip]
	if c == nil {
		g.makeRoom(now)
		c = &guesser{}
		g.clients[ip] = c
	}
	c.forget(now)

	// There are never more places than wrong passwords are free: all may be wrong.
	switch {
	case now.Before(c.until):
		return Place{}, nil, false
	case c.pending < max(1, g.free-c.wrong):
		c.pending++
		return Place{g, ip}, nil, true
	case c.freed == nil:
		c.freed = make(chan struct{})
	}
	return Place{}, c.freed, false
}

// GiveBack gives the place back. wrong says that the password was.
func (p Place) GiveBack(user, pass string, wrong bool) {
	g := p.counter
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	// Those that wait for a place can try again, whatever this password was.
	now := g.now()
	c := g.clients[p.ip]
	c.pending--
	c.wakeWaiting()

	// The wait doubles with each guess beyond the free ones.
	if wrong && c.counts(maphash.String(g.seed, user+"\x00"+pass), now) {
		c.wrong++
		c.last = now
		if over := c.wrong - g.free; over >= 0 && g.free > 0 {
			wait := min(guessWait<<min(over, 16), maxGuessWait)
			c.until = now.Add(wait)
			if wait == maxGuessWait {
				c.wrong-- // what would make no difference is not counted
			}
		}
	}
	if c.isIdle() {
		delete(g.clients, p.ip)
	}
}

// wakeWaiting lets those that wait for a place try again.
func (c *guesser) wakeWaiting() {
	if c.freed != nil {
		close(c.freed)
		c.freed = nil
	}
}

// counts notes a wrong password and reports whether it is a guess.
func (c *guesser) counts(hash uint64, now time.Time) bool {
	// A program with an old password repeats itself; only a flood of repetitions guesses.
	for i := range c.tried {
		if t := &c.tried[i]; t.hash == hash && t.at != 0 {
			again := now.Sub(time.Unix(0, t.at)) >= sameGuess
			t.at = now.UnixNano()
			return !again
		}
	}
	c.tried[c.next] = guess{hash, now.UnixNano()}
	c.next = (c.next + 1) % len(c.tried)
	return true
}

// forget takes off the wrong passwords that are old enough.
func (c *guesser) forget(now time.Time) {
	n := min(int(now.Sub(c.last)/forgetGuess), c.wrong)
	if n > 0 {
		c.wrong -= n
		c.last = c.last.Add(time.Duration(n) * forgetGuess)
	}
}

// isIdle reports whether there is nothing to remember of c.
func (c *guesser) isIdle() bool { return c.pending == 0 && c.wrong == 0 }

// makeRoom forgets one client if there are too many: one that is done with, if
// there is one among the first few, else the one of them that waits least.
func (g *Counter) makeRoom(now time.Time) {
	if len(g.clients) < maxGuessers {
		return
	}

	// A look at a few is enough: a flood of addresses pushes out mostly itself.
	var victim netip.Addr
	var least time.Time
	seen := 0
	for ip, c := range g.clients { // in no particular order
		if c.pending > 0 {
			continue
		}
		if c.forget(now); c.isIdle() {
			victim = ip
			break
		}
		if !victim.IsValid() || c.until.Before(least) {
			victim, least = ip, c.until
		}
		if seen++; seen == 16 {
			break
		}
	}
	delete(g.clients, victim)
}
