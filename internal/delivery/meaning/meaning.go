// Package meaning says what the replies and failures of a next hop mean for the message, for
// its recipients, and for the schedule. The next step is the
// decision of package delivery.
package meaning

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// errNoReply is for recipients about which a Sender said nothing.
var errNoReply = reply.New(451, "4.5.0", "Next hop gave no usable reply").Because(errors.New("no reply for the recipient"))

// Classify returns one reply of class 2, 4 or 5 for each of n recipients: the list
// that it is given, if that is as it should be.
func Classify(replies []*reply.Reply, n int) []*reply.Reply {
	if len(replies) == n && !slices.ContainsFunc(replies, func(r *reply.Reply) bool {
		return r == nil || !r.Positive() && !r.Temporary() && !r.Permanent()
	}) {
		return replies
	}
	all := make([]*reply.Reply, n)
	for i := range all {
		all[i] = errNoReply
		if i >= len(replies) || replies[i] == nil {
			continue
		}
		r := replies[i]
		if r.Positive() || r.Temporary() || r.Permanent() {
			all[i] = r
		} else {
			all[i] = errNoReply.Because(r)
		}
	}
	return all
}

// Closing reports whether the server only said that it is going away
// (RFC 5321 section 3.8): nothing about the message or a recipient.
func Closing(replies []*reply.Reply) bool {
	for _, r := range replies {
		if r.Code != 421 {
			return false
		}
	}
	return len(replies) > 0
}

// Temporary returns r if it is of class 4, else a reply of that class with its text.
func Temporary(r *reply.Reply) *reply.Reply {
	if r.Temporary() {
		return r
	}
	t := reply.Newf(451, "4.3.0", "Not delivered yet: %s", r.Text)
	if e := r.Enhanced; e != (reply.Enhanced{}) {
		t.Enhanced = reply.Enhanced{4, e[1], e[2]}
	}
	return t.Because(r)
}

// Throttled reports whether a server asks to be sent less: a 421, or nothing but
// 4yz replies, at least one of them not about its mailbox (RFC 3463 section
// 3.2 and 3.3: X.1.X and X.2.X).
func Throttled(replies []*reply.Reply) bool {
	if slices.ContainsFunc(replies, func(r *reply.Reply) bool { return r.Code == 421 }) {
		return true
	}
	system := false
	for _, r := range replies {
		switch {
		case !r.Temporary():
			return false
		case r.Enhanced == (reply.Enhanced{}): // 450 is the mailbox's (RFC 5321 section 4.2.3)
			system = system || r.Code != 450
		case r.Enhanced[1] != 1 && r.Enhanced[1] != 2:
			system = true
		}
	}
	return system
}

// OwnFault returns the reply for a connection from bind that failed on this host,
// not on the way; nil for all others.
func OwnFault(f *smtpclient.Failure, bind netip.Addr) *reply.Reply {
	if f == nil || f.Stage != smtpclient.StageConnect {
		return nil
	}
	var call *os.SyscallError
	if bind.IsValid() && errors.As(f.Err, &call) && call.Syscall == "bind" {
		return reply.Newf(451, "4.3.5", "Outbound address %s cannot be used: %v", bind, call.Err).Because(f)
	}
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(f.Err, e) {
			return reply.Newf(451, "4.3.0", "No socket for a connection: %v", e).Because(f)
		}
	}
	return nil
}

// Unauthenticated reports whether a server that is there does not take the
// credentials, or none at all.
func Unauthenticated(f *smtpclient.Failure) bool {
	if f.Stage != smtpclient.StageAuth {
		return false
	}
	if f.Reply == nil { // else the connection was lost
		return f.Deferral().Status() == reply.Enhanced{4, 7, 0}
	}
	return f.Reply.Code != 421
}

// AsksForLess reports whether a failure after the connection was made asks to be sent
// less: a 4yz reply that is the server's, or an answer that did not come in time.
func AsksForLess(f *smtpclient.Failure) bool {
	if f.Reply != nil {
		return f.Reply.Temporary() && f.Err == nil
	}
	var timeout net.Error
	return errors.Is(f.Err, os.ErrDeadlineExceeded) || errors.As(f.Err, &timeout) && timeout.Timeout()
}

// Unreadable reports whether the content, not the connection, was at fault.
func Unreadable(f *smtpclient.Failure) bool {
	return f.Stage == smtpclient.StageContent && f.Reply == nil && f.Deferral().Status() == reply.Enhanced{4, 3, 0}
}

// MayHaveArrived reports whether a reply is ours and says that the server gave none: the
// message was sent to its end, and the recipient may have it.
func MayHaveArrived(r *reply.Reply) bool {
	if r.Cause == nil {
		return false
	}
	var f *smtpclient.Failure
	return errors.As(r.Cause, &f) && f.Uncertain
}
