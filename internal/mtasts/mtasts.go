// Package mtasts knows the MTA-STS policies of domains (RFC 8461): which mail
// exchangers may get a domain's mail, and that their certificates must verify.
//
// A policy is announced by a TXT record with an id and fetched over HTTPS from
// the domain's host mta-sts. It is kept in memory and on disk for as long as it
// says, over restarts too, so that suppressing DNS or HTTPS answers later
// does not take it away:
//
//   - An id that differs from the known one makes it be fetched before it is
//     used. While that fails the old one counts until it expires; it is tried
//     again after five minutes, and after twice as long each time, up to an hour.
//   - A policy counts for five minutes at least, also if it says less: a domain
//     cannot make every delivery fetch it.
//   - A policy that is used is fetched again in the background once a day, or
//     after half its time if that is less.
//   - A domain with no record, or with one that cannot be looked up for now, has no
//     policy but the one that is kept. A look-up may take eight seconds; one that
//     fails is not repeated for a minute.
//
// No caller waits for a fetch (see Fetch): many hosts hang, and a caller holds a
// place in the schedule. One fetch serves all callers that want it; at most 20 run
// at a time, for ten seconds each, and hosts that failed before come last. Only a
// verified server, the status 200 without a redirect, the type text/plain and at
// most 64 KiB make a policy.
//
// On disk each domain has the file DOMAIN.json below Options.Dir. A file that
// cannot be read is passed over with a log line; an expired one is removed.
package mtasts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/mail"
)

const (
	maxBody      = 64 << 10
	maxFetches   = 20   // at a time
	maxFlights   = 2048 // with those that wait for their turn
	maxEntries   = 4096 // in memory
	fetchTimeout = 10 * time.Second
	retryAfter   = 5 * time.Minute // a fetch that failed
	longestRetry = time.Hour
	minAge       = 5 * time.Minute // a policy counts for so long, whatever it says
	maxLogged    = 10              // patterns
	refreshAfter = 24 * time.Hour
	sweepAfter   = 24 * time.Hour
	recordWait   = 8 * time.Second // for the TXT record; a resolver waits 5 s for the first of its servers
	silentFor    = time.Minute     // after a look-up that failed the record is not looked up again
)

// Resolver is the part of *dns.Resolver that a Cache needs.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
	KnownTXT(name string) (texts []string, known bool, err error) // TXT, if that needs no wait
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
}

// Options are what a Cache works with.
type Options struct {
	Resolver Resolver
	Dir      string       // "": policies do not survive a restart
	Client   *http.Client // nil: one that connects to what Resolver says. Its redirects and Timeout are set here
	Log      *zap.Logger  // nil: none
	Now      func() time.Time
}

// Cache knows policies. Its methods may be called from any goroutine.
type Cache struct {
	options Options
	client  http.Client
	ctx     context.Context // of fetches
	cancel  context.CancelFunc

	mu      sync.Mutex
	entries map[string]*entry
	flights map[string]*Fetch
	turns   [2][]*Fetch // that wait for their turn; those of hosts that failed before are the second
	active  int         // that run
	swept   time.Time
	closed  bool
	running sync.WaitGroup // added to only under mu while not closed
}

// entry is the state of one domain. It does not change once it is in the map.
type entry struct {
	policy  *Policy // nil: none
	id      string  // of the record when policy was fetched
	fetched time.Time

	failedID string // of the record when a fetch failed last
	failures int    // in a row
	retry    time.Time
	silent   time.Time // until then the record is not looked up
}

// New returns a Cache. Nothing is read before it is asked for.
func New(o Options) *Cache {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache{options: o, entries: map[string]*entry{}, flights: map[string]*Fetch{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())

	// Policies are fetched rarely and from many hosts. A kept connection would hardly ever be used
	// again.
	if o.Client != nil {
		c.client = *o.Client
	} else {
		c.client.Transport = &http.Transport{
			DialContext: c.dialHost, DisableKeepAlives: true, TLSHandshakeTimeout: 20 * time.Second,
			MaxResponseHeaderBytes: maxBody,
		}
	}

	// A redirect is no answer (RFC 8461 section 3.3): the first response counts, whatever it is.
	c.client.Timeout = fetchTimeout
	c.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c
}

// Close ends fetches and waits for them. Policy still answers from memory and disk.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	waiting := slices.Concat(c.turns[0], c.turns[1])
	c.turns = [2][]*Fetch{}
	for _, f := range waiting {
		delete(c.flights, f.domain)
	}
	c.mu.Unlock()

	// Running fetches end now. Waiting ones never began, so their waiters are called here.
	c.cancel()
	c.running.Wait()
	for _, f := range waiting {
		f.finish()
	}
	return nil
}

// Policy returns the policy for mail to a domain, of mode Enforce or Testing, or
// nil when there is none. With a Fetch it is not known yet: it is to be asked for
// again when that has ended. ctx bounds the DNS look-up; when it ends first the answer
// comes from memory or disk.
func (c *Cache) Policy(ctx context.Context, domain string) (*Policy, *Fetch) {
	domain = mail.CanonicalDomain(domain)
	if !isHost(domain) {
		return nil, nil
	}

	// A domain with silent name servers would hold every delivery for the length of a look-up. For
	// a minute the kept policy stands in.
	e := c.entryOf(domain)
	if now := c.options.Now(); now.Before(e.silent) {
		return e.binding(now), nil
	}

	// The record is small and usually cached. It decides whether the kept policy is still the
	// current one.
	texts, err := c.lookUpRecord(ctx, domain)
	now := c.options.Now()
	if err != nil && !dns.IsNXDomain(err) && !dns.IsNoData(err) && ctx.Err() == nil {
		c.options.Log.Debug("MTA-STS record cannot be looked up", zap.String("domain", domain), zap.Error(err))
		c.mu.Lock()

		// Another caller may have stored a newer entry during the look-up. Its policy must not be
		// lost with this note.
		if known := c.entries[domain]; known != nil {
			e = known
		}
		later := *e
		later.silent = now.Add(silentFor)
		c.keepEntry(domain, &later)
		c.mu.Unlock()
	}
	id, announced := recordID(texts)
	if err != nil || !announced {
		return e.binding(now), nil
	}

	// The id decides: a fetch that failed for this id is not repeated yet, a policy with this id is
	// used, and any other id has to be fetched before mail goes out.
	current := e.isValid(now)
	switch {
	case now.Before(e.retry) && e.failedID == id:
	case current && e.id == id:
		if now.Sub(e.fetched) >= min(refreshAfter, e.policy.lifetime()/2) {
			c.startFetch(domain, id, e)
		}
	default:
		if f := c.startFetch(domain, id, e); f != nil {
			return nil, f
		}
		e = c.entryOf(domain) // it has ended meanwhile
	}
	return e.binding(c.options.Now()), nil
}

// lookUpRecord looks up the TXT record of a domain. Servers that drop such queries must
// not hold every delivery up.
func (c *Cache) lookUpRecord(ctx context.Context, domain string) ([]string, error) {
	name := "_mta-sts." + domain
	if texts, known, err := c.options.Resolver.KnownTXT(name); known {
		return texts, err // nearly always: a timer for it would cost more than the answer
	}
	ctx, cancel := context.WithTimeout(ctx, recordWait)
	defer cancel()
	return c.options.Resolver.TXT(ctx, name)
}

func (e *entry) isValid(now time.Time) bool {
	return e.policy != nil && now.Before(e.fetched.Add(e.policy.lifetime()))
}

// lifetime is for how long p counts.
func (p *Policy) lifetime() time.Duration { return max(p.MaxAge, minAge) }

// binding returns the policy if it still counts and asks for anything.
func (e *entry) binding(now time.Time) *Policy {
	if !e.isValid(now) || e.policy.Mode == None {
		return nil
	}
	return e.policy
}

// entryOf returns the entry of a domain, from memory or disk.
func (c *Cache) entryOf(domain string) *entry {
	c.mu.Lock()
	e := c.entries[domain]
	c.mu.Unlock()
	if e != nil {
		return e
	}

	// The file is read without the lock, since a slow disk must not stop other domains. The first
	// caller that comes back stores its entry.
	loaded := c.loadEntry(domain)
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.entries[domain]; e == nil {
		e = loaded
		c.keepEntry(domain, e)
	}
	return e
}

// keepEntry puts an entry in memory, for which another may have to go. The caller
// holds c.mu.
func (c *Cache) keepEntry(domain string, e *entry) {
	c.entries[domain] = e

	// Map order is random, which makes eviction random too. An evicted policy is read from disk, or
	// fetched, when it is needed again.
	for other := range c.entries {
		if len(c.entries) <= maxEntries {
			break
		}
		if other != domain {
			delete(c.entries, other)
		}
	}
}

// Fetch is a policy on its way.
type Fetch struct {
	domain, id string

	mu    sync.Mutex
	ended bool
	then  []func()
}

// Then calls fn when the fetch has ended, at once if it has. fn must not block.
func (f *Fetch) Then(fn func()) {
	f.mu.Lock()
	ended := f.ended
	if !ended {
		f.then = append(f.then, fn)
	}
	f.mu.Unlock()
	if ended {
		fn()
	}
}

// finish runs the functions that wait for the fetch.
func (f *Fetch) finish() {
	f.mu.Lock()
	then := f.then
	f.ended, f.then = true, nil
	f.mu.Unlock()
	for _, fn := range then {
		fn()
	}
}

// startFetch starts a fetch, or returns that which is under way. It returns nil after
// Close, and if one has ended since the caller saw e: looking up the record takes
// a while. When too many wait already it returns a Fetch that never ends.
func (c *Cache) startFetch(domain, id string, e *entry) *Fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[domain]; f != nil || c.closed {
		return f
	}

	// The entry has changed since the caller looked: a fetch has ended in between, and its result
	// answers the question.
	if known := c.entries[domain]; known != nil && !(known.fetched.Equal(e.fetched) && known.retry.Equal(e.retry)) {
		return nil
	}
	f := &Fetch{domain: domain, id: id}

	// The bound holds even against senders inventing domains. Mail that meets it waits for its next
	// attempt.
	if len(c.flights) >= maxFlights {
		return f
	}
	c.flights[domain] = f

	// Hosts that have failed before wait behind the others, so that dead hosts cannot use up every
	// turn.
	turn := 0
	if e.failures > 0 {
		turn = 1
	}
	c.turns[turn] = append(c.turns[turn], f)
	if c.active < maxFetches {
		c.active++
		c.running.Go(c.runFetches)
	}
	return f
}

// runFetches fetches what waits for its turn, until there is nothing more.
func (c *Cache) runFetches() {
	for {
		c.mu.Lock()
		turn := 0
		if len(c.turns[0]) == 0 {
			turn = 1
		}
		if len(c.turns[turn]) == 0 {
			c.active--
			c.mu.Unlock()
			return
		}

		// The slot is cleared so that the slice does not keep the finished Fetch alive.
		f := c.turns[turn][0]
		c.turns[turn][0] = nil
		c.turns[turn] = c.turns[turn][1:]
		c.mu.Unlock()
		p, err := c.fetchPolicy(f.domain)
		c.recordFetch(f.domain, f.id, p, err)
		f.finish()
	}
}

// recordFetch records what came of a fetch.
func (c *Cache) recordFetch(domain, id string, p *Policy, err error) {
	if err != nil && c.ctx.Err() != nil { // Close: nobody's fault
		c.mu.Lock()
		delete(c.flights, domain)
		c.mu.Unlock()
		return
	}

	// A failed fetch keeps the old policy and its age. Only the time of the next attempt changes,
	// with a doubling delay.
	now := c.options.Now()
	old := c.entryOf(domain)
	e := &entry{policy: p, id: id, fetched: now}
	if err != nil {
		*e = *old
		e.failures++
		e.failedID, e.retry = id, now.Add(min(retryAfter<<min(e.failures-1, 8), longestRetry))
	}

	// The flight ends and the entry appears in one step, or a caller between the two would start a
	// second fetch.
	c.mu.Lock()
	delete(c.flights, domain)
	c.keepEntry(domain, e)
	sweep := err == nil && now.Sub(c.swept) >= sweepAfter
	if sweep {
		c.swept = now
	}
	c.mu.Unlock()
	if err != nil {
		c.options.Log.Warn("MTA-STS policy not fetched", zap.String("domain", domain), zap.Bool("kept", old.isValid(now)), zap.Error(err))
		return
	}
	c.options.Log.Info("MTA-STS policy", zap.String("domain", domain), zap.String("mode", string(p.Mode)), zap.Strings("mx", p.MX[:min(len(p.MX), maxLogged)]),
		zap.Int("patterns", len(p.MX)),
		zap.Duration("max_age", p.MaxAge))
	c.storeEntry(domain, e)
	if sweep {
		c.removeExpired(now)
	}
}

// fetchPolicy fetches a policy (RFC 8461 section 3.3).
func (c *Cache) fetchPolicy(domain string) (*Policy, error) {
	ctx, cancel := context.WithTimeout(c.ctx, fetchTimeout)
	defer cancel()
	url := "https://mta-sts." + domain + "/.well-known/mta-sts.txt"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/plain")

	// The checks follow RFC 8461 section 3.3: an error page of a web host must never pass for a
	// policy.
	resp, err := c.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %s", url, resp.Status)
	}
	contentType := resp.Header.Get("Content-Type")
	if t, _, err := mime.ParseMediaType(contentType); err != nil || t != "text/plain" {
		return nil, fmt.Errorf("%s: type %.60q is not text/plain", url, contentType)
	}

	// One byte more than allowed is read, to tell a long body from one that just fits.
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if len(b) > maxBody {
		return nil, fmt.Errorf("%s: more than %d bytes", url, maxBody)
	}
	p, err := Parse(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return p, nil
}

// dialHost connects to one of a host's addresses, as the Resolver gives them.
func (c *Cache) dialHost(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	addrs, err := c.options.Resolver.Addrs(ctx, strings.TrimSuffix(host, "."))
	if err != nil {
		return nil, err
	}

	// Every address gets its chance. The first that connects is used, and all errors are reported
	// if none does.
	d := net.Dialer{Timeout: 10 * time.Second}
	var failed []error
	for _, a := range addrs {
		conn, err := d.DialContext(ctx, network, net.JoinHostPort(a.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}
