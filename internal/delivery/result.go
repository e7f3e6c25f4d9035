package delivery

import (
	"net"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// Result is what became of an attempt.
type Result struct {
	// Replies has one reply of class 2, 4 or 5 for each recipient. They may be
	// shared and must not be changed. It is nil when Interrupted, and after a Relay's
	// attempt that no server answered.
	Replies []*reply.Reply
	// Interrupted is set when ctx ended before the outcome was known.
	Interrupted bool
	// Uncertain is set when a server was sent the whole message and did not answer,
	// or not for all recipients in LMTP: it may have been taken.
	Uncertain bool

	// Via is the last place that was tried; empty if it never came to that.
	Via
	others []*Via // for each recipient where Replies is from; nil: Via, or nowhere
	by     bool   // Via has answered

	Tried []mail.NextHop // of a Delivery: every hop that was tried, each once

	// Obstacle is what kept the message from the last place, Said the reply of the
	// server there, if that was it. They mean something where Replies is nil.
	Obstacle Obstacle
	Said     *reply.Reply
	Cause    error // of a Relay's attempt: all that went wrong, for the log

	// Reached is set when a server let us as far as MAIL, or would have but for
	// the TLS policy or the credentials of this domain: the outcome says nothing
	// about other mail.
	// Without it all destinations of the Plan's Site share the trouble.
	// Throttled is set when a server asked for less: a 421, a 4yz greeting, 4yz
	// replies for everybody that are not about the mailboxes, or no reply in time.
	Reached, Throttled bool
	// Local is set when nothing failed but this host: it has no such outbound
	// address, or no socket. The outcome says nothing about the destination.
	Local bool
}

// Via is a place that was tried.
type Via struct {
	Host          string // the MX's name, or the path of a socket
	IP            string
	Port          int
	Mode          mail.Protocol
	TLS           string // "none", or version and cipher; "": not known
	Authenticated bool
	Reused        bool
	DSN           bool // the next hop has been told what NOTIFY asks for

	// PolicyWanted is the TLS policy there: "none", "may", "may-verify", "encrypt",
	// "verify", "dane" or "sts". When no address was tried, it is the policy that kept
	// us from a host, or "".
	// PolicyGot is what authenticated the server: "dane", "pkix" or "no"; "" when it
	// was not reached.
	PolicyWanted, PolicyGot string
}

// viaHop is a hop before any of its addresses is tried.
func viaHop(h *mail.NextHop) Via {
	if h.Path != "" {
		return Via{Host: h.Path, Mode: h.Protocol}
	}
	return Via{Host: h.Host, Port: h.TCPPort(), Mode: h.Protocol}
}

// Line is what the mail log says of an attempt that went there.
func (v *Via) Line(env *mail.Envelope, domain string, delay time.Duration, attempts int) maillog.Delivery {
	return maillog.Delivery{
		ID: string(env.ID), From: env.From.String(), Domain: domain,
		Host: v.Host, IP: v.IP, Port: v.Port, Mode: v.Mode.String(),
		TLS: v.TLS, Policy: v.PolicyWanted, Verified: v.PolicyGot, Auth: v.Authenticated, Reused: v.Reused,
		Delay: delay, Attempts: attempts,
	}
}

// From returns the place that the reply about recipient i came from; nil: that reply
// is our own. It is the same pointer for recipients of the same server.
func (res *Result) From(i int) *Via {
	switch {
	case res.others != nil:
		return res.others[i]
	case res.by:
		return &res.Via
	}
	return nil
}

// leave keeps where the replies so far are from, before another place is tried.
func (res *Result) leave() {
	if !res.by || res.others != nil {
		return
	}
	via := res.Via
	res.others = make([]*Via, len(res.Replies))
	for i := range res.others {
		res.others[i] = &via
	}
}

// moveTo notes which place is being tried.
func (res *Result) moveTo(c *place) {
	res.leave()
	res.Via = viaHop(&c.hop)
	res.PolicyWanted = c.tls.Wanted
}

// locate notes which of a host's addresses it was in the end: that of addr, if it has
// one, or else the first.
func (res *Result) locate(c *place, addr string) {
	if c.hop.Path != "" {
		return
	}
	if ip, _, err := net.SplitHostPort(addr); err == nil {
		res.IP = ip
	} else {
		res.IP = c.addrs[0].String()
	}
}

// Obstacle is why a place could not be given a message.
type Obstacle uint8

// The obstacles.
const (
	NoObstacle Obstacle = iota
	Unreached           // no connection, or one that is of no use now
	Busy                // no connection to spare
	Insecure            // no TLS as it is asked for
	NoLogin             // no authentication
	Closing             // the server said so by a 421 when it was to take the message
	LacksTLS            // no REQUIRETLS (RFC 8689), which the message asks for
	Lost                // no reply to the whole message
)

// obstacle says why a failure kept a message from a server, and what that said; nil
// stands for an error that is no Failure.
func obstacle(f *smtpclient.Failure) (Obstacle, *reply.Reply) {
	switch {
	case f == nil:
		return Unreached, nil
	case f.Uncertain:
		return Lost, nil
	case f.Stage == smtpclient.StageAuth:
		return NoLogin, nil
	case f.Stage == smtpclient.StageTLS:
		return Insecure, nil
	case f.Stage == smtpclient.StageConnect && f.Reply != nil:
		return Busy, nil
	case f.LacksTLS():
		return LacksTLS, f.Reply
	case f.Reply != nil && f.Reply.Code == 421 && f.Stage >= smtpclient.StageMail:
		return Closing, f.Reply
	}
	return Unreached, nil
}
