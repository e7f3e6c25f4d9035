package forward

import (
	"fmt"
	"slices"
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
	"tarishi/internal/route"
)

// maxText bounds what a backend may make us say to a client, in bytes.
const maxText = 400

// refusal answers for a message that nobody took: with a deferral if there is
// any, since the client then keeps all recipients.
func refusal(by *route.Route, refused, deferred []hook.RecipientResult) hook.Verdict {
	if len(deferred) > 0 {
		return hook.Verdict{Code: hook.DenySoft, Reply: passedOn(by, deferred[0].Reply, 450, "4.0.0", "Message denied temporarily")}
	}
	return hook.Verdict{Code: hook.Deny, Reply: passedOn(by, refused[0].Reply, 550, "5.0.0", "Message denied")}
}

// passedOn is a backend's refusal as the client gets it: with the code 450 or
// 550 as in Haraka, or the backend's own, and its text on one line. Replies of
// our own keep their code. A 421 would announce that our connection to the
// client is closed.
func passedOn(by *route.Route, r *reply.Reply, code int, status, text string) *reply.Reply {
	if r.Cause != nil && r.Code == 451 || by.PassCodes && r.Code/100 == code/100 && r.Code != 421 {
		code = r.Code
	}
	out := reply.New(code, status, text).Because(r)
	if r.Enhanced[0] == code/100 {
		out.Enhanced = r.Enhanced
	}
	if t := oneLine(r.Text, " "); t != "" {
		out.Text = t
	}
	return out
}

// success is the backend's own text, with the recipients that it refused.
func success(r *reply.Reply, refused []hook.RecipientResult) hook.Verdict {
	out := reply.New(250, "2.0.0", "Message forwarded")
	if r.Enhanced[0] == 2 {
		out.Enhanced = r.Enhanced
	}
	if t := oneLine(r.Text, ", "); t != "" {
		out.Text = t
	}

	// The client's 250 is for all recipients, so the text says which of them the backend
	// refused; the sender gets a DSN too.
	if len(refused) > 0 {
		const most = 5
		var b strings.Builder
		b.WriteString(out.Text + "; refused:")
		for i, x := range refused[:min(len(refused), most)] {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, " %s %s", x.Recipient.Address.Path(), x.Reply.String()) // not its cause
		}
		if n := len(refused) - most; n > 0 {
			fmt.Fprintf(&b, " and %d more", n)
		}
		out.Text = oneLine(b.String(), " ")
	}
	return hook.Verdict{Code: hook.OK, Reply: out}
}

// oneLine joins the lines of a backend's text that are not empty, makes
// all but printable ASCII a question mark and cuts the end of a long
// text.
func oneLine(text, sep string) string {
	if len(text) > 4*maxText {
		text = text[:4*maxText]
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	lines = slices.DeleteFunc(lines, func(l string) bool { return l == "" })
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f {
			return '?'
		}
		return r
	}, strings.Join(lines, sep))
	if len(text) > maxText {
		text = text[:maxText-3] + "..."
	}
	return text
}
