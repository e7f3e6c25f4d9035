package delivery

import (
	"slices"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// tlsVerdict is what RFC 8689 makes of an attempt for a message with REQUIRETLS.
type tlsVerdict uint8

const (
	staysAsItIs  tlsVerdict = iota // nothing follows: a server took it, or may yet offer the extension
	goesWithout                    // section 5: it is no reason to lose a report, or to keep it back
	nowhereToday                   // section 4.2.1: every host lacks it, so the message fails
)

// judgeRequireTLS is the one place that decides about REQUIRETLS after an attempt,
// for relay and queue.
//
// Before that tlspolicy asks for a verified server in both roles, and smtpclient holds
// the message back from one that does not offer the extension.
func (o *offer) judgeRequireTLS() tlsVerdict {
	res := &o.res
	switch {
	case !o.env.RequireTLS || res.Interrupted || res.Uncertain:
		return staysAsItIs
	case o.env.From.IsNull() && isAboutTLS(res):
		return goesWithout
	case res.Replies == nil && o.tried > 0 && o.lacking == o.tried && o.complete():
		return nowhereToday
	}
	return staysAsItIs
}

// isAboutTLS reports whether TLS that cannot be had is all that kept a message back.
func isAboutTLS(res *Result) bool {
	if res.Replies == nil {
		return res.Obstacle == Insecure || res.Obstacle == LacksTLS
	}
	return !slices.ContainsFunc(res.Replies, func(r *reply.Reply) bool {
		switch r.Status() {
		case reply.Enhanced{4, 7, 5}, reply.Enhanced{4, 7, 10}, reply.Enhanced{4, 7, 30}, reply.Enhanced{5, 7, 30}:
			return false
		}
		return true
	})
}

// lacksRequireTLS reports whether a server cannot take a message as REQUIRETLS asks.
// One that offers no STARTTLS counts only where it is configured: of a host that
// the DNS names, anybody on the way can make us believe so.
func lacksRequireTLS(f *smtpclient.Failure, configured bool) bool {
	return f != nil && f.LacksTLS() && (configured || f.Stage == smtpclient.StageMail)
}
