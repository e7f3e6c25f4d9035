package forward

import (
	"cmp"
	"context"
	"slices"
	"time"

	"tarishi/internal/delivery"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// The replies when no backend answered.
var (
	errUnreached = reply.New(451, "4.4.1", "No backend can be reached, please try again later")
	errBusy      = reply.New(451, "4.4.5", "All connections to the backend are busy, please try again later")
	errInsecure  = reply.New(451, "4.7.5", "No secure connection to the backend, please try again later")
	errNoAuth    = reply.New(451, "4.7.0", "No authentication at the backend, please try again later")
	errUncertain = reply.New(451, "4.4.2", "Connection to the backend lost, please try again later")

	errRequireTLS = reply.New(550, "5.7.30", "REQUIRETLS support required, and no backend has it")
)

// unanswered is the reply about a message that no backend answered.
func unanswered(res *delivery.Result) *reply.Reply {
	switch res.Obstacle {
	case delivery.Busy:
		return errBusy
	case delivery.Insecure:
		return errInsecure
	case delivery.NoLogin:
		return errNoAuth
	case delivery.Lost:
		return errUncertain
	case delivery.LacksTLS:
		if res.Said != nil { // but other hosts may yet prove to have it
			return res.Said
		}
		return errRequireTLS
	case delivery.Closing:
		r := reply.New(450, "4.3.2", res.Said.Text)
		if res.Said.Enhanced[0] == 4 {
			r.Enhanced = res.Said.Enhanced
		}
		return r
	}
	return errUnreached
}

// relay sends the message in one transaction, or in one for each recipient, and
// returns what became of each.
func (f *Forwarder) relay(ctx context.Context, env *mail.Envelope, content mail.Content, r *route.Route, own delivery.Credentials, silent *successes) []hook.RecipientResult {
	if !r.OneMessagePerRcpt {
		results, _ := f.send(ctx, env, content, r, own, silent)
		return results
	}
	all := make([]hook.RecipientResult, 0, len(env.Recipients))
	for i := range env.Recipients {
		one := *env
		one.Recipients = env.Recipients[i : i+1 : i+1]
		results, reached := f.send(ctx, &one, content, r, own, silent)
		all = append(all, results...)
		if !reached { // nor will it be for the rest
			for _, rest := range env.Recipients[i+1:] {
				all = append(all, hook.RecipientResult{Recipient: rest, Reply: results[0].Reply})
			}
			break
		}
	}
	return all
}

// send has one transaction made and returns the reply for each recipient. reached
// is false when no host answered.
func (f *Forwarder) send(ctx context.Context, env *mail.Envelope, content mail.Content, r *route.Route, own delivery.Credentials, silent *successes) (results []hook.RecipientResult, reached bool) {
	began := time.Now()
	res := f.o.Relay.Attempt(ctx, delivery.RelayJob{Envelope: env, Content: content, Route: r, Own: own})
	line := res.Line(env, r.Name, time.Since(began), 1)
	if res.Replies == nil {
		why := unanswered(&res).Because(res.Cause)
		line.TLS = cmp.Or(line.TLS, "none")
		f.o.Mail.ForwardFailed(line, addresses(env.Recipients, nil), why.Code, why.Error())
		return answered(env.Recipients, slices.Repeat([]*reply.Reply{why}, len(env.Recipients)), ""), res.Uncertain
	}
	f.logReplies(env, line, res.Replies)
	results = answered(env.Recipients, res.Replies, res.Host)
	silent.add(&res, results)
	return results, true
}

// answered puts recipients, their replies and the host that gave them together.
func answered(recipients []mail.Recipient, replies []*reply.Reply, host string) []hook.RecipientResult {
	all := make([]hook.RecipientResult, len(recipients))
	for i, r := range recipients {
		all[i] = hook.RecipientResult{Recipient: r, Reply: replies[i], Host: host}
		if replies[i].Cause != nil { // not the server's words
			all[i].Host = ""
		}
	}
	return all
}

// logReplies writes one line for the recipients that were taken, and one each for
// those that were not for now and for good.
func (f *Forwarder) logReplies(env *mail.Envelope, line maillog.Delivery, replies []*reply.Reply) {
	for _, like := range []func(*reply.Reply) bool{(*reply.Reply).Positive, (*reply.Reply).Temporary, (*reply.Reply).Permanent} {
		n := slices.IndexFunc(replies, like)
		if n < 0 {
			continue
		}
		first, to := replies[n], addresses(env.Recipients, func(i int) bool { return like(replies[i]) })
		if first.Positive() {
			f.o.Mail.Forwarded(line, to, first.String())
		} else {
			f.o.Mail.ForwardFailed(line, to, first.Code, first.Error())
		}
	}
}

// addresses lists the recipients that keep selects; nil selects all.
func addresses(recipients []mail.Recipient, keep func(i int) bool) []string {
	list := make([]string, 0, len(recipients))
	for i, r := range recipients {
		if keep == nil || keep(i) {
			list = append(list, r.Address.String())
		}
	}
	return list
}
