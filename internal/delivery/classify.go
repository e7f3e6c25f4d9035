package delivery

import "tarishi/internal/reply"

// errNoReply is for recipients of which a Sender said nothing.
var errNoReply = reply.New(451, "4.5.0", "Next hop gave no usable reply")

// classify returns one reply of class 2, 4 or 5 for each of n recipients.
func classify(replies []*reply.Reply, n int) []*reply.Reply {
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

// closing reports whether the server only said that it is going away
// (RFC 5321 section 3.8): nothing about the message or a recipient.
func closing(replies []*reply.Reply) bool {
	for _, r := range replies {
		if r.Code != 421 {
			return false
		}
	}
	return len(replies) > 0
}

// temporary returns r if it is of class 4, else what it says as such a reply.
func temporary(r *reply.Reply) *reply.Reply {
	if r.Temporary() {
		return r
	}
	t := reply.Newf(451, "4.3.0", "Not delivered yet: %s", r.Text)
	if e := r.Enhanced; e != (reply.Enhanced{}) {
		t.Enhanced = reply.Enhanced{4, e[1], e[2]}
	}
	return t.Because(r)
}
