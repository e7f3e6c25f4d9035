package delivery

import (
	"context"
	"errors"
	"slices"
	"strings"

	"tarishi/internal/delivery/meaning"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/tlspolicy"
)

// course is where an attempt goes, and the peculiarities of queued mail (walk) and
// of the relay (passage).
type course interface {
	// visitPlaces has v visit the places to connect to, in order, until it has enough.
	visitPlaces(ctx context.Context, v visitor)
	target(c *place) pool.Target
	// answered is called when a server replied about the recipients, failed when it
	// did not.
	answered(c *place, sent smtpclient.Result)
	failed(c *place, err error)
	// complete reports whether all hosts have been asked: those that were not may have
	// what others lack.
	complete() bool
}

// visitor is an offer, or what comes before it.
type visitor interface {
	// visit reports whether another place is to be visited.
	visit(ctx context.Context, c *place) bool
}

// offer is one attempt on its way from place to place: the engine of relay and
// queue.
type offer struct {
	course
	sender  Sender
	env     *mail.Envelope
	content mail.Content
	trying  func(host string) // nil: none
	// onward: recipients that a host defers are offered to the next one. settled: what
	// the first server says that answers is the outcome, even that it closes.
	onward, settled bool
	configured      bool // the hosts are those of our configuration

	res      Result
	open     []int          // recipients to be offered next, by their place in the envelope; nil: all
	answers  []mail.NextHop // hosts that replied about recipients
	grey     map[int]int    // how many hosts have greylisted a recipient
	last     *reply.Reply   // of a place that did not reply about recipients
	tried    int            // places
	lacking  int            // those without the REQUIRETLS that is asked for
	finished bool           // no other place is to be tried
}

// offerAround goes through the places until every recipient has the reply that counts.
// Without any from a server it leaves res.Replies nil, and in o.last what became of
// the last place.
func (o *offer) offerAround(ctx context.Context) {
	o.visitPlaces(ctx, o)
	if o.res.Replies != nil { // what another host took in the end is no reason to slow down
		o.res.Throttled = o.res.Throttled || meaning.Throttled(o.res.Replies)
		return
	}
	o.res.Interrupted = ctx.Err() != nil
}

// visit implements visitor.
func (o *offer) visit(ctx context.Context, c *place) bool {
	if ctx.Err() != nil {
		return false
	}
	if !slices.Contains(o.answers, c.hop) { // else at another of its addresses
		o.offerAt(ctx, c)
	}
	return !o.finished && ctx.Err() == nil
}

// offerAt offers the open recipients at one place.
func (o *offer) offerAt(ctx context.Context, c *place) {
	o.tried++
	res := &o.res
	res.moveTo(c)
	if n := len(res.Tried); !o.settled && (n == 0 || res.Tried[n-1].String() != c.hop.String()) {
		res.Tried = append(res.Tried, c.hop)
	}
	if o.trying != nil {
		o.trying(res.Host)
	}

	// The message is the same for all places, but recipients that have their reply are left
	// out.
	env := o.env
	if o.open != nil {
		some := *env
		some.Recipients = make([]mail.Recipient, len(o.open))
		for n, i := range o.open {
			some.Recipients[n] = env.Recipients[i]
		}
		env = &some
	}

	sent, err := o.sender.Send(ctx, o.target(c), env, o.content)
	res.TLS, res.Authenticated, res.Reused, res.DSN = sent.TLS, sent.Authenticated, sent.Reused, sent.DSN
	if err != nil {
		o.noteFailure(c, err)
		return
	}
	res.Local = false
	res.locate(c, sent.Addr)
	res.PolicyGot = c.tls.Got(sent.Verified)
	o.answered(c, sent)

	// A server that only closes has said nothing about the recipients, which are
	// offered to the next one.
	replies := meaning.Classify(sent.Replies, len(env.Recipients))
	res.Throttled = res.Throttled || slices.ContainsFunc(replies, func(r *reply.Reply) bool { return r.Code == 421 })
	if meaning.Closing(replies) && !o.settled {
		o.last = replies[0]
		return
	}
	res.Reached = true
	res.Uncertain = res.Uncertain || slices.ContainsFunc(replies, meaning.MayHaveArrived)
	left := o.takeReplies(c, replies)
	o.finished = !left || !o.onward || c.hop.Backend
}

// takeReplies notes what a server replied about the open recipients, and reports whether
// there are some that another host may take. What a better host only deferred does
// not fail because a lesser one refuses it: back-ups that know less are common.
func (o *offer) takeReplies(c *place, replies []*reply.Reply) (left bool) {
	res := &o.res
	first := res.Replies == nil
	if first {
		res.Replies, res.by = replies, true
	}

	// Where this is the first place that answers its replies are taken as they are: that is
	// how nearly every message ends.
	var via *Via // of this place, if others have answered before
	took := slices.ContainsFunc(replies, (*reply.Reply).Positive)
	open := make([]int, 0, 8)
	for n, r := range replies {
		i := n
		if o.open != nil {
			i = o.open[n]
		}
		if !first && !r.Permanent() {
			if via == nil {
				here := res.Via
				via = &here
			}
			res.Replies[i], res.others[i] = r, via
		}

		// A host that greylists is passed by once; two that do agree, and then the message
		// waits.
		if greylists(r) {
			if o.grey == nil {
				o.grey = map[int]int{}
			}
			o.grey[i]++
		}
		// A recipient too many for one transaction goes to the same host in another.
		if r = res.Replies[i]; (r.Temporary() || r.Surplus()) && r.Cause == nil && o.grey[i] < 2 && !(took && r.Surplus()) {
			open = append(open, i)
		}
	}
	if len(open) == 0 {
		return false
	}
	o.open, o.answers = append([]int(nil), open...), append(o.answers, c.hop)
	return true
}

// judgeRequireTLS says what RFC 8689 makes of the attempt.
func (o *offer) judgeRequireTLS() tlspolicy.Verdict {
	res := &o.res
	if res.Interrupted || res.Uncertain {
		return tlspolicy.Stays
	}
	return tlspolicy.JudgeRequireTLS(o.env, tlspolicy.Outcome{
		Replies: res.Replies, Insecure: res.Obstacle == Insecure || res.Obstacle == LacksTLS,
		Lacking: o.tried > 0 && o.lacking == o.tried && o.complete(),
	})
}

// greylists reports whether a server puts a stranger off: there the next host is
// asked, which may have no such list, and then no other.
func greylists(r *reply.Reply) bool {
	if !r.Temporary() {
		return false
	}
	text := strings.ToLower(r.Text)
	return r.Code == 450 || strings.Contains(text, "greylist") || strings.Contains(text, "graylist") || strings.Contains(text, "grey list")
}

// noteFailure sees to a place that did not reply about recipients.
func (o *offer) noteFailure(c *place, err error) {
	res := &o.res
	o.last = meaning.Temporary(reply.From(err))

	// The last failure is the reply for all if no other place answers.
	var f *smtpclient.Failure
	known := errors.As(err, &f)
	addr := ""
	if known {
		addr = f.Addr
	}
	res.locate(c, addr)
	res.Obstacle, res.Said = obstacle(f)
	if tlspolicy.Lacks(f, o.configured) {
		o.lacking++
	}
	o.failed(c, err)

	// A fault of this host says nothing about the place. Another local address may
	// work where this one does not; an error of no connection is met everywhere.
	fault := meaning.OwnFault(f, c.hop.Bind)
	res.Local = (!known || fault != nil) && (o.tried == 1 || res.Local)
	if !known {
		o.finished = true
		return
	}
	if fault != nil {
		o.last = fault
		return
	}

	// What the failure tells about the destination, for the schedule.
	res.Reached = res.Reached || f.Stage >= smtpclient.StageReset || meaning.Unauthenticated(f) ||
		f.Stage == smtpclient.StageTLS && c.tls.TLS > smtpclient.TLSMay
	res.Throttled = res.Throttled || !f.Unreachable() && meaning.AsksForLess(f)

	// Some failures are met everywhere: the content cannot be read, or the message may have
	// been taken.
	switch {
	case meaning.Unreadable(f):
		o.finished = true
	case f.Uncertain:
		res.Uncertain, o.finished = true, true
		o.last = reply.New(451, "4.4.2", "Connection lost before the reply to the message, which may have been taken").Because(err)
		if res.Replies != nil {
			o.takeReplies(c, slices.Repeat([]*reply.Reply{o.last}, len(o.open)))
		}
	}
}
