// Package dnslist is the plugin dns-list: it looks clients up in lists in the DNS (RFC
// 5782) of hosts that are not wanted, or known as good. See README.md.
//
// A list that answers wrongly, or not at all, is disabled and tried again by a goroutine
// that runs from Start to Close. The state of a list outlasts a reload of the
// settings.
package dnslist

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "dns-list"

// noteAllowed is the note of a connection from a client on an allow list.
const noteAllowed = "dnswl"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	c := &checker{tryAgain: make(chan struct{}, 1)}
	c.current.Store(newSearch(env, nil, time.Now()))
	env.Metrics.Gauge("zones_active", "Lists that are asked.", func() float64 { return c.count(true) })
	env.Metrics.Gauge("zones_disabled", "Lists that are not asked, because they have not passed their tests or answer wrongly.",
		func() float64 { return c.count(false) })
	return c, nil
}

// checker is the plugin.
type checker struct {
	current  atomic.Pointer[search]
	tryAgain chan struct{} // holds one if a list was disabled, or the settings are new
	running  sync.WaitGroup
}

// search is what one generation of settings looks clients up with.
type search struct {
	*Settings
	resolver plugin.Resolver
	recorder *plugin.Recorder
	log      *zap.Logger
	lookups  plugin.Counter // by zone and outcome
	disabled plugin.Counter // by zone
	lists    []*state       // of Lists, in their order
}

// newSearch returns the search with new settings. Lists that the one before (nil: none)
// has too stay as they are.
func newSearch(env plugin.Env, before *search, now time.Time) *search {
	s := &search{
		Settings: env.Settings.(*Settings), resolver: env.Resolver, recorder: env.NewRecorder(Name, result.Format{}), log: env.Log,
		lookups:  env.Metrics.Counter("lookups_total", "Look-ups in lists.", "zone", "outcome"),
		disabled: env.Metrics.Counter("disabled_total", "How often a list was disabled.", "zone"),
	}
	if s.resolver == nil {
		return s // nothing can be looked up
	}
	for _, l := range s.Lists {
		one := &state{list: l, active: s.Interval < shortestInterval}
		if s.Interval > 0 {
			one.due = now
		}
		if before != nil {
			if i := slices.IndexFunc(before.lists, func(o *state) bool { return o.list.Zone == l.Zone }); i >= 0 {
				one.goOnFrom(before.lists[i], s.Interval, now)
			}
		}
		s.lists = append(s.lists, one)
	}
	return s
}

// Register implements plugin.Plugin. All that waits is bounded by the plugin's own timeout.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	s := c.current.Load()
	h.On(hook.OnConnect, "onConnect", 0, c.checkClient)
	if s.Backscatter.Enabled {
		h.On(hook.OnMail, "check_backscatterer", 0, c.checkReportSender)
	}
	if s.DNSWL.OKHelo {
		h.On(hook.OnHelo, "check_dnswl", 0, passAllowed)
		h.On(hook.OnEhlo, "check_dnswl", 0, passAllowed)
	}
	if s.DNSWL.OKMail {
		h.On(hook.OnMail, "check_dnswl", 0, passAllowed)
	}
}

// Start implements plugin.Starter.
func (c *checker) Start(ctx context.Context) error {
	c.running.Go(func() { c.watch(ctx) })
	return nil
}

// Close implements io.Closer. The context of Start has ended.
func (c *checker) Close() error {
	c.running.Wait()
	return nil
}

// Reload implements plugin.Reloader.
func (c *checker) Reload(env plugin.Env) (func(), error) {
	return func() {
		c.current.Store(newSearch(env, c.current.Load(), time.Now()))
		c.wake()
	}, nil
}

// count counts the lists that are active, or those that are not.
func (c *checker) count(active bool) (n float64) {
	for _, l := range c.current.Load().lists {
		if l.isActive() == active {
			n++
		}
	}
	return n
}

// passAllowed spares clients on an allow list the later plugins.
func passAllowed(_ context.Context, e *hook.Event) hook.Verdict {
	if e.Conn.Notes().Bool(noteAllowed) {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

// checkClient looks a client up in all lists at the same time.
func (c *checker) checkClient(ctx context.Context, e *hook.Event) hook.Verdict {
	s := c.current.Load()
	record, remote := s.recorder.On(e.Conn.Results()), e.Conn.Remote()
	addr := remote.Addr.Addr().Unmap().WithZone("")

	// With XCLIENT the connection is another client's, which has nothing of the last one's.
	e.Conn.Notes().Remove(noteAllowed)

	// No list knows addresses that are not of the world.
	if remote.Private {
		record.Skip("private: " + addr.String())
		record.Log()
		return hook.Proceed()
	}
	active := slices.DeleteFunc(slices.Clone(s.lists), func(l *state) bool { return !l.isActive() })
	if len(active) == 0 {
		record.Err("no zones")
		return hook.Proceed()
	}

	v := s.judge(e, record, c.askAll(ctx, s, active, addr))
	record.Log()
	return v
}

// askAll returns what lists say of an address, in their order. It ends with the first
// answer that decides: what the others say does not matter then.
func (c *checker) askAll(ctx context.Context, s *search, lists []*state, addr netip.Addr) []*finding {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	answers := make(chan int, len(lists))
	all := make([]*finding, len(lists))
	var asking sync.WaitGroup
	for i, l := range lists {
		asking.Go(func() {
			// A list that fails is not asked for the next client.
			one := s.ask(ctx, l.list, addr)
			switch {
			case one == nil:
			case one.fault != "":
				c.disable(s, l, one.fault)
			case !one.decides() || c.confirm(ctx, s, l):
			case errors.Is(ctx.Err(), context.Canceled): // another list has decided
				one = nil
			default:
				one.answers, one.failure = nil, "fails its tests"
			}
			all[i] = one
			answers <- i
		})
	}

	// The look-ups that are left end with their context, at once.
	for range lists {
		if one := all[<-answers]; one != nil && (one.letsIn() || s.First && one.refuses()) {
			cancel()
			break
		}
	}
	asking.Wait()
	return slices.DeleteFunc(all, func(f *finding) bool { return f == nil })
}

// confirm reports whether a list that has an address may decide. Where lists are tested
// again and again, it is tested once more if its last test was long ago.
func (c *checker) confirm(ctx context.Context, s *search, l *state) bool {
	if s.Interval < shortestInterval || l.isTrusted(time.Now()) {
		return true
	}
	c.test(ctx, s, l)
	return ctx.Err() == nil && l.isActive()
}

// limit bounds the look-ups for a client. They end before the time of the handler does,
// so that a slow list costs the client no message.
func (s *search) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	patience := s.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(deadline)*9/10)
	}
	return context.WithTimeout(ctx, patience)
}

// judge records what lists say of a client, and decides.
func (s *search) judge(e *hook.Event, record plugin.Record, all []*finding) hook.Verdict {
	var rejecting []string
	for _, f := range all {
		f.record(record)
		if f.refuses() {
			rejecting = append(rejecting, f.list.Zone)
		}
	}

	// One list that knows a client as good outweighs all others.
	switch {
	case slices.ContainsFunc(all, (*finding).letsIn):
		e.Conn.Notes().Set(noteAllowed, true)
		return hook.Answer(hook.OK, "")
	case len(rejecting) > 0:
		addr := e.Conn.Remote().Addr.Addr().Unmap()
		return record.Refuse(hook.Answer(hook.Deny, "host ["+addr.String()+"] is listed on "+strings.Join(rejecting, ", ")))
	}
	return hook.Proceed()
}

// checkReportSender refuses clients that send reports nobody asked for, as
// ips.backscatterer.org lists them.
func (c *checker) checkReportSender(ctx context.Context, e *hook.Event) hook.Verdict {
	s := c.current.Load()
	if !s.Backscatter.Enabled || s.resolver == nil || !e.Sender.IsNull() && !strings.EqualFold(e.Sender.Local, "postmaster") {
		return hook.Proceed()
	}
	ctx, cancel := s.limit(ctx)
	defer cancel()
	remote := e.Conn.Remote()
	addr := remote.Addr.Addr().Unmap().WithZone("")

	// Whatever else than a listing it answers lets the client pass.
	if f := s.ask(ctx, s.Backscatter, addr); f == nil || !f.isListed() {
		return hook.Proceed()
	}
	if fault := s.findListed(ctx, s.Backscatter); fault != "" {
		s.recorder.On(e.Tx.Results()).Err(zoneBackscatter + ": " + fault)
		return hook.Proceed()
	}
	return s.recorder.On(e.Tx.Results()).Refuse(hook.Answer(hook.Deny,
		"Host "+remote.Host+" ["+addr.String()+"] is listed by "+zoneBackscatter))
}
