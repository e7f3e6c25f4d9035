// Package bounce is the plugin bounce: it looks at mail with the null sender, which has to
// be a report about mail that was sent from here. See README.md.
package bounce

import (
	"context"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
	"tarishi/internal/spf"
)

// Name is the plugin's name in config/plugins.
const Name = "bounce"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &checker{
		Settings: env.Settings.(*Settings), recorder: env.NewRecorder(Name, result.Format{}), now: time.Now,
		spf: &spf.Checker{Resolver: env.Resolver, Timeout: spfTime},
	}, nil
}

// checker is the plugin.
type checker struct {
	*Settings
	recorder *plugin.Recorder
	spf      *spf.Checker
	now      func() time.Time
}

// early is the priority of what other plugins build upon, or would take away.
const early = -5

// Register implements plugin.Plugin. The one thing that waits is bounded by originTime.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnMail, "check_null_sender", early, c.noteSender)
	h.On(hook.OnMail, "reject_all", 0, c.rejectAll)
	h.On(hook.OnRcptOK, "bad_rcpt", 0, c.checkRecipient)
	h.On(hook.OnData, "single_recipient", 0, c.countRecipients)
	h.On(hook.OnDataPost, "empty_return_path", early, c.checkReturnPath)
	h.On(hook.OnDataPost, "validate_bounce", 0, c.checkContent)
}

// isBounce reports whether an event is about a report that comes in.
func isBounce(e *hook.Event) bool { return e.Sender.IsNull() && !e.Tx.Relaying() }

// noteSender leaves in the results whether a message is a report.
func (c *checker) noteSender(_ context.Context, e *hook.Event) hook.Verdict {
	c.recorder.On(e.Tx.Results()).Set("isa", e.Sender.IsNull())
	return hook.Proceed()
}

// rejectAll refuses reports, where none are wanted.
func (c *checker) rejectAll(_ context.Context, e *hook.Event) hook.Verdict {
	if !c.Reject.AllBounces || !isBounce(e) {
		return hook.Proceed()
	}
	// The reply is permanent, so that the report is not tried again.
	record := c.recorder.On(e.Tx.Results())
	record.Fail("bounces_accepted")
	record.Msg("Bounces not accepted here")
	record.Log()
	return record.Refuse(hook.Answer(hook.Deny, "Bounces not accepted here"))
}

// checkRecipient refuses recipients that never send mail, so that nothing can be reported
// to them.
func (c *checker) checkRecipient(_ context.Context, e *hook.Event) hook.Verdict {
	if !c.Reject.BadRcpt || !isBounce(e) {
		return hook.Proceed()
	}
	record, address := c.recorder.On(e.Tx.Results()), e.Recipient.Address.String()
	if !c.BadRecipients[strings.ToLower(address)] {
		record.Pass("bad_rcpt")
		return hook.Proceed()
	}
	record.Fail("bad_rcpt")
	record.Msg("rcpt does not accept bounces")
	record.Log()
	return record.Refuse(hook.Answer(hook.Deny, address+" does not accept bounces"))
}

// countRecipients looks for reports to more than one recipient: a message has one sender.
func (c *checker) countRecipients(_ context.Context, e *hook.Event) hook.Verdict {
	if !c.Check.SingleRecipient || !isBounce(e) {
		return hook.Proceed()
	}
	record := c.recorder.On(e.Tx.Results())
	if e.Tx.RecipientCount() == 1 {
		record.Pass("single_recipient")
		return hook.Proceed()
	}
	record.Fail("single_recipient")
	record.Msg("too many recipients")
	if !c.Reject.SingleRecipient {
		return hook.Proceed()
	}
	record.Log()
	return record.Refuse(hook.Answer(hook.Deny, "this bounce message has too many recipients"))
}

// checkReturnPath looks for Return-Path in a report, where it can only be empty (RFC 3834
// section 4). It runs before the plugin headers, which takes the field away.
func (c *checker) checkReturnPath(_ context.Context, e *hook.Event) hook.Verdict {
	if !c.Check.EmptyReturnPath || !isBounce(e) {
		return hook.Proceed()
	}
	record := c.recorder.On(e.Tx.Results())
	// An empty path is what the field says of a report.
	if path := e.Tx.Header().Get("Return-Path"); path == "" || path == "<>" {
		record.Pass("empty_return_path")
		return hook.Proceed()
	}
	record.Fail("empty_return_path")
	record.Msg("bounce with non-empty Return-Path")
	if !c.Reject.EmptyReturnPath {
		return hook.Proceed()
	}
	record.Log()
	return record.Refuse(hook.Answer(hook.Deny, "bounce with non-empty Return-Path (RFC 3834)"))
}

// checkContent marks mail that goes out, and looks in reports for the mark, or else for
// a way that the mail can have come from here.
func (c *checker) checkContent(ctx context.Context, e *hook.Event) hook.Verdict {
	// What goes out is marked, what comes in is looked at: no message is both.
	if e.Tx.Relaying() && !e.Sender.IsNull() {
		c.mark(e)
		return hook.Proceed()
	}
	if !isBounce(e) || !c.Check.HashValidation && !c.Check.SPF {
		return hook.Proceed()
	}
	record := c.recorder.On(e.Tx.Results())
	defer record.Log()

	// Parts beyond the limits of a tree are not searched; those before are.
	root, err := e.Tx.Message().Root()
	if err != nil {
		record.Err(err.Error())
	}
	if root == nil {
		return hook.Proceed()
	}
	returned := excerpts(root)
	// A mark is proof enough; the way that a message has taken is a guess.
	valid := false
	if c.Check.HashValidation {
		var v hook.Verdict
		if valid, v = c.validate(e, record, returned); v.Code != 0 {
			return v
		}
	}
	if c.Check.SPF && !valid {
		return c.checkOrigin(ctx, e, record, returned)
	}
	return hook.Proceed()
}

// excerpt is a part of a report in which fields of the returned message may stand: the
// header section of a message that is enclosed, or text.
type excerpt struct {
	header *mail.Header
	lines  []string // of text
}

// How much of the text of a report is searched, in bytes.
const (
	mostText     = 128 << 10 // of one part
	mostExcerpts = 32
)

// excerpts returns the parts of a report, in their order.
func excerpts(root *message.Part) []excerpt {
	// Programs return the message as an enclosed one, as its header section, or as text.
	var all []excerpt
	var walk func(p *message.Part, enclosed bool)
	walk = func(p *message.Part, enclosed bool) {
		if len(all) >= mostExcerpts {
			return
		}
		if enclosed {
			all = append(all, excerpt{header: p.Header})
		}
		isMessage := strings.HasPrefix(p.Type, "message/")
		if len(p.Parts) == 0 && (isMessage || strings.HasPrefix(p.Type, "text/")) {
			if lines := readLines(p); len(lines) > 0 {
				all = append(all, excerpt{lines: lines})
			}
		}
		for _, child := range p.Parts {
			walk(child, isMessage)
		}
	}
	walk(root, false)
	return all
}

// values returns the values of the fields of a name, unfolded.
func (x excerpt) values(name string) []string {
	if x.header != nil {
		return x.header.All(name)
	}
	// In text a field may stand anywhere, but it begins its line.
	var all []string
	for i := 0; i < len(x.lines); i++ {
		field, value, found := strings.Cut(x.lines[i], ":")
		if !found || !strings.EqualFold(field, name) {
			continue
		}

		// All of the text may be folds of one field.
		first := i
		for i+1 < len(x.lines) && strings.HasPrefix(x.lines[i+1], " ") {
			i++
		}
		value += strings.Join(x.lines[first+1:i+1], "")
		all = append(all, strings.TrimSpace(value))
	}
	return all
}

// value returns the first value of a name in the form in which it is compared: decoded,
// with single blanks, for servers on the way fold lines anew.
func (x excerpt) value(name string) string {
	if all := x.values(name); len(all) > 0 {
		return normalize(all[0])
	}
	return ""
}

// normalize returns the value of a field in the form in which it is compared.
func normalize(value string) string {
	return strings.Join(strings.Fields(message.DecodeWords(value)), " ")
}
