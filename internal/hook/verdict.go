package hook

import "tarishi/internal/reply"

// ReplyOr returns the verdict's own reply if it is of def's class, or def with the
// verdict's text if it has one.
func (v Verdict) ReplyOr(def *reply.Reply) *reply.Reply {
	switch {
	case v.Reply != nil && v.Reply.Code/100 == def.Code/100:
		return v.Reply
	case v.Text != "":
		return reply.New(def.Code, def.Enhanced.String(), v.Text)
	}
	return def
}
