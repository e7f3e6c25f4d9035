package tlspolicy

import (
	"slices"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Verdict is what RFC 8689 makes of an attempt for a message with REQUIRETLS.
type Verdict uint8

// The verdicts.
const (
	Stays   Verdict = iota // nothing follows: a server took it, or may yet offer the extension
	Without                // section 5: it is no reason to lose a report, or to keep it back
	Fails                  // section 4.2.1: every host lacks it
)

// Outcome is what became of a message in an attempt that was neither interrupted nor
// left in doubt.
type Outcome struct {
	Replies  []*reply.Reply // of a server, for each recipient; nil: none gave any
	Insecure bool           // without any, the last host was left for want of TLS, or of REQUIRETLS
	Lacking  bool           // every host was asked, and Lacks it
}

// JudgeRequireTLS is the one place that decides about REQUIRETLS after an attempt, for
// relay and queue. Before that Decide and OfRoute ask for a verified server, and
// smtpclient holds the message back from one that does not offer the extension.
func JudgeRequireTLS(env *mail.Envelope, o Outcome) Verdict {
	switch {
	case !env.RequireTLS:
		return Stays
	case env.From.IsNull() && (o.Replies == nil && o.Insecure || o.Replies != nil && !slices.ContainsFunc(o.Replies, notAboutTLS)):
		return Without
	case o.Replies == nil && o.Lacking:
		return Fails
	}
	return Stays
}

// notAboutTLS reports whether a reply has another reason than TLS that cannot be had.
func notAboutTLS(r *reply.Reply) bool {
	switch r.Status() {
	case reply.Enhanced{4, 7, 5}, reply.Enhanced{4, 7, 10}, reply.Enhanced{4, 7, 30}, reply.Enhanced{5, 7, 30}:
		return false
	}
	return true
}

// Lacks reports whether a server cannot take a message as REQUIRETLS asks; nil is not
// such a failure. A server that offers no STARTTLS counts only where it is configured: of
// a host that the DNS names, anybody on the way can make us believe so.
func Lacks(f *smtpclient.Failure, configured bool) bool {
	return f != nil && f.LacksTLS() && (configured || f.Stage == smtpclient.StageMail)
}
