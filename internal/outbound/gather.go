package outbound

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/mail"
)

// Bounds of what waits to be reported. Beyond them reports go out earlier, and
// are more; nothing goes unreported.
const (
	maxWaits    = 6       // as long as further recipients of a message fail
	maxTogether = 5000    // recipients in a report about several messages
	maxWaiting  = 100_000 // recipients in all
	maxSenders  = 10_000  // whose reports are counted
)

// loadWait is how long a report that fell due while no process ran waits at least
// for what else of its sender the queue has, which is loaded message by message.
const loadWait = 10 * time.Second

// gathering holds back reports of failures: for a moment those of a message of
// which more may fail, and those of a sender who has had many until the period is
// over. What it holds is recipients that the queue has marked as failed, see
// failure; they are settled when their report is durable, and found again after a
// restart. The zero gathering is empty. Outbound.mu guards it.
type gathering struct {
	messages map[mail.ID]*gathered // by message, which is the only one
	senders  map[string]*allowance
	due      dueHeap // all of it
	waiting  int     // recipients in all
}

// dueHeap has what is due first in front, see container/heap.
type dueHeap []*gathered

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].due.Before(h[j].due) }

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].at, h[j].at = i, j
}

// Push and Pop are for container/heap alone.
func (h *dueHeap) Push(r any) {
	r.(*gathered).at = len(*h)
	*h = append(*h, r.(*gathered))
}

func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	r := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return r
}

// allowance is what one sender got in the current period.
type allowance struct {
	began     time.Time
	reports   int
	collected *gathered // what goes beyond; nil: nothing
}

// gathered is a report in the making.
type gathered struct {
	at         int // in gathering.due
	sender     string
	due        time.Time // zero: now
	end        time.Time // due is never later; zero: it stays as it is
	recipients map[mail.ID][]int
	order      []mail.ID    // as they came; some may have been forgotten
	n          int          // recipients
	several    bool         // it may be about several messages
	stuck      bool         // it could not be made, or queued, when it was due
	open       map[int]bool // of the one message: recipients that may still fail; nil: not known
}

// admit reports whether a sender may get a report of its own now, which is
// counted; if not, until is when the period ends.
func (g *gathering) admit(now time.Time, sender string, rate conf.Rate) (ok bool, until time.Time) {
	if rate.Count == 0 {
		return true, now
	}
	s := g.senders[sender]
	if s != nil && !now.Before(s.began.Add(rate.Per)) {
		s.began, s.reports = now, 0
	}
	if s == nil {
		if len(g.senders) >= maxSenders {
			maps.DeleteFunc(g.senders, func(_ string, s *allowance) bool { return s.collected == nil && !now.Before(s.began.Add(rate.Per)) })
		}
		if len(g.senders) >= maxSenders {
			return true, now
		}
		s = &allowance{began: now}
		g.put(sender, s)
	}
	if s.reports < rate.Count {
		s.reports++
		return true, now
	}
	return false, s.began.Add(rate.Per)
}

func (g *gathering) put(sender string, s *allowance) {
	if g.senders == nil {
		g.senders = map[string]*allowance{}
	}
	g.senders[sender] = s
}

// hold keeps recipients of a message for a report at due, one about this message
// alone, unless they are collected. begun says that nothing of the sender was
// collected before.
func (g *gathering) hold(id mail.ID, sender string, recipients []int, due time.Time, collected bool, rate conf.Rate) (r *gathered, begun bool) {
	fresh := false
	if collected {
		s := g.senders[sender]
		if s == nil { // from before a restart
			s = &allowance{began: due.Add(-rate.Per), reports: rate.Count}
			g.put(sender, s)
		}
		if begun = s.collected == nil; begun {
			s.collected, fresh = &gathered{sender: sender, due: due, several: true, recipients: map[mail.ID][]int{}}, true
		}
		r = s.collected
	} else if r = g.messages[id]; r == nil {
		r, fresh = &gathered{sender: sender, due: due, recipients: map[mail.ID][]int{}}, true
		if g.messages == nil {
			g.messages = map[mail.ID]*gathered{}
		}
		g.messages[id] = r
	}
	if fresh {
		heap.Push(&g.due, r)
	} else if due.Before(r.due) {
		g.move(r, due)
	}
	if len(r.recipients[id]) == 0 {
		r.order = append(r.order, id)
	}
	r.recipients[id] = append(r.recipients[id], recipients...)
	r.n += len(recipients)
	g.waiting += len(recipients)
	if r.n >= maxTogether {
		g.move(r, time.Time{})
	}
	if g.waiting >= maxWaiting {
		for _, r := range g.due {
			r.due = time.Time{}
		}
	}
	return r, begun
}

// await has a report about one message wait until due, if that is later than it
// would have been, but never past the end that the first failure set. open are the
// recipients that may fail until then, as far as they were not known.
func (g *gathering) await(r *gathered, open map[int]bool, due, end time.Time) {
	if r.end.IsZero() {
		r.end = end
	}
	if r.open == nil {
		r.open = open
	}
	if due.After(r.end) {
		due = r.end
	}
	if !r.due.IsZero() && due.After(r.due) {
		g.move(r, due)
	}
}

// move makes a report due at another time; zero: now.
func (g *gathering) move(r *gathered, due time.Time) {
	r.due = due
	heap.Fix(&g.due, r.at)
}

// next returns when the first report is due.
func (g *gathering) next() (due time.Time, ok bool) {
	if len(g.due) == 0 {
		return due, false
	}
	return g.due[0].due, true
}

// decide notes that recipients of a message are delivered, or failed. When that
// leaves none that may fail at about the same time its report is due.
func (g *gathering) decide(id mail.ID, recipients []int) {
	r := g.messages[id]
	if r == nil || r.open == nil {
		return
	}
	for _, i := range recipients {
		delete(r.open, i)
	}
	if len(r.open) == 0 {
		g.move(r, time.Time{})
	}
}

// flush makes reports that could not be queued due now.
func (g *gathering) flush() {
	for _, r := range g.due {
		if r.stuck {
			r.due = time.Time{}
		}
	}
	heap.Init(&g.due)
}

// take returns the reports that are due, which are not gathered any more.
func (g *gathering) take(now time.Time) (due []*gathered) {
	for len(g.due) > 0 && !g.due[0].due.After(now) {
		r := heap.Pop(&g.due).(*gathered)
		if r.several {
			g.senders[r.sender].collected = nil
		} else {
			delete(g.messages, r.order[0])
		}
		g.waiting -= r.n
		due = append(due, r)
	}
	return due
}

// forget drops what waits of messages that are gone.
func (g *gathering) forget(gone func(mail.ID) bool) {
	for _, r := range g.due {
		for id, recipients := range r.recipients {
			if gone(id) {
				r.n -= len(recipients)
				g.waiting -= len(recipients)
				delete(r.recipients, id)
			}
		}
	}
}

// explain returns what of a message waits to be reported, by domain, and until
// when.
func (g *gathering) explain(p *mail.Pending) (all []Waiting) {
	for _, r := range g.due {
		list := r.recipients[p.ID]
		reason := "failed, its report waits for other recipients of the message"
		if r.several {
			reason = "failed, its report waits: the sender has had many, the next one is about all failures since"
		}
		for _, one := range p.Recipients {
			if !slices.Contains(list, one.Index) {
				continue
			}
			domain := one.Address.Host()
			i := slices.IndexFunc(all, func(w Waiting) bool { return w.Domain == domain && w.Reason == reason })
			if i < 0 {
				i = len(all)
				all = append(all, Waiting{Domain: domain, Attempts: one.Attempts, Next: r.due, Reason: reason})
			}
			all[i].Recipients = append(all[i].Recipients, one.Index)
		}
	}
	return all
}

// gather holds back the report about recipients of this attempt: until the others
// of the message are decided too, or with others of the sender. It returns false
// if they are to be reported now.
func (a *attempt) gather(recipients []int) bool {
	o, now := a.o, a.now()
	wait, rate := o.o.Config.DSNWait, o.o.Config.DSNRate
	sender := a.env.From.String()
	due, collected := now.Add(wait), false
	var open map[int]bool
	if wait > 0 && (len(a.whole) > len(a.index) || len(a.later) > 0) {
		open = a.undecided(due)
	}

	// Nothing else may fail soon: now, unless others of the message wait already.
	if len(open) == 0 {
		o.mu.Lock()
		joins, ok, until := o.gathering.messages[a.unit.ID()] != nil, true, now
		if !joins {
			ok, until = o.gathering.admit(now, sender, rate)
		}
		o.mu.Unlock()
		switch {
		case joins:
		case ok:
			return false
		default:
			due, collected = until, true
		}
	}

	// Only what the queue remembers may wait.
	if !a.mark(recipients, due, collected) {
		return false
	}
	o.mu.Lock()
	r, begun := o.gathering.hold(a.unit.ID(), sender, a.account(recipients), due, collected, rate)
	if !collected {
		o.gathering.await(r, open, due, now.Add(maxWaits*wait))
	}
	o.mu.Unlock()
	if begun {
		o.logCollecting(sender, due)
	}
	return true
}

// gatherFailed has what failed before a restart reported, and returns the
// recipients that are still to be attempted. The caller holds o.mu.
func (o *Outbound) gatherFailed(p *mail.Pending) []mail.PendingRecipient {
	open := p.Recipients
	for n, r := range p.Recipients {
		f, ok := failure{}, false
		if r.Last != "" {
			f, ok = parseFailure(r.Last)
		}
		switch {
		case ok:
			if len(open) == len(p.Recipients) {
				open = slices.Clone(p.Recipients[:n])
			}
			due := r.Next
			if soon := o.o.Now().Add(loadWait); f.collected && due.Before(soon) {
				due = soon
			}
			o.gathering.hold(p.ID, p.From.String(), []int{r.Index}, due, f.collected, o.o.Config.DSNRate)
		case len(open) < n:
			open = append(open, r)
		}
	}
	return open
}

// logCollecting says once in a period why a sender's reports are late.
func (o *Outbound) logCollecting(sender string, until time.Time) {
	o.o.Log.Info("a sender has had many reports of failures, further ones are collected into one", zap.String("sender", sender), zap.Time("until", until))
}

// undecided returns the recipients of the message, by their indices in the queue's
// envelope, that may fail before some time: neither delivered nor failed, nor put
// off for longer.
func (a *attempt) undecided(before time.Time) map[int]bool {
	p, _ := a.o.o.Queue.Find(a.unit.ID())
	open := map[int]bool{}
	for _, r := range p.Recipients {
		if _, failed := parseFailure(r.Last); !failed && !r.Held && !r.Next.After(before) {
			open[r.Index] = true
		}
	}
	for _, i := range a.decided() {
		delete(open, i)
	}
	return open
}

// decided returns this attempt's recipients, by their indices in the queue's
// envelope, without those that are due again at once.
func (a *attempt) decided() []int {
	now := a.now()
	return slices.DeleteFunc(slices.Clone(a.index), func(i int) bool {
		return slices.ContainsFunc(a.later, func(r rest) bool { return !r.next.After(now) && slices.Contains(r.index, i) })
	})
}

// mark has the queue remember that recipients failed, and why. Without that they
// cannot wait: it returns false.
func (a *attempt) mark(recipients []int, due time.Time, collected bool) bool {
	for _, same := range groups(recipients, a.res.Replies) {
		a.turnTo(same[0])
		f := failure{at: a.now(), reply: a.res.Replies[same[0]], host: a.remote(), collected: collected}
		index := a.indices(same)
		if err := a.o.o.Queue.Defer(a.unit.ID(), index, a.made(), due, f.String()); err != nil {
			if !unknown(err) {
				a.log("failure not recorded, it is reported at once", zap.Ints("recipients", index), zap.Error(err))
			}
			return false
		}
	}
	return true
}
