package schedule

import (
	"math"
	"time"
)

// Limits are what a destination may be asked to bear, and how long its mail is
// kept. They are shared and must not change once they were passed on.
type Limits struct {
	// Attempts at a time lie between Low and High and begin at Start: one more
	// is dared after a success at the limit, half is left after a sign that it
	// was too much. 0 is no cap for High, 1 for Low, and High for Start.
	Low, High, Start int
	Rate             Rate

	Lifetime time.Duration // of a message, from its arrival; 0: it does not expire
	// Patience is the same while the destination is suspended, if it ends
	// earlier, from the message's arrival or the suspension's begin, whichever is
	// later; 0: none.
	Patience time.Duration
	// Warning is after how long Expire also hands out what is ready, has been due
	// for lastTry, and is neither marked nor from the null sender; 0: never.
	Warning time.Duration
	// Probes: the k-th probe of a suspended destination comes after half of the
	// k-th of these, so that a unit's own back-off is never longer than it would
	// be alone. The last holds for all that follow, and so does a quarter of an
	// hour. None: half a minute, doubled each time.
	Probes []time.Duration
}

// Rate is so many attempts in so much time; the zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

func (r Rate) interval() int64 {
	if r.Count <= 0 || r.Per <= 0 {
		return 0
	}
	return max(1, int64(r.Per)/int64(r.Count))
}

// slack is by how much attempts may come early: together as many as fall into
// one second.
func (r Rate) slack() int64 {
	i := r.interval()
	if i == 0 {
		return 0
	}
	return (max(1, int64(time.Second)/i) - 1) * i
}

const (
	firstProbe   = 30 * time.Second
	longestProbe = 15 * time.Minute
	// doubt is how many attempts in a row that reach nobody suspend a site of
	// which more are running.
	doubt = 10
)

// domain is one destination as the units name it, or what of it goes one way of
// its own; it belongs to a site.
type domain struct {
	name   string
	route  string // see Reroute
	site   *site  // nil: none is needed now
	limits *Limits
	lists  *[classes]domainList // nil: nothing is ready
	units  int32                // in any state
	ready  int32
	active int32 // running, in its site's count
	late   int32 // of them, without a place
	stale  bool  // oldest is too low
	oldest int64 // arrival of the oldest unit
	idle   int64 // when there was a unit last
	listed bool  // in Schedule.idle

	lastError string // the site's, while there is none
}

// key is the domain's name in Schedule.domains, and what it is shown as.
func (d *domain) key() string {
	if d.route == "" {
		return d.name
	}
	return d.name + " via " + d.route
}

// domainList is what is ready for a domain, and its place in its site's ring.
type domainList struct {
	list
	link   *domain // behind it in the ring
	before *domain
	queued bool
}

// site is what the domains that share their MX share: places, rate and
// suspension. A domain whose MX are not known has one of its own.
type site struct {
	name    string
	shared  bool // it is in Schedule.sites
	domains int32
	limits  *Limits
	rings   [classes]siteRing

	running int32
	limit   int32 // of running; between Low and High
	good    int32 // successes at the limit since it last moved
	settle  int32 // results that are older than the last cut of limit
	braked  bool  // limit was cut before: it grows slowly

	tat       int64 // when the rate's allowance is used up evenly
	fails     int32 // attempts in a row that reached nobody
	until     int64 // suspended: when the next probe is due; 0: it is not
	since     int64 // suspended
	probes    int32 // that failed
	probe     *Unit // that runs
	trusted   bool  // the last attempt was not in vain, nor too much
	leftOut   bool  // in Schedule.leftOut
	slow      bool  // the last attempt had no success within slowAfter
	queued    bool  // in Schedule.slowWait
	called    bool  // in Schedule.called: it is its turn
	late      int32 // running without a place
	pace      int32 // how long attempts that reach it take: milliseconds, at least 1; 0: not known
	alarm     int32 // place in Schedule.alarms, from 1; 0: none
	alarmAt   int64
	lastError string
}

// siteRing is the domains whose turn it is within a site, and the site's place
// in the ring of its class.
type siteRing struct {
	head, tail *domain
	link       *site
	queued     bool
}

func newSite(name string, l *Limits) *site {
	t := &site{name: name}
	t.obey(l)
	t.limit = t.start()
	return t
}

func (t *site) obey(l *Limits) {
	if t.limits == l {
		return
	}
	t.limits = l
	t.limit = min(max(t.limit, t.low()), t.high())
}

func (t *site) high() int32 {
	if t.limits.High <= 0 || t.limits.High > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(t.limits.High)
}

func (t *site) low() int32 { return min(max(1, int32(min(t.limits.Low, math.MaxInt32))), t.high()) }

func (t *site) start() int32 {
	if t.limits.Start <= 0 || t.limits.Start > math.MaxInt32 {
		return t.high()
	}
	return min(max(int32(t.limits.Start), t.low()), t.high())
}

// places is how many may run now: each failure in a row takes one away.
func (t *site) places() int32 {
	if t.fails > 0 {
		return max(t.limit-t.fails, min(2, t.limit))
	}
	return t.limit
}

// obstacle is why a site gets no place.
type obstacle uint8

const (
	open obstacle = iota
	full
	crowded // it has all that it may have of the places that are left
	rated
	suspended
	probed // a probe is running
	stuck  // attempts at it run without a place
	slowed // it is slow, and others are too
)

// blocked says what keeps the site's ready units, and until when if time alone
// ends it.
func (s *Schedule) blocked(t *site, now int64) (why obstacle, until int64) {
	switch {
	case t.until != 0 && t.probe != nil:
		return probed, 0
	case t.until > now:
		return suspended, t.until
	case t.until != 0: // the one place of a probe
	case t.running >= t.places():
		return full, 0
	case t.stuck():
		return stuck, 0
	case s.sharing && t.running > 0 && int(t.running) >= share*(s.left()-1) && !(t.trusted && s.alone(t)):
		return crowded, 0
	}
	switch {
	case t.slow && (!s.slowRoom() || !t.called && len(s.slowWait) > 0):
		return slowed, 0
	case t.steady() && t.running > 0 && s.left() <= s.o.Concurrency/4 && s.o.Outside > 0:
		return crowded, 0
	}
	if i := t.limits.Rate.interval(); i > 0 {
		if at := t.tat - t.limits.Rate.slack(); at > now {
			return rated, at
		}
	}
	return open, 0
}

// alone reports whether no other site is waiting for a place.
func (s *Schedule) alone(t *site) bool {
	for c := range classes {
		if h := s.rings[c].head; h != nil && (h != t || t.rings[c].link != nil) {
			return false
		}
	}
	return len(s.leftOut) == 0 || len(s.leftOut) == 1 && t.leftOut
}

// left is how many places are left for other mail than the null sender's.
func (s *Schedule) left() int {
	return s.o.Concurrency - s.reserve - (s.running - s.byClass[null])
}

// take notes that u, a unit of the site, has been handed out.
func (t *site) take(u *Unit, now int64) {
	t.running++
	u.dest.active++
	if u.state == displaced {
		u.state = running
	}
	if t.until != 0 {
		t.probe = u
	}
	if i := t.limits.Rate.interval(); i > 0 {
		t.tat = max(t.tat, now) + i
	}
}

// leave is the opposite, but for the rate. A unit without a place is counted as
// such elsewhere then.
func (s *Schedule) leave(t *site, u *Unit) (outside bool) {
	t.running--
	u.dest.active--
	if t.probe == u {
		t.probe = nil
	}
	outside = s.spans[u.index].outside
	if outside {
		t.late--
		u.dest.late--
	}
	return outside
}

// plain reports whether a new site of the same domain would be just the same.
func (t *site) plain(now int64) bool {
	return !t.shared && t.running == 0 && t.until == 0 && t.fails == 0 && t.tat <= now && t.limit == t.start() && !t.braked && !t.slow
}

// Outcome is what an attempt tells about its destination.
type Outcome struct {
	Reached   bool   // a server let us speak of the mail; false: there is none that does
	Throttled bool   // it said that this was too much, or did not answer in time
	Local     bool   // it failed on this host: only Err is to be noted
	Err       string // the last reply or error, unless all went well
}

// Change is what a report changes for a site.
type Change uint8

// The changes of a site.
const (
	Same Change = iota
	Suspended
	Resumed
)

// Report notes what became of a running unit's attempt. It comes before Done or
// Defer. An attempt that says nothing about the destination is not reported. It
// returns what that changes for which site, and when a suspended one is probed.
func (s *Schedule) Report(u *Unit, o Outcome, now time.Time) (site string, change Change, probe time.Time) {
	t := u.dest.site
	if !u.Running() || u.flags&(expired|late) != 0 {
		return "", Same, time.Time{}
	}
	was := t.until != 0
	s.report(t, u, o, now.UnixNano())
	switch is := t.until != 0; {
	case is && !was:
		return t.name, Suspended, time.Unix(0, t.until)
	case was && !is:
		return t.name, Resumed, time.Time{}
	}
	return t.name, Same, time.Time{}
}

func (s *Schedule) report(t *site, u *Unit, o Outcome, at int64) {
	if o.Err != "" {
		t.lastError = o.Err
	}
	s.spans[u.index].answered = true
	if o.Local {
		return
	}
	t.trusted = o.Reached && !o.Throttled
	s.learn(t, u, at)
	switch {
	case t.settle > 0:
		t.settle--
	case o.Throttled || !o.Reached:
		if t.limit > t.low() {
			t.limit = max(t.low(), min(t.limit, max(t.running, 1))/2)
			t.settle, t.good, t.braked = t.running-1, 0, true
		}
	case t.running >= t.limit && t.limit < t.high():
		if t.good++; !t.braked || t.good >= t.limit {
			t.limit++
			t.good = 0
		}
	}
	switch {
	case o.Reached:
		t.fails = 0
		if t.until != 0 {
			t.until, t.probes = 0, 0
			t.limit, t.good, t.settle, t.braked = min(t.start(), max(2, t.low())), 0, 0, false
		}
	case t.until == 0:
		if t.fails++; t.fails >= min(t.limit, doubt) || t.running == 1 {
			t.fails = 0
			s.suspend(t, at)
		}
	case t.probe == u:
		t.probes++
		s.suspend(t, at)
	}
	s.offer(t, at)
}

// Suspension is what is known of a domain whose site is suspended.
type Suspension struct {
	Until time.Time // the next probe
	Ready int       // units that wait for it
}

// Suspensions returns the suspended domains, by name. Of domains that go several
// ways it has those with all ways together, and the earliest probe.
func (s *Schedule) Suspensions(now time.Time) map[string]Suspension {
	all := map[string]Suspension{}
	for _, d := range s.domains {
		if d.site == nil || d.site.until <= now.UnixNano() {
			continue
		}
		old, there := all[d.name]
		v := Suspension{time.Unix(0, d.site.until), int(d.ready) + old.Ready}
		if there && old.Until.Before(v.Until) {
			v.Until = old.Until
		}
		all[d.name] = v
	}
	return all
}

// LastError returns what was last reported of a running unit's site; "": nothing.
func (s *Schedule) LastError(u *Unit) string {
	if u.dest.site == nil {
		return u.dest.lastError
	}
	return u.dest.site.lastError
}

// suspend sets when the site is probed next.
func (s *Schedule) suspend(t *site, now int64) {
	wait := firstProbe << min(t.probes, 16)
	if n := len(t.limits.Probes); n > 0 {
		wait = t.limits.Probes[min(int(t.probes), n-1)] / 2
	}
	wait = min(wait, longestProbe)
	if s.o.Random != nil { // a fifth more or less
		wait += time.Duration((s.o.Random()*2 - 1) / 5 * float64(wait))
	}
	if t.until == 0 {
		t.since = now
	}
	t.until = now + int64(max(wait, time.Millisecond))
	s.sweepAt = min(s.sweepAt, now) // some may be past their patience
}

// Locate says to which site a running unit's domain belongs: a name for those
// that share their MX, or "" for a site of its own, and the site's limits (nil:
// those that Options.Limits gave). All units of the domain follow. It returns
// false when that site has no place for the unit now, which then is ready again
// and does not belong to the caller any more.
func (s *Schedule) Locate(u *Unit, name string, l *Limits, now time.Time) bool {
	d, at := u.dest, now.UnixNano()
	if l == nil {
		l = d.limits
	}
	from := d.site
	to := from
	switch {
	case name == "" && from.shared:
		to = newSite(d.name, l)
	case name != "" && (!from.shared || from.name != name):
		if to = s.sites[name]; to == nil {
			to = newSite(name, l)
			to.shared = true
			s.sites[name] = to
		}
	}
	if d.ready > 0 && (d.limits != l || to != from) { // they may be given up earlier there
		s.sweepAt = min(s.sweepAt, at)
	}
	d.limits = l
	to.obey(l)
	if to == from && u.state != displaced && from.running <= from.places() {
		s.offer(to, at) // it may bear more now
		return true
	}
	outside := s.leave(from, u)
	s.unslow(u)
	if to != from {
		s.move(d, to)
		s.offer(from, at)
	}
	if why, _ := s.blocked(to, at); why != open {
		s.free(u)
		s.makeReady(u, at, true)
		s.offer(to, at)
		s.readmit(at)
		return false
	}
	to.take(u, at)
	if outside {
		to.late++
		d.late++
	}
	s.reslow(to, u, at)
	s.offer(to, at)
	return true
}

// Reroute says that a running unit goes another way than its domain: route names
// it, "" is the domain's. What goes one way to a domain is apart from all other
// mail for it: Locate and Report are about that alone.
func (s *Schedule) Reroute(u *Unit, route string, now time.Time) {
	old, at := u.dest, now.UnixNano()
	if old.route == route {
		return
	}
	to := &domain{name: old.name, route: route}
	if d := s.domains[to.key()]; d != nil {
		to = d
	} else {
		to.limits = s.limits(to.name)
		s.domains[to.key()] = to
	}
	to.settle()
	from := old.site
	outside := s.leave(from, u)
	s.offer(from, at)
	s.dismiss(u)
	to.admit(u)
	u.state = displaced
	to.active++
	to.site.running++
	if outside {
		to.late++
		to.site.late++
	}
}

// move makes d, of which one running unit is not counted any more, part of
// another site. The others that run come along: the site may have too many until
// each of them is located.
func (s *Schedule) move(d *domain, to *site) {
	from := d.site
	if from.probe != nil && from.probe.dest == d {
		from.probe = nil
	}
	if d.active > 0 {
		for _, u := range s.runs {
			if u.dest == d {
				u.state = displaced
			}
		}
	}
	for c := range classes {
		if d.lists != nil && d.lists[c].queued {
			from.rings[c].remove(d, c)
		}
	}
	from.running -= d.active
	to.running += d.active
	from.late -= d.late
	to.late += d.late
	s.leaveSite(d)
	d.site = to
	to.domains++
	for c := range classes {
		if d.lists != nil && d.lists[c].n > 0 {
			to.rings[c].push(d, c)
		}
	}
}

// leaveSite takes d out of its site's count; the last one forgets the site.
func (s *Schedule) leaveSite(d *domain) {
	t := d.site
	d.site = nil
	if t == nil {
		return
	}
	if t.domains--; t.domains > 0 {
		return
	}
	if t.shared {
		delete(s.sites, t.name)
	}
}

// offer gives a site its turns if it has something ready and a place for it, or
// an alarm for when it has.
func (s *Schedule) offer(t *site, now int64) {
	if !t.pending() {
		s.alarms.remove(t)
		return
	}
	why, until := s.blocked(t, now)
	switch {
	case why == open:
		s.alarms.remove(t)
		for c := range classes {
			if r := &t.rings[c]; r.head != nil && !r.queued {
				s.rings[c].push(t, c)
			}
		}
	case until > 0:
		s.alarms.set(t, until)
	default:
		s.alarms.remove(t)
		s.await(t, why, until)
	}
}

// await keeps a site that has something ready and no place until there may be
// one: the end of one of its own attempts offers it again in any case.
func (s *Schedule) await(t *site, why obstacle, until int64) {
	switch {
	case until > 0:
		s.alarms.set(t, until)
	case why == crowded:
		s.leaveOut(t)
	case why == slowed:
		s.queueSlow(t)
	}
}

// leaveOut keeps a crowded site until any unit ends.
func (s *Schedule) leaveOut(t *site) {
	if !t.leftOut {
		t.leftOut = true
		s.leftOut = append(s.leftOut, t)
	}
}

// readmit offers the crowded sites again. There are never more of them than
// running units.
func (s *Schedule) readmit(now int64) {
	all := s.leftOut
	s.leftOut = all[:0]
	for _, t := range all {
		t.leftOut = false
		s.offer(t, now)
	}
	clear(all[len(s.leftOut):])
}

func (t *site) pending() bool {
	return t.rings[fresh].head != nil || t.rings[retry].head != nil || t.rings[null].head != nil
}

func (r *siteRing) push(d *domain, c class) {
	l := &d.lists[c]
	if l.queued {
		return
	}
	l.queued, l.link, l.before = true, nil, r.tail
	if r.tail == nil {
		r.head = d
	} else {
		r.tail.lists[c].link = d
	}
	r.tail = d
}

func (r *siteRing) pop(c class) *domain {
	d := r.head
	r.remove(d, c)
	return d
}

// remove takes out a domain that is queued here.
func (r *siteRing) remove(d *domain, c class) {
	l := &d.lists[c]
	if l.before == nil {
		r.head = l.link
	} else {
		l.before.lists[c].link = l.link
	}
	if l.link == nil {
		r.tail = l.before
	} else {
		l.link.lists[c].before = l.before
	}
	l.link, l.before, l.queued = nil, nil, false
}

// ring is the sites whose turn it is, first come first served.
type ring struct{ head, tail *site }

func (r *ring) push(t *site, c class) {
	l := &t.rings[c]
	if l.queued {
		return
	}
	l.queued, l.link = true, nil
	if r.tail == nil {
		r.head = t
	} else {
		r.tail.rings[c].link = t
	}
	r.tail = t
}

func (r *ring) pop(c class) *site {
	t := r.head
	l := &t.rings[c]
	if r.head = l.link; r.head == nil {
		r.tail = nil
	}
	l.link, l.queued = nil, false
	return t
}

// alarms is the sites with something ready that only time keeps from running,
// the earliest first: a binary heap in which each knows its place.
type alarms []*site

func (a *alarms) set(t *site, at int64) {
	if t.alarm != 0 {
		if t.alarmAt == at {
			return
		}
		a.remove(t)
	}
	t.alarmAt = at
	*a = append(*a, t)
	a.up(len(*a) - 1)
}

func (a *alarms) remove(t *site) {
	if t.alarm == 0 {
		return
	}
	i, end := int(t.alarm-1), len(*a)-1
	t.alarm = 0
	last := (*a)[end]
	(*a)[end] = nil
	*a = (*a)[:end]
	if i < end {
		(*a)[i] = last
		last.alarm = int32(i + 1)
		a.down(i)
		a.up(int(last.alarm - 1))
	}
}

func (a alarms) up(i int) {
	for ; i > 0 && a[(i-1)/2].alarmAt > a[i].alarmAt; i = (i - 1) / 2 {
		a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
		a[i].alarm = int32(i + 1)
	}
	a[i].alarm = int32(i + 1)
}

func (a alarms) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(a) {
			break
		}
		if child+1 < len(a) && a[child+1].alarmAt < a[child].alarmAt {
			child++
		}
		if a[i].alarmAt <= a[child].alarmAt {
			break
		}
		a[i], a[child] = a[child], a[i]
		a[i].alarm = int32(i + 1)
		i = child
	}
	a[i].alarm = int32(i + 1)
}
