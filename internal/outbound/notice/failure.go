package notice

import (
	"errors"
	"strings"
	"time"

	"tarishi/internal/reply"
)

// Failure is why a recipient failed, as the queue has it until that is reported: in
// place of the reply that deferred it last.
type Failure struct {
	At        time.Time
	Reply     *reply.Reply // of class 4: deferred too often or for too long
	Host      string       // that was spoken to; "": none
	Collected bool         // to be reported with other messages of the sender
}

// failed is how it begins: no reply does.
const failed = "failed "

// errPrivate stands for a private cause, which is not kept.
var errPrivate = errors.New("a cause that was logged")

// String returns "failed TIME[, collected][, at HOST | , talking to HOST]: REPLY".
// A reply with a private cause is ours, not the host's.
func (f Failure) String() string {
	var b strings.Builder
	b.WriteString(failed + f.At.UTC().Format(time.RFC3339))
	if f.Collected {
		b.WriteString(", collected")
	}
	if f.Host != "" && !strings.ContainsAny(f.Host, " ,") {
		if f.Reply.Cause == nil {
			b.WriteString(", at " + f.Host)
		} else {
			b.WriteString(", talking to " + f.Host)
		}
	}
	b.WriteString(": " + reply.Clip(f.Reply.String()))
	return b.String()
}

// ParseFailure reads what String made.
func ParseFailure(s string) (f Failure, ok bool) {
	s, ok = strings.CutPrefix(s, failed)
	if !ok {
		return f, false
	}

	// A host has no colon and blank in it, while the reply may: the first one counts.
	head, text, ok := strings.Cut(s, ": ")
	if !ok {
		return f, false
	}
	f.Reply = ParseReply(text)
	for i, word := range strings.Split(head, ", ") {
		// Words that are not known come from a later version, and do no harm.
		var err error
		switch {
		case i == 0:
			f.At, err = time.Parse(time.RFC3339, word)
		case word == "collected":
			f.Collected = true
		case strings.HasPrefix(word, "at "):
			f.Host = word[len("at "):]
		case strings.HasPrefix(word, "talking to "):
			f.Host = word[len("talking to "):]
			if f.Reply != nil {
				f.Reply.Cause = errPrivate
			}
		}
		if err != nil {
			return f, false
		}
	}
	return f, f.Reply != nil
}

// ParseReply reads "550 5.1.1 text"; nil: it is no reply.
func ParseReply(s string) *reply.Reply {
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
