// Package verdict turns the verdicts of hooks into the replies that clients get.
package verdict

import (
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// Default is what a hook point refuses with when a handler does not say.
type Default struct {
	code     int
	enhanced string
	text     string
}

// NewDefault returns a Default with a reply code, an enhanced code and a text.
func NewDefault(code int, enhanced, text string) Default { return Default{code, enhanced, text} }

// Refusal makes the reply to a verdict that denies: the verdict's own, or the
// default of the point for a permanent or a temporary one.
func Refusal(v hook.Verdict, hard, soft Default) *reply.Reply {
	f := hard
	if v.Code == hook.DenySoft || v.Code == hook.DenySoftDisconnect {
		f = soft
	}
	r := reply.New(f.code, f.enhanced, f.text)
	if v.Text != "" {
		r.Text = v.Text

		// A text may bring its own enhanced code, as Haraka's DSN objects do.
		if status, rest, ok := strings.Cut(v.Text, " "); ok {
			if e, ok := reply.ParseEnhanced(status); ok {
				if e[0] == r.Code/100 {
					r.Enhanced = e
				}
				r.Text = rest
			}
		}
	}

	// A whole reply replaces all of it, but a refusal must not read like a success.
	if v.Reply != nil {
		own := *v.Reply
		if own.Text == "" {
			own.Text = r.Text
		}
		if own.Code/100 != 4 && own.Code/100 != 5 {
			own.Code, own.Enhanced = r.Code, r.Enhanced
		}
		r = &own
	}
	return r
}

// Assent makes the reply to a verdict that lets pass.
func Assent(v hook.Verdict, code int, enhanced, text string) *reply.Reply {
	// Only a positive reply can take the place of a positive one.
	r := reply.New(code, enhanced, text)
	if v.Text != "" {
		r.Text = v.Text
	}
	if v.Reply != nil && v.Reply.Positive() {
		own := *v.Reply
		if own.Text == "" {
			own.Text = r.Text
		}
		r = &own
	}
	return r
}
