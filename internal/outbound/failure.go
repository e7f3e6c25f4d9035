package outbound

import (
	"errors"
	"strings"
	"time"

	"tarishi/internal/reply"
)

// failure is why a recipient failed, as the queue has it between that and its
// report: in place of the reply that deferred it last.
type failure struct {
	at        time.Time
	reply     *reply.Reply // of class 4: deferred too often or for too long
	host      string       // that was spoken to; "": none
	collected bool         // to be reported with other messages of the sender
}

// failed is how it begins: no reply does.
const failed = "failed "

// errPrivate stands for a private cause, which is not kept.
var errPrivate = errors.New("a cause that was logged")

// String returns "failed TIME[, collected][, at HOST | , talking to HOST]: REPLY".
// A reply with a private cause is ours, not the host's.
func (f failure) String() string {
	var b strings.Builder
	b.WriteString(failed + f.at.UTC().Format(time.RFC3339))
	if f.collected {
		b.WriteString(", collected")
	}
	if f.host != "" && !strings.ContainsAny(f.host, " ,") {
		if f.reply.Cause == nil {
			b.WriteString(", at " + f.host)
		} else {
			b.WriteString(", talking to " + f.host)
		}
	}
	b.WriteString(": " + clip(f.reply.String()))
	return b.String()
}

// parseFailure reads what String made.
func parseFailure(s string) (f failure, ok bool) {
	s, ok = strings.CutPrefix(s, failed)
	if !ok {
		return f, false
	}
	head, text, ok := strings.Cut(s, ": ")
	if !ok {
		return f, false
	}
	f.reply = parseReply(text)
	for i, word := range strings.Split(head, ", ") {
		var err error
		switch {
		case i == 0:
			f.at, err = time.Parse(time.RFC3339, word)
		case word == "collected":
			f.collected = true
		case strings.HasPrefix(word, "at "):
			f.host = word[len("at "):]
		case strings.HasPrefix(word, "talking to "):
			f.host = word[len("talking to "):]
			if f.reply != nil {
				f.reply.Cause = errPrivate
			}
		}
		if err != nil {
			return f, false
		}
	}
	return f, f.reply != nil
}

// parseReply reads "550 5.1.1 text"; nil: it is no reply.
func parseReply(s string) *reply.Reply {
	code, text, _ := strings.Cut(s, " ")
	if len(code) != 3 || strings.Trim(code, "0123456789") != "" || code[0] != '4' && code[0] != '5' {
		return nil
	}
	r := &reply.Reply{Code: int(code[0]-'0')*100 + int(code[1]-'0')*10 + int(code[2]-'0'), Text: text}
	word, rest, _ := strings.Cut(text, " ")
	if e, ok := reply.ParseEnhanced(word); ok {
		r.Enhanced, r.Text = e, rest
	}
	return r
}
