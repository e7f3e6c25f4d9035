// Package dsn composes delivery status notifications: multipart/report
// messages (RFC 3464, RFC 6522) from the bounce templates.
//
// A report goes from the null reverse-path to the sender of the original, never
// to anybody else, and never to a null sender (ErrNullSender). Its header
// always has exactly one From, To, Subject, Date, Message-Id, Auto-Submitted
// and MIME-Version, whatever the template says. Nothing that a peer chose
// (reply text, subject, address, ENVID) can make a header field, a MIME
// boundary or markup: values lose their control characters and are capped,
// markup is escaped, boundaries are random and known not to occur.
//
// # Templates
//
// Lines up to the first one that is neither a header field nor a fold (usually
// an empty line) are the header, the rest is the text. {name} stands for a
// value: pid, date, me, from (the original sender), to (the first recipient of
// the report), msgid, recipients, subject, reason, extended_reason. A name that
// is unknown or has no value becomes "?". A value of several lines has each of
// them indented as the line of the template is. In a To field both {from} and
// {to} are the original sender, which gets the report; From, To, Date,
// Message-Id and Auto-Submitted are replaced if what results is not valid.
// MIME-Version, Content-*, Bcc and Return-Path of a template are dropped. Custom
// templates tell of failures, so reports without a failed recipient use built-in
// ones. Recipients with another result in the same report are listed below the
// text of the template, and the report is in plain text then.
//
// # Fields
//
// Status always has the class that Action asks for (RFC 3464 section 2.3.4).
// Diagnostic-Code has the type smtp if the remote MTA said it, and X-Tarishi if
// we did: without a remote MTA, or if the reply has a private cause. A reply of
// several lines is one line there; a report has at most some 64 KiB of them.
//
// # Returned content
//
// RET=FULL, or Report.Full without RET, returns the whole message in a report of a
// failure if it has at most 1 MiB and was not sent with REQUIRETLS. What not every
// mail system carries (8-bit data, NUL, lines of more than 998 octets) is encoded
// in its leaves; a message where that cannot be done, or would break a signature,
// is not returned as a whole. Everything else returns at most 64 KiB of the header
// section. If that is less than was asked for, the text says why.
//
// # Several messages
//
// A report about failures of several messages of one sender, with recipients that have
// an Of, has another text that lists them by message, and says with each
// recipient's fields which message it was. Nothing is returned with it. Original
// then has the sender, and RequireTLS if one of the messages has it.
//
// # Non-ASCII
//
// A report needs SMTPUTF8 only if the address of the original sender does; it
// then uses the message/global types and utf-8 addresses of RFC 6533. All other
// reports are such that any mail system can carry them: text is encoded, and
// non-ASCII addresses are written as \x{...} (RFC 6533 section 3).
package dsn

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tarishi/internal/dsn/entity"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// The actions of RFC 3464 section 2.3.3.
const (
	Failed    = "failed"
	Delayed   = "delayed"
	Delivered = "delivered"
	Relayed   = "relayed"
	Expanded  = "expanded"
)

// ErrNullSender says that the original has the null reverse-path: nobody may be
// told.
var ErrNullSender = errors.New("dsn: the original sender is null")

// Report is what a DSN tells.
type Report struct {
	ID              mail.ID        // of the report itself
	Me              string         // our host name
	PID             int            // for {pid}
	Date            time.Time      // of the report
	Original        *mail.Envelope // of the message that the report is about
	OriginalContent mail.Content   // nil: nothing is returned
	Recipients      []Recipient    // that it is about; at least one
	Full            bool           // without RET a failure returns the whole message
}

// Recipient is one recipient of the original and what became of it.
type Recipient struct {
	mail.Recipient
	Action      string       // Failed, …; "" is Failed
	Reply       *reply.Reply // what decided; nil: unknown
	RemoteMTA   string       // host name or IP address that replied; "": none
	Expired     bool         // failed because the lifetime of the message is over
	LastAttempt time.Time    // zero: not told
	RetryUntil  time.Time    // with Delayed: when it will be given up; zero: not told
	Of          *Message     // in a report about several messages: which one it is; nil: Report.Original
}

// Templates are the lines of config/outbound.bounce_message, _html and _image,
// without line ends. No Message means the built-in one; no HTML, a report in
// plain text. Image is a whole MIME part: header lines, an empty line, the
// encoded body; it is used with HTML only, and left out if it is not ASCII or
// has no Content-Type.
type Templates struct{ Message, HTML, Image []string }

// Wanted reports whether the sender of r wants to be told of an action: failures
// and delays by default, anything if NOTIFY asks for it, nothing with
// NOTIFY=NEVER (RFC 3461 section 4.1). Whether delays are reported at all is the
// caller's choice.
func Wanted(r mail.Recipient, action string) bool {
	if r.Notify&mail.NotifyNever != 0 {
		return false
	}
	switch action {
	case Failed:
		return r.WantsFailure()
	case Delayed:
		return r.Notify == 0 || r.Notify&mail.NotifyDelay != 0
	}
	return r.Notify&mail.NotifySuccess != 0
}

// Compose makes the message and its envelope: null reverse-path, the original
// sender as the only recipient (with NOTIFY=NEVER, RFC 3461 section 6.1), r.ID
// and r.Date. The content is in memory. Errors are ErrNullSender, a Report that
// is incomplete, and what reading OriginalContent gave, which is temporary.
func Compose(r Report, t Templates) (*mail.Envelope, mail.Content, error) {
	if err := r.checkComplete(); err != nil {
		return nil, nil, err
	}

	// The original comes first: its header gives the templates their subject, and its size decides
	// what the text has to explain.
	c := newComposer(&r)
	returned, err := c.returnedPart()
	if err != nil {
		return nil, nil, fmt.Errorf("dsn: original content: %w", err)
	}
	if c.aboutSeveral() {
		t = Templates{}
	}

	// The order of the parts is fixed by RFC 3464: what people read, what programs read, and then
	// the original.
	fields, text := c.fillTemplate(t)
	parts := []entity.Part{c.explanationPart(t, text), c.statusPart()}
	if returned != nil {
		parts = append(parts, *returned)
	}
	report := entity.Multipart("report", "report-type=delivery-status", preamble, parts)

	// The outer header is written last, since only the finished parts tell whether they hold 8-bit
	// data.
	var head bytes.Buffer
	for _, f := range c.completeHeader(fields) {
		head.WriteString(entity.Fold(f.name, f.value))
	}
	head.WriteString("MIME-Version: 1.0\r\n")
	head.WriteString(report.Head)
	head.WriteString("\r\n")
	content := append(mail.Memory{head.Bytes()}, report.Body...)

	// The null reverse-path and NOTIFY=NEVER keep a report that fails from causing another one.
	env := &mail.Envelope{
		ID:          r.ID,
		Recipients:  []mail.Recipient{{Address: r.Original.From, Notify: mail.NotifyNever}},
		Received:    r.Date,
		UTF8:        c.utf8,
		RequireTLS:  r.Original.RequireTLS, // RFC 8689 section 5
		TLSOptional: r.Original.TLSOptional,
	}
	if c.utf8 || report.EightBit {
		env.Body = "8BITMIME"
	}
	return env, content, nil
}

// checkComplete returns ErrNullSender, or an error for a Report that the caller has not
// filled in: such a one is refused before anything is read.
func (r *Report) checkComplete() error {
	switch {
	case r.Original == nil || len(r.Recipients) == 0:
		return errors.New("dsn: no original or no recipient")
	case r.Original.From.IsNull():
		return ErrNullSender
	case !r.ID.Valid():
		return fmt.Errorf("dsn: invalid id %q", r.ID)
	}
	for _, rcpt := range r.Recipients {
		switch rcpt.Action {
		case "", Failed, Delayed, Delivered, Relayed, Expanded:
		default:
			return fmt.Errorf("dsn: unknown action %q", rcpt.Action)
		}
	}
	return nil
}

const preamble = "This is a delivery report in MIME format (RFC 3464).\r\n"

// composer is a report in the making.
type composer struct {
	*Report
	me       string       // Report.Me, fit for every place
	utf8     bool         // the report goes out as SMTPUTF8
	sender   string       // original sender as it may stand in the header
	lead     string       // the first of actions that some recipient has
	original *mail.Header // of the original, as far as it was read; never nil
	section  []byte       // its bytes, whole lines
	date     string       // RFC 5322
	msgid    string       // with angle brackets
	subject  string       // of the original, decoded; "": it has none
	// headerOnly is why the original is not returned as a whole although that was
	// asked for; "": it is, or was not.
	headerOnly string
	values     map[string]value
}

// value is what a template variable stands for: one element per line.
type value []string

func newComposer(r *Report) *composer {
	c := &composer{
		Report:   r,
		me:       hostName(r.Me),
		original: &mail.Header{},
		date:     rfc5322Date(r.Date),
	}
	c.msgid = "<" + string(r.ID) + "@" + c.me + ">"

	// Only the address of the original sender makes a report need SMTPUTF8: without it, every other
	// value has an ASCII form.
	_, ascii := r.Original.From.ASCII()
	c.utf8 = !ascii
	from, _ := cleanAddress(r.Original.From).ASCII()
	if from.Domain == "" {
		from.Domain = c.me // the bare postmaster
	}
	c.sender = cleanLine(from.Path(), maxAddress)

	// The gravest result gives the report its subject and text, so that a failure is never hidden
	// below a success.
	for _, action := range actions {
		if c.hasAction(action) {
			c.lead = action
			break
		}
	}
	return c
}

// hasAction reports whether some recipient has the action.
func (c *composer) hasAction(action string) bool {
	return slices.ContainsFunc(c.Recipients, func(r Recipient) bool { return r.action() == action })
}

func (r *Recipient) action() string {
	if r.Action == "" {
		return Failed
	}
	return r.Action
}

// status returns the class and detail for the Status field: the class always
// agrees with the action (RFC 3464 section 2.3.4).
func (r *Recipient) status() reply.Enhanced {
	var s reply.Enhanced
	if r.Reply != nil {
		s = r.Reply.Status()
	}

	// A lifetime that is over says more than the deferral that happened to be the last one (RFC
	// 3463 section 3.5).
	if r.Expired {
		s[1], s[2] = 4, 7
	}
	switch r.action() {
	case Failed:
		s[0] = 5
	case Delayed:
		s[0] = 4
	default:
		s[0] = 2
	}

	// A peer can send any digits. RFC 3463 allows three of them.
	for i := range s {
		s[i] = min(max(s[i], 0), 999)
	}
	return s
}

// hostName returns name if it can stand as a domain wherever one is asked for,
// or "localhost".
func hostName(name string) string {
	name = mail.CanonicalDomain(strings.TrimSpace(name))

	// The name ends up in a domain, a Message-Id and a Reporting-MTA field. One that is unfit for
	// any of them would make the whole report invalid.
	if name == "" || len(name) > 253 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" ||
		strings.Contains(name, "..") || name[0] == '.' {
		return "localhost"
	}
	return name
}

func rfc5322Date(t time.Time) string { return t.Format("Mon, 02 Jan 2006 15:04:05 -0700") }
