package attempt

import (
	"fmt"

	"tarishi/internal/hook"
	"tarishi/internal/maillog"
)

// reason says in one line why a recipient was not served.
func (a *Attempt) reason(i int) string {
	r := a.res.Replies[i]
	if r.Permanent() || a.unit.Expired() {
		return r.Error()
	}

	// The last reply alone would not explain why the message came back.
	if _, ok := a.policy.Backoff.Interval(a.unit.Attempts() + 1); !ok && !a.free {
		return fmt.Sprintf("Too many failures (%s)", r.Error())
	}
	if a.policy.Backoff.Expired(a.env.Received, a.now()) {
		return fmt.Sprintf("Not delivered within %s (%s)", a.policy.Backoff.MaxLifetime, r.Error())
	}
	return r.Error()
}

func (a *Attempt) results(recipients []int) []hook.RecipientResult {
	all := make([]hook.RecipientResult, len(recipients))
	for n, i := range recipients {
		a.res.TurnTo(i)
		all[n] = hook.RecipientResult{Recipient: a.env.Recipients[i], Reply: a.res.Replies[i], Host: a.remote()}
	}
	return all
}

// attemptsMade counts the attempts with this one, unless the delivery was given up
// without.
func (a *Attempt) attemptsMade() int {
	if a.unit.Expired() {
		return a.unit.Attempts()
	}
	return a.unit.Attempts() + 1
}

// logLine has the fields of this attempt in the mail log.
func (a *Attempt) logLine(attempts int) maillog.Delivery {
	return maillog.Delivery{
		ID: string(a.env.ID), From: a.env.From.String(), Domain: a.unit.Domain(), Host: a.res.Host, IP: a.res.IP,
		Port: a.res.Port, Mode: a.res.Mode.String(), TLS: a.res.TLS, Policy: a.res.PolicyWanted, Verified: a.res.PolicyGot, Auth: a.res.Authenticated, Reused: a.res.Reused,
		Delay: a.now().Sub(a.env.Received), Attempts: attempts,
	}
}

func (a *Attempt) addresses(recipients []int) []string {
	all := make([]string, len(recipients))
	for n, i := range recipients {
		all[n] = a.env.Recipients[i].Address.String()
	}
	return all
}
