package dnslist

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/dns"
)

// shortestInterval is the one from which on tests are repeated, and a list is not asked
// before it has passed; as in Haraka.
const shortestInterval = 5 * time.Minute

// A disabled list is tried again after firstPause, and after twice as long each time that
// it fails again, up to lastPause.
const (
	firstPause = time.Minute
	lastPause  = 30 * time.Minute
)

// trust is how long an answer of a list that decides counts without another test. A list
// that is given up has every address from one moment to the next.
const trust = time.Minute

// state says whether a list is in use.
type state struct {
	list *List

	mu       sync.Mutex
	active   bool
	reported bool // that it is disabled
	failures int  // in a row
	since    time.Time
	passed   time.Time // its last test
	due      time.Time // for the next test; zero: none
}

// goOnFrom takes over what was known of a list before a reload.
func (l *state) goOnFrom(before *state, interval time.Duration, now time.Time) {
	before.mu.Lock()
	defer before.mu.Unlock()
	l.active, l.reported, l.failures, l.since, l.due = before.active, before.reported, before.failures, before.since, before.due
	l.passed = before.passed
	// What has passed is due as the new interval says, and at once if it was never tested.
	switch {
	case !l.active:
	case interval < shortestInterval:
		l.due = time.Time{}
	case l.since.IsZero():
		l.due = now
	case l.due.IsZero() || l.due.After(now.Add(interval)):
		l.due = now.Add(interval)
	}
}

// isActive reports whether the list is asked.
func (l *state) isActive() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active
}

// isTrusted reports whether the list has passed its tests lately.
func (l *state) isTrusted(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return now.Sub(l.passed) < trust
}

// dueAt is when the list is to be tested; zero: not at all.
func (l *state) dueAt() time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.due
}

// disable has the list not asked until it passes its tests. It reports whether that is
// news.
func (l *state) disable(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	// A list that fails soon after it has passed is no better than one that did not pass.
	if l.active && now.Sub(l.since) > lastPause {
		l.failures = 0
	}
	news := l.active || !l.reported
	if news || !now.Before(l.due) {
		l.due = now.Add(min(firstPause<<min(l.failures, 10), lastPause))
		l.failures++
	}
	l.active, l.reported = false, true
	return news
}

// enable has the list asked, and tested again after the interval; 0: only when it fails.
// It reports whether that is news.
func (l *state) enable(now time.Time, interval time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := !l.active
	if news || l.since.IsZero() {
		l.since = now
	}
	l.active, l.reported, l.passed, l.due = true, false, now, time.Time{}
	if interval >= shortestInterval {
		l.due = now.Add(interval)
	}
	return news
}

// wake makes watch look at the lists again.
func (c *checker) wake() {
	select {
	case c.tryAgain <- struct{}{}:
	default:
	}
}

// disable disables a list, with one line in the log.
func (c *checker) disable(s *search, l *state, reason string) {
	if l.disable(time.Now()) {
		s.disabled.Add(1, l.list.Zone)
		s.log.Warn("disabling "+l.list.Type+" zone", zap.String("zone", l.list.Zone), zap.String("reason", reason))
		c.wake()
	}
}

// watch tests the lists when it is time, until ctx ends.
func (c *checker) watch(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-c.tryAgain:
		}

		// Tests run side by side, since a list that does not answer takes long.
		s := c.current.Load()
		var testing sync.WaitGroup
		now := time.Now()
		for _, l := range s.lists {
			if due := l.dueAt(); !due.IsZero() && !now.Before(due) {
				testing.Go(func() { c.test(ctx, s, l) })
			}
		}
		testing.Wait()

		// What became due meanwhile is tested in the next round.
		if next, any := s.nextDue(); any {
			timer.Reset(time.Until(next))
		}
	}
}

// nextDue is when the next list is to be tested; any is false if none is.
func (s *search) nextDue() (next time.Time, any bool) {
	for _, l := range s.lists {
		if due := l.dueAt(); !due.IsZero() && (!any || due.Before(next)) {
			next, any = due, true
		}
	}
	return next, any
}

// test tests a list, and enables or disables it.
func (c *checker) test(ctx context.Context, s *search, l *state) {
	fault := ""
	if s.Interval > 0 { // else the pause is all that a list has to keep
		fault = s.findFault(ctx, l.list)
	}
	switch {
	case ctx.Err() != nil: // the plugin is closed: nothing follows from the failure
	case fault != "":
		c.disable(s, l, fault)
	case l.enable(time.Now(), s.Interval):
		s.log.Info("enabling "+l.list.Type+" zone", zap.String("zone", l.list.Zone))
	}
}

// The addresses of the tests (RFC 5782 section 5).
var (
	testListed   = netip.MustParseAddr("127.0.0.2")
	testUnlisted = netip.MustParseAddr("127.0.0.1")
	testIPv6     = netip.MustParseAddr("::ffff:7f00:1")
)

// findFault makes the tests of RFC 5782 section 5: 127.0.0.2 is listed, 127.0.0.1 is not,
// nor is ::ffff:7f00:1. It returns what is wrong; "": nothing is.
func (s *search) findFault(ctx context.Context, l *List) string {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	answers, err := s.resolver.IPv4(ctx, queryName(testListed, l.Zone))
	switch {
	case dns.IsNXDomain(err), dns.IsNoData(err):
		return "127.0.0.2 is not listed (RFC 5782 section 5): the zone is none of a list, or was given up"
	case err != nil:
		return "cannot be tested: " + err.Error()
	}
	if fault := wrong(l.Zone, answers); fault != "" {
		return fault
	}

	return s.findListed(ctx, l)
}

// findListed makes those of the tests that must not be listed: a list that has every
// address would refuse every client.
func (s *search) findListed(ctx context.Context, l *List) string {
	tests := []netip.Addr{testUnlisted}
	if l.IPv6 == "true" {
		tests = append(tests, testIPv6)
	}
	if l.LoopbackRejected {
		tests = nil
	}
	for _, addr := range tests {
		answers, err := s.resolver.IPv4(ctx, queryName(addr, l.Zone))
		switch {
		case err == nil && wrong(l.Zone, answers) != "":
			return wrong(l.Zone, answers)
		case err == nil:
			return addr.String() + " is listed (RFC 5782 section 5): the list may have every address"
		case !dns.IsNXDomain(err) && !dns.IsNoData(err):
			return "cannot be tested: " + err.Error()
		}
	}
	return ""
}
