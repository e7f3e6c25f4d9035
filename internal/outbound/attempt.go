package outbound

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/delivery"
	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/route"
	"tarishi/internal/schedule"
	"tarishi/internal/sending"
)

// attempt is one attempt at one delivery. Recipients are named by their
// position in env.Recipients throughout; index translates for the queue.
type attempt struct {
	o       *Outbound
	unit    *schedule.Unit
	sending *sending.Context // the context of what comes before its outcome
	index   []int            // of each recipient in the queue's envelope
	env     mail.Envelope
	content mail.Content
	notes   mail.Notes // hook.Delivery.Notes
	queued  mail.Notes // the message's, as the queue has them
	was     kept
	known   bool    // this process has kept something
	records records // what the queue remembers
	loaded  bool
	whole   []mail.Recipient // all of the message
	ran     bool             // there was an attempt
	force   atomic.Bool
	spared  bool                   // see spare
	yielded bool                   // it made room for other mail
	free    bool                   // its deferral does not count, see record
	host    atomic.Pointer[string] // that is being tried
	policy  *policy
	hops    []mail.NextHop // that get_mx gave
	res     delivery.Result
	moved   bool // the unit was put back in the schedule and is not ours any more

	abandoned atomic.Bool // another process has the message; changes with Outbound.mu held

	accounted []bool // recipients that are settled, or in later
	later     []rest
	debts     []debt
}

// rest is recipients that stay scheduled.
type rest struct {
	index    []int
	attempts int
	next     time.Time
}

// kept is what plugins left with a delivery until its next attempt.
type kept struct {
	notes   mail.Notes     // hook.Delivery.Notes
	message mail.Notes     // the message's, if they were changed
	force   bool           // hook.Delivery.ForceTLS
	spared  bool           // attempt.spared
	asked   bool           // send_email and get_mx have been asked about this attempt
	hops    []mail.NextHop // what they gave then
	stored  string         // what of it the queue remembers
}

func (k kept) remembered() remembered { return remembered{k.notes, k.message, k.force, k.spared} }

func (k kept) nothing() bool {
	return len(k.notes) == 0 && k.message == nil && !k.force && !k.spared && !k.asked && k.stored == ""
}

// keeps returns what is to be kept; asked: the attempt is still to be made.
func (a *attempt) keeps(asked bool) kept {
	k := kept{notes: a.notes, force: a.force.Load(), spared: a.spared, message: a.was.message, asked: asked, stored: a.was.stored}
	if asked {
		k.hops = a.hops
	}
	if a.env.Notes != nil && !reflect.DeepEqual(a.env.Notes, a.queued) {
		k.message = a.env.Notes
	}
	return k
}

// keepFor notes what u's next attempt finds again. The caller holds o.mu.
func (o *Outbound) keepFor(u *schedule.Unit, k kept) {
	if !k.nothing() {
		o.kept[u] = k
	}
}

// attempt makes one attempt at u and puts back in the schedule what is left.
func (o *Outbound) attempt(ctx context.Context, u *schedule.Unit) {
	a := &attempt{o: o, unit: u, sending: sending.New(ctx), index: u.Recipients(), policy: o.policy(u.Domain(), nil)}
	defer a.sending.Cancel(nil)
	a.accounted = make([]bool, len(a.index))
	defer a.end()
	o.mu.Lock()
	a.was, a.known = o.kept[u]
	delete(o.kept, u)
	o.running[u] = a
	if o.stopping {
		a.sending.GiveUp(errStopped)
	}
	if o.forgone[u] {
		delete(o.forgone, u)
		a.abandoned.Store(true)
	}
	o.mu.Unlock()
	a.hops = a.was.hops
	if a.notes = a.was.notes; a.notes == nil {
		a.notes = mail.Notes{}
	}
	a.force.Store(a.was.force)
	a.spared = a.was.spared
	if a.abandoned.Load() || !a.permitted() {
		return
	}
	a.sending.Guard(a)
	switch {
	case u.Expired():
		a.expire(ctx)
	case u.Late():
		a.late(ctx)
	default:
		a.run(ctx)
	}
}

// end contains a panic and accounts for every recipient.
func (a *attempt) end() {
	o, now := a.o, a.now()
	if p := recover(); p != nil {
		a.log("attempt panicked, its recipients are deferred", zap.Any("panic", p), zap.Stack("stack"))
		wait, ok := a.policy.wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
		if !ok { // it was to be the last; a DSN from here could panic again
			wait = localWait
		}
		a.keep(a.open(), rest{attempts: a.unit.Attempts() + 1, next: now.Add(wait)})
	}
	if a.moved {
		return
	}
	a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: now}) // interrupted
	left := a.remember(a.keeps(a.was.asked && !a.ran))
	o.mu.Lock()
	delete(o.running, a.unit)
	if a.abandoned.Load() {
		o.schedule.Done(a.unit)
		o.mu.Unlock()
		o.signal()
		return
	}
	domain := a.unit.Domain()
	for i, r := range a.later {
		u := a.unit
		if i == 0 {
			o.schedule.Defer(u, now, r.index, r.attempts, r.next)
		} else {
			u = o.schedule.Add(now, schedule.Delivery{ID: u.ID(), Domain: domain, Recipients: r.index, Attempts: r.attempts, Next: r.next, Received: u.Received(), Null: u.Null(), Marked: a.unit.Marked()})
		}
		k := left
		if i > 0 { // the two may run at the same time
			k.notes, k.message = k.notes.Clone(), k.message.Clone()
		}
		o.keepFor(u, k)
	}
	for _, d := range a.debts {
		o.owe(d)
	}
	if o.gathering.messages[a.unit.ID()] != nil {
		o.gathering.decide(a.unit.ID(), a.decided())
	}
	if len(o.held) > 0 {
		o.unmark(a.unit.ID(), slices.DeleteFunc(slices.Clone(a.index), func(i int) bool {
			return slices.ContainsFunc(a.later, func(r rest) bool { return slices.Contains(r.index, i) })
		}))
	}
	if len(a.later) == 0 {
		o.schedule.Done(a.unit)
	}
	o.mu.Unlock()
	o.signal()
}

// unmark forgets that recipients are held which are done with. The caller holds
// o.mu.
func (o *Outbound) unmark(id mail.ID, recipients []int) {
	h := o.held[id]
	if len(h) == 0 {
		return
	}
	for _, i := range recipients {
		if h[i] == nil {
			delete(h, i)
		}
	}
	if len(h) == 0 {
		delete(o.held, id)
	}
}

// run is the attempt itself. Recipients that it leaves open are due again at
// once: it returns early only when ctx has ended, or when the destination turns
// out to have no place now.
func (a *attempt) run(ctx context.Context) {
	if !a.load() {
		return
	}
	a.ran = true
	if a.try(ctx) {
		a.record(ctx)
	}
}

// try finds out what becomes of each recipient, and reports whether it did. It is
// the part that a stop cuts short, and that the schedule can have ended.
func (a *attempt) try(whole context.Context) bool {
	ctx := context.Context(a.sending)
	var refusal *reply.Reply
	if !a.was.asked {
		var postponed bool
		if a.hops, refusal, postponed = a.ask(ctx); postponed {
			return false
		}
	}
	if refusal == nil {
		refusal = a.send(ctx)
		if a.res.Uncertain && ctx.Err() != nil {
			a.o.doubt()
			a.o.o.Log.Warn("cut off before the reply to the message, which may have been taken",
				zap.String("uuid", string(a.unit.ID())), zap.String("domain", a.unit.Domain()), zap.String("host", a.res.Host))
		}
		if a.moved {
			return false
		}
	}
	if a.res.Replies == nil && ctx.Err() != nil { // what a hook or the resolver says then is not its own
		if refusal = a.recalled(context.Cause(ctx)); refusal == nil {
			return false
		}
	}
	if refusal != nil {
		if a.spare(refusal) {
			a.deferImported(whole, refusal)
			return false
		}
		a.res.Replies = a.all(refusal)
	}
	return true
}

// send finds the way to the destination and makes the attempt. It returns the
// reply for all recipients if there is no way.
func (a *attempt) send(ctx context.Context) *reply.Reply {
	o, domain := a.o, a.unit.Domain()
	job := delivery.Job{Envelope: &a.env, Content: a.content, Domain: domain, Hops: a.hops, Trying: a.trying}
	if len(job.Hops) == 0 {
		job.Hops = a.policy.Hosts
	}
	plan, refusal := o.delivery.Plan(ctx, job)
	if refusal == nil && len(job.Hops) == 0 {
		if a.policy = o.policy(domain, plan.Hosts()); len(a.policy.Hosts) > 0 {
			job.Hops = a.policy.Hosts
			plan, refusal = o.delivery.Plan(ctx, job)
		}
	}
	if ctx.Err() != nil {
		a.res.Interrupted = true
		return nil
	}
	if plan != nil && plan.Pending() {
		a.postpone(plan)
		return nil
	}
	if !a.locate(plan) {
		o.signal()
		return nil
	}
	if refusal != nil {
		if refusal.Temporary() {
			a.report(schedule.Outcome{Err: clip(refusal.String())})
		}
		return refusal
	}
	source := a.policy.choose(&a.env, o.o.Random())
	job.Settings = a.policy.settings(source)
	if a.force.Load() {
		job.Settings.TLS = max(job.Settings.TLS, mail.TLSEncrypt)
		job.Hops = slices.Clone(job.Hops)
		for i := range job.Hops {
			if h := &job.Hops[i]; h.TLS != mail.TLSDefault {
				h.TLS = max(h.TLS, mail.TLSEncrypt)
			}
		}
		if len(job.Hops) > 0 {
			plan, _ = o.delivery.Plan(ctx, job) // hops only: it cannot fail
		}
	}
	a.res = o.delivery.Attempt(ctx, job, plan)
	if other, ok := a.policy.other(source, o.o.Random()); ok && len(a.res.Tried) == 0 && !a.res.Interrupted {
		job.Settings = a.policy.settings(other) // no host has an address of that family
		a.res = o.delivery.Attempt(ctx, job, plan)
	}
	if a.res.Interrupted {
		return nil
	}
	out := schedule.Outcome{Reached: a.res.Reached, Throttled: a.res.Throttled, Local: a.res.Local}
	for _, r := range a.res.Replies {
		if !r.Positive() {
			out.Err = clip(r.String())
		}
	}
	a.report(out)
	return nil
}

// trying notes which host is tried next.
func (a *attempt) trying(host string) { a.host.Store(&host) }

// spare reports whether an imported message is to be deferred although its domain
// does not exist: once, since the site may have routed its mail with a plugin that
// is not here yet.
func (a *attempt) spare(refusal *reply.Reply) bool {
	return !a.spared && refusal.Permanent() && (dns.IsNXDomain(refusal) || dns.IsNoData(refusal)) && a.queued.Get(mail.ImportedNotes) != nil
}

// deferImported defers what spare spares, for long enough to see to the route. It
// may be one deferral more than there are waits for.
func (a *attempt) deferImported(ctx context.Context, refusal *reply.Reply) {
	r := *refusal
	r.Code, r.Enhanced = 451, reply.Enhanced{4, 1, 2}
	a.spared, a.res.Replies = true, a.all(&r)
	wait, _ := a.policy.wait(a.unit.ID(), a.unit.Domain(), a.unit.Attempts()+1)
	a.o.o.Log.Warn("imported message goes to a domain that does not exist, it fails at the next attempt: is a route of get_mx missing?",
		zap.String("uuid", string(a.unit.ID())), zap.String("domain", a.unit.Domain()))
	a.deferAll(ctx, a.open(), max(wait, importedWait))
}

// locate tells the schedule which domains this one shares its next hops with;
// plan is nil when there are none. It returns false when these have no place for
// the delivery now, which is in the schedule again.
func (a *attempt) locate(plan *nexthop.Plan) bool {
	o, domain := a.o, a.unit.Domain()
	site, route, limits := "", "", a.policy.limits
	switch {
	case plan == nil || o.o.Config.Apart(domain):
	case len(a.hops) > 0: // another message for the domain may go elsewhere
		site, limits = plan.Site(), o.hopLimits(a.policy, a.hops[0])
		route = site
	case a.policy.MX != "" && len(a.policy.Hosts) == 0:
		site = "[" + a.policy.MX + "]" // one for all that the section is for
	case plan.Site() != domain:
		site = plan.Site()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.o.Now()
	o.schedule.Reroute(a.unit, route, now)
	if o.schedule.Locate(a.unit, site, limits, now) {
		return true
	}
	a.put()
	return false
}

// put leaves what the delivery's next attempt needs, for one that has not been
// made. The caller holds o.mu, and the schedule has the unit.
func (a *attempt) put() {
	a.moved = true
	delete(a.o.running, a.unit)
	if a.abandoned.Load() {
		a.o.schedule.Drop(a.unit)
		return
	}
	a.o.keepFor(a.unit, a.keeps(true))
}

// report tells the schedule how the destination fared. That a site is suspended, or
// not any more, is logged; a probe that fails is not.
func (a *attempt) report(out schedule.Outcome) {
	o := a.o
	o.mu.Lock()
	site, change, until := o.schedule.Report(a.unit, out, o.o.Now())
	o.mu.Unlock()
	switch change {
	case schedule.Suspended:
		o.o.Log.Warn("destination suspended", zap.String("site", site), zap.String("domain", a.unit.Domain()), zap.Time("probe", until.UTC()), zap.String("error", out.Err))
	case schedule.Resumed:
		o.o.Log.Info("destination resumed", zap.String("site", site), zap.String("domain", a.unit.Domain()))
	}
}

// expire gives up what could not be attempted until its lifetime was over.
func (a *attempt) expire(ctx context.Context) {
	if !a.load() {
		return
	}
	if a.lives(ctx) {
		a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: a.now().Add(localWait)})
		return
	}
	if ctx.Err() != nil { // then its mail exchangers may not be known
		return
	}
	a.res.Replies = a.all(a.unattempted("4.4.7"))
	a.fail(ctx, a.open())
}

// lives reports whether the domain's mail exchangers have a section with a longer
// lifetime.
func (a *attempt) lives(ctx context.Context) bool {
	return a.policy.backoff.Expired(a.env.Received, a.now()) && !a.policyByMX(ctx).backoff.Expired(a.env.Received, a.now())
}

// policyByMX is the policy by the sections for mail exchangers too, which are not
// known before the first attempt of this process.
func (a *attempt) policyByMX(ctx context.Context) *policy {
	if !a.o.o.Config.HasMX() {
		return a.policy
	}
	plan, refusal := a.o.delivery.Plan(ctx, delivery.Job{Envelope: &a.env, Domain: a.unit.Domain()})
	if refusal != nil {
		return a.policy
	}
	return a.o.policy(a.unit.Domain(), plan.Hosts())
}

// unattempted is the reply about what its destination could not be tried with.
func (a *attempt) unattempted(status string) *reply.Reply {
	a.o.mu.Lock()
	last := a.o.schedule.LastError(a.unit)
	a.o.mu.Unlock()
	text := "Not delivered yet"
	if a.unit.Expired() {
		text = "Not delivered in time"
	}
	if last != "" {
		text += ": " + last
	}
	return reply.New(451, status, text)
}

// late warns of what waits for its destination.
func (a *attempt) late(ctx context.Context) {
	if a.load() {
		switch after := a.policyByMX(ctx).DelayWarning; {
		case after <= 0:
			a.unit.Mark()
		case !a.now().Before(a.env.Received.Add(after)):
			a.res.Replies = a.all(a.unattempted("4.4.1"))
			a.warn(ctx, a.open())
		}
	}
	next := a.unit.Next()
	if !a.unit.Marked() {
		next = a.now().Add(localWait)
	}
	a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: next})
}

// load fetches the message from the queue.
func (a *attempt) load() bool {
	env, content, err := a.o.o.Queue.Load(a.unit.ID())
	if err == nil {
		for _, i := range a.index {
			if i < 0 || i >= len(env.Recipients) {
				err = fmt.Errorf("there is no recipient %d", i)
			}
		}
	}
	if unknown(err) {
		a.vanished(a.open())
		return false
	}
	if err != nil {
		a.log("message cannot be loaded, it stays in the queue", zap.String("domain", a.unit.Domain()), zap.Error(err))
		a.keep(a.open(), rest{attempts: a.unit.Attempts(), next: a.now().Add(unreadable)})
		return false
	}
	a.env, a.content = *env, content
	a.env.Recipients = make([]mail.Recipient, len(a.index))
	for n, i := range a.index {
		a.env.Recipients[n] = env.Recipients[i]
	}
	a.loaded, a.whole = true, env.Recipients
	// Other deliveries of the message may run at the same time.
	if a.queued = a.recall(env.Notes); a.queued == nil {
		a.queued = mail.Notes{}
	}
	if a.env.Notes = a.was.message; a.env.Notes == nil {
		a.env.Notes = a.queued.Plain() // a handler that is late may change its lists too
	}
	return true
}

// ask runs the hooks send_email and get_mx. They may give next hops, or the
// reply for all recipients, or have postponed the delivery.
//
// A DENYSOFT of send_email is a plugin that failed: the message is deferred,
// not sent past it. DELAY does not count as a failure, and ends with the
// lifetime.
func (a *attempt) ask(ctx context.Context) (hops []mail.NextHop, refusal *reply.Reply, postponed bool) {
	v := a.hook(ctx, hook.OnSendEmail, hook.Event{}, a.open())
	switch v.Code {
	case hook.Delay:
		r := reply.Newf(451, "4.3.0", "Delayed by plugin %s", v.Plugin)
		if a.policy.backoff.Expired(a.env.Received, a.now()) {
			return nil, r, false
		}
		next := a.policy.backoff.Until(a.env.Received, a.now(), max(v.Delay, time.Second))
		a.putOff(a.open(), a.all(r), a.unit.Attempts(), next)
		return nil, nil, true
	case hook.DenySoft, hook.DenySoftDisconnect:
		return nil, answer(v, reply.New(451, "4.3.0", "Delivery is refused by a plugin for now")), false
	}
	domain := a.unit.Domain()
	v = a.hook(ctx, hook.OnGetMX, hook.Event{Host: domain}, a.open())
	switch v.Code {
	case hook.OK:
		hops, err := v.MX, checkHops(v.MX)
		if len(v.MX) == 0 && v.Text != "" {
			hops, err = parseHops(v.Text)
		}
		if err != nil {
			a.log("get_mx gave no next hop", zap.String("plugin", v.Plugin), zap.String("domain", domain), zap.Error(err))
			return nil, reply.Newf(451, "4.3.5", "No MX for %s", domain).Because(err), false
		}
		return a.inOrder(hops), nil, false
	case hook.Deny, hook.DenyDisconnect:
		return nil, answer(v, reply.Newf(550, "5.1.2", "No MX for %s", domain)), false
	case hook.DenySoft, hook.DenySoftDisconnect:
		return nil, answer(v, reply.Newf(451, "4.1.2", "Temporary MX lookup error for %s", domain)), false
	}
	return nil, nil, false
}

// inOrder returns the next hops of get_mx by their priority, the lowest first, and
// otherwise as they were given. A name that cannot be said in EHLO is left out.
func (a *attempt) inOrder(hops []mail.NextHop) []mail.NextHop {
	hops = slices.Clone(hops)
	for i := range hops {
		h := &hops[i]
		name, ok := nexthop.HeloName(h.Helo)
		if h.Helo != "" && !ok {
			a.o.o.Log.Warn("get_mx: bind_helo is passed over: it is no host name or address literal",
				zap.String("uuid", string(a.unit.ID())), zap.Stringer("hop", *h), zap.String("value", clip(h.Helo)))
		}
		h.Helo = name
	}
	slices.SortStableFunc(hops, func(x, y mail.NextHop) int { return cmp.Compare(x.Priority, y.Priority) })
	return hops
}

// checkHops complains of next hops that no connection can be made to.
func checkHops(hops []mail.NextHop) error {
	for _, h := range hops {
		if h.Host == "" && h.Path == "" {
			return errors.New("a next hop has neither host nor path")
		}
		if h.Port < 0 || h.Port > math.MaxUint16 {
			return fmt.Errorf("%s has no port %d", h.Host, h.Port)
		}
	}
	return nil
}

// parseHops reads what get_mx may give as text, separated by blanks or commas:
// host, host:port, an address with or without a port, or the URL of a next hop.
func parseHops(text string) ([]mail.NextHop, error) {
	var hops []mail.NextHop
	for _, one := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' || c == '\n' }) {
		if !strings.Contains(one, "://") {
			if ip, err := netip.ParseAddr(one); err == nil && ip.Is6() {
				one = "[" + one + "]"
			}
			one = "smtp://" + one
		}
		h, err := route.ParseNextHop(one)
		if err != nil {
			return nil, err
		}
		hops = append(hops, h)
	}
	if len(hops) == 0 {
		return nil, route.ErrNextHop
	}
	return hops, nil
}

// answer is the verdict's own reply if it is of def's class, or def with the
// verdict's text if it has one.
func answer(v hook.Verdict, def *reply.Reply) *reply.Reply {
	switch {
	case v.Reply != nil && v.Reply.Code/100 == def.Code/100:
		return v.Reply
	case v.Text != "":
		return reply.New(def.Code, def.Enhanced.String(), v.Text)
	}
	return def
}

// all is r for every recipient.
func (a *attempt) all(r *reply.Reply) []*reply.Reply {
	replies := make([]*reply.Reply, len(a.index))
	for i := range replies {
		replies[i] = r
	}
	return replies
}

// hook runs the handlers of p with an event about some recipients.
func (a *attempt) hook(ctx context.Context, p hook.Point, e hook.Event, recipients []int) hook.Verdict {
	c := a.o.o.Chain
	if c == nil || !c.Has(p) {
		return hook.Proceed()
	}
	o, id := a.o, a.unit.ID()
	d := &hook.Delivery{
		Envelope: a.env, Domain: a.unit.Domain(), Attempts: a.failures(p, e), Notes: a.notes, Content: a.content,
		MX: a.res.Tried, ForceTLS: a.force.Load(),
		Path: func() (string, error) { return o.o.Queue.Path(id) },
	}
	d.Recipients = make([]mail.Recipient, len(recipients))
	for n, i := range recipients {
		d.Recipients[n] = a.env.Recipients[i]
	}
	e.Point, e.Delivery = p, d.View()
	v := c.Run(ctx, p, &e)
	a.force.Store(d.ForceTLS)
	return v
}

// failures is Haraka's num_failures: it counts the deferral that hook deferred is
// about, and the one too many that hook bounce is about.
func (a *attempt) failures(p hook.Point, e hook.Event) int {
	if p == hook.OnDeferred || p == hook.OnBounce && len(e.Deferred) > 0 && !a.unit.Expired() {
		return a.deferrals()
	}
	return a.unit.Attempts()
}

// deferrals counts those of the delivery with the one of this attempt.
func (a *attempt) deferrals() int {
	if a.free {
		return a.unit.Attempts()
	}
	return a.unit.Attempts() + 1
}

// open returns the recipients that are not accounted for.
func (a *attempt) open() []int {
	var open []int
	for i, done := range a.accounted {
		if !done {
			open = append(open, i)
		}
	}
	return open
}

// keep leaves recipients in the schedule, as r says.
func (a *attempt) keep(recipients []int, r rest) {
	if len(recipients) == 0 {
		return
	}
	r.index = a.account(recipients)
	a.later = append(a.later, r)
}

// account marks recipients as accounted for and returns their indices.
func (a *attempt) account(recipients []int) []int {
	for _, i := range recipients {
		a.accounted[i] = true
	}
	return a.indices(recipients)
}

// indices returns recipients by their indices in the queue's envelope.
func (a *attempt) indices(recipients []int) []int {
	index := make([]int, len(recipients))
	for n, i := range recipients {
		index[n] = a.index[i]
	}
	return index
}

// settle records in the queue that recipients are done with. Where that is not
// possible now it is all that remains to be done for them.
func (a *attempt) settle(recipients []int) {
	index := a.account(recipients)
	if err := a.o.o.Queue.Settle(a.unit.ID(), index); err != nil && !unknown(err) {
		a.log("recipients are done with, but the queue cannot record it", zap.Ints("recipients", index), zap.Error(err))
		a.debts = append(a.debts, debt{a.unit.ID(), a.unit.Domain(), index, a.now().Add(localWait)})
	}
}

// vanished is for recipients of a message that somebody took out of the queue.
func (a *attempt) vanished(recipients []int) {
	a.account(recipients)
	a.o.o.Log.Warn("message is not in the queue any more", zap.String("uuid", string(a.unit.ID())))
}

func (a *attempt) now() time.Time { return a.o.o.Now() }

// log writes an error to the developers' log.
func (a *attempt) log(msg string, fields ...zap.Field) {
	a.o.o.Log.Error(msg, append(fields, zap.String("uuid", string(a.unit.ID())))...)
}
