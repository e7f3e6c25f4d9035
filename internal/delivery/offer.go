package delivery

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// offer is one attempt on its way from place to place.
type offer struct {
	*walk
	res *Result

	open     []int          // recipients to be offered next, by their place in the envelope
	answered []mail.NextHop // they replied about recipients
	grey     map[int]int    // how many hosts have greylisted a recipient

	last           *reply.Reply // of a place that did not reply about recipients
	tried, lacking int          // places, and those without the REQUIRETLS that is asked for
}

// try goes through the places until every recipient has the reply that counts.
// Without any from a server it returns the reply for all of them.
func (d *Delivery) try(ctx context.Context, j Job, p *Plan, res *Result) *reply.Reply {
	w := &walk{d: d, job: j, plan: p}
	w.bind, w.helo = d.source(j)
	o := &offer{walk: w, res: res, open: make([]int, len(j.Envelope.Recipients))}
	for i := range o.open {
		o.open[i] = i
	}
	for c := range w.places(ctx) {
		if ctx.Err() != nil {
			break
		}
		if slices.Contains(o.answered, c.hop) { // at another of its addresses
			continue
		}
		if done, final := o.at(ctx, c); done {
			if res.Replies == nil {
				return final
			}
			break
		}
	}
	res.Reached = res.Reached || w.refused != nil
	switch {
	case res.Replies != nil: // what another host took in the end is no reason to slow down
		res.Throttled = res.Throttled || throttled(res.Replies)
		return nil
	case o.last == nil:
		res.PolicyWanted = w.wanted
		return w.unusable()
	case o.lacking == o.tried && w.refused == nil && w.failed == nil && ctx.Err() == nil: // RFC 8689 section 4.2.1
		return reply.Newf(550, "5.7.30", "REQUIRETLS support required, and no MX of %s has it", j.Domain)
	}
	return o.last
}

// at offers the open recipients at one place. done: no other place is to be tried,
// and final is the reply for all recipients unless servers gave them theirs.
func (o *offer) at(ctx context.Context, c place) (done bool, final *reply.Reply) {
	o.tried++
	o.res.at(c)
	if o.job.Trying != nil {
		o.job.Trying(o.res.Host)
	}
	env := o.job.Envelope
	if len(o.open) < len(env.Recipients) {
		some := *env
		some.Recipients = make([]mail.Recipient, len(o.open))
		for n, i := range o.open {
			some.Recipients[n] = env.Recipients[i]
		}
		env = &some
	}
	sent, err := o.d.o.Sender.Send(ctx, o.d.target(o.job, c), env, o.job.Content)
	res := o.res
	res.TLS, res.Authenticated, res.Reused, res.DSN = sent.TLS, sent.Authenticated, sent.Reused, sent.DSN
	if err != nil {
		return o.failed(c, err)
	}
	res.Local = false
	res.from(sent.Addr)
	res.PolicyGot = c.security.got(sent)
	o.d.told(o.job, c, sent)
	replies := classify(sent.Replies, len(o.open))
	res.Throttled = res.Throttled || slices.ContainsFunc(replies, func(r *reply.Reply) bool { return r.Code == 421 })
	if closing(replies) {
		o.last = replies[0]
		return false, nil
	}
	res.Reached = true
	res.Uncertain = res.Uncertain || slices.ContainsFunc(replies, unanswered)
	o.take(c, replies)
	return len(o.open) == 0 || !o.d.o.NextAfterDeferral || c.hop.Backend, nil
}

// unanswered reports whether a reply is ours, to a recipient of a message whose
// end was sent and to which an LMTP server gave replies for others only.
func unanswered(r *reply.Reply) bool {
	var f *smtpclient.Failure
	return r.Cause != nil && errors.As(r.Cause, &f) && f.Uncertain
}

// take notes what a server replied about the open recipients; open are then those
// that another host may take. What a better host only deferred does not fail
// because a lesser one refuses it: back-ups that know less are common.
func (o *offer) take(c place, replies []*reply.Reply) {
	res, via := o.res, o.res.Via
	if res.Replies == nil {
		res.Replies, res.By = make([]*reply.Reply, len(o.open)), make([]*Via, len(o.open))
	}
	took := slices.ContainsFunc(replies, (*reply.Reply).Positive)
	var open []int
	for n, i := range o.open {
		r := replies[n]
		if res.Replies[i] == nil || !r.Permanent() {
			res.Replies[i], res.By[i] = r, &via
		}
		if greylists(r) {
			if o.grey == nil {
				o.grey = map[int]int{}
			}
			o.grey[i]++
		}
		// What is only too much for one transaction goes to the same host in another.
		if r = res.Replies[i]; (r.Temporary() || r.Surplus()) && r.Cause == nil && o.grey[i] < 2 && !(took && r.Surplus()) {
			open = append(open, i)
		}
	}
	o.open = open
	o.answered = append(o.answered, c.hop)
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

// failed sees to a place that did not reply about recipients; see at.
func (o *offer) failed(c place, err error) (done bool, final *reply.Reply) {
	d, res := o.d, o.res
	o.last = temporary(reply.From(err))
	if o.job.Envelope.RequireTLS && o.last.Status() == lacksRequireTLS {
		o.lacking++
	}
	var f *smtpclient.Failure
	known := errors.As(err, &f)
	if known {
		res.from(f.Addr)
	}
	d.log.Debug("next hop failed", zap.String("uuid", string(o.job.Envelope.ID)), zap.String("domain", o.job.Domain),
		zap.Stringer("hop", c.hop), zap.String("ip", res.IP), zap.String("policy", c.security.wanted), zap.Error(err))
	fault := ownFault(f, c.hop.Bind)
	res.Local = (!known || fault != nil) && (o.tried == 1 || res.Local)
	if !known {
		return true, o.last // a local problem: another address has it too
	}
	if fault != nil {
		o.last = fault
		return false, nil // with another local address, maybe
	}
	res.Reached = res.Reached || f.Stage >= smtpclient.StageReset || unauthenticated(f) ||
		f.Stage == smtpclient.StageTLS && c.security.policy > smtpclient.TLSMay
	res.Throttled = res.Throttled || !f.Unreachable() && slows(f)
	switch {
	case unreadable(f):
		return true, o.last
	case f.Uncertain:
		res.Uncertain = true
		o.last = reply.New(451, "4.4.2", "Connection lost before the reply to the message, which may have been taken").Because(err)
		if res.Replies != nil {
			o.take(c, slices.Repeat([]*reply.Reply{o.last}, len(o.open)))
		}
		return true, o.last
	}
	return false, nil
}

// at notes which place is being tried.
func (res *Result) at(c place) {
	res.Via = Via{Host: c.hop.Host, Mode: c.hop.Protocol, PolicyWanted: c.security.wanted}
	if c.hop.Path != "" {
		res.Host = c.hop.Path
	} else {
		res.IP, res.Port = c.addrs[0].String(), c.hop.TCPPort()
	}
	if n := len(res.Tried); n == 0 || res.Tried[n-1].String() != c.hop.String() {
		res.Tried = append(res.Tried, c.hop)
	}
}

// from notes which of a host's addresses it was in the end.
func (res *Result) from(addr string) {
	if a, err := netip.ParseAddrPort(addr); err == nil {
		res.IP = a.Addr().String()
	}
}
