// Package submit puts messages into the queue that this server makes itself:
// submissions of plugins, completed and shown to them as any message that is about
// to leave, and what plugins add to DSNs. Both are signed behind that. A submission that is accepted is durable;
// anything else is a reply, as a client would get it.
package submit

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/store"
)

// Chain runs hooks; *hook.Chain does.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
}

// Seal signs messages. Its fields are put in front of a message, whose other bytes are
// final; none: it is not signed. An error is temporary.
type Seal interface {
	Seal(ctx context.Context, m hook.Outgoing) (fields []byte, err error)
}

// Options are what a Submitter works with.
type Options struct {
	Me             string
	ReceivedHeader string // text of the Received field, see mail.Header.Complete
	NewBody        func() store.Body
	Put            func(env *mail.Envelope, c mail.Content) error // makes a message durable
	Enqueue        func(mail.Pending)                             // sees to the delivery of one that is
	Chain          Chain                                          // nil: no hooks
	Seal           Seal                                           // nil: nothing is signed
	Mail           *maillog.Log
	Log            *zap.Logger
	Now            func() time.Time
}

// Submitter queues messages of this server. Its methods may be called from any
// goroutine.
type Submitter struct{ o Options }

// New returns a Submitter.
func New(o Options) *Submitter { return &Submitter{o: o} }

// maxHeader is how many bytes the header section of a submission may have: it
// is in memory while plugins look at it.
const maxHeader = 1 << 20

// Submit queues a message that this server makes itself, see hook.Submission,
// and sees to its delivery. It returns the message's ID when it is durable. The
// error is a *reply.Reply: of class 5 if the message would never be taken, else
// of class 4; nothing is in the queue then. Memory does not grow with the
// contents. A ctx that ends before the message is queued ends the Submit.
func (s *Submitter) Submit(ctx context.Context, m hook.Submission) (mail.ID, error) {
	t, refusal := s.transaction(m)
	if refusal != nil {
		return "", refusal
	}
	if m.Contents == nil {
		return "", reply.New(554, "5.6.0", "No contents for email")
	}

	// The content goes where that of clients goes: into memory, or a file if it is large.
	defer t.Discard()
	body := s.o.NewBody()
	defer body.Discard()
	lines := &canon{w: body, stuffed: m.DotStuffed}
	err := lines.copyLines(ctx, m.Contents)
	if err == nil {
		t.Content, err = body.Content()
	}
	if err == nil {
		err = readHeader(t)
	}
	if err != nil {
		return "", s.refuse(t, err)
	}
	if lines.eightBit {
		t.Body = "8BITMIME"
	}

	// From here on it is a message as any other, and plugins see it as such.
	t.Size = t.Content.Size()
	if m.RemoveMessageID {
		t.Header.Remove("Message-Id")
	}
	if m.RemoveDate {
		t.Header.Remove("Date")
	}
	t.Header.Complete(t.ID, s.o.Me, s.o.ReceivedHeader, t.Received)
	if c := s.o.Chain; c != nil {
		c.Run(ctx, hook.OnPreSendTransEmail, &hook.Event{Point: hook.OnPreSendTransEmail, Tx: t.View()})
	}
	if err := ctx.Err(); err != nil {
		return "", s.refuse(t, err)
	}

	// The signature is the last change, and covers all before.
	t.Freeze()
	content, err := s.seal(ctx, t)
	if err != nil {
		return "", s.refuse(t, err)
	}

	// Durable first, then in the log, then in the schedule.
	if err := s.o.Put(&t.Envelope, content); err != nil {
		return "", s.refuse(t, err)
	}
	s.o.Mail.Queued(string(t.ID), t.From.String(), len(t.Recipients), content.Size())
	s.o.Enqueue(mail.NewPending(&t.Envelope, content.Size()))
	return t.ID, nil
}

// bodies lends plugins memory or a file for a message that they rewrite.
type bodies func() store.Body

// NewBody implements hook.Lender.
func (b bodies) NewBody() hook.Body { return b() }

// refuse turns what went wrong into the answer of Submit.
func (s *Submitter) refuse(t *hook.Transaction, err error) error {
	var r *reply.Reply
	if !errors.As(err, &r) {
		r = reply.New(451, "4.3.0", "Message cannot be queued").Because(err)
	}
	s.o.Log.Warn("submission refused", zap.String("uuid", string(t.ID)), zap.String("from", t.From.String()), zap.Error(r))
	return r
}

// transaction makes the envelope of a submission.
func (s *Submitter) transaction(m hook.Submission) (*hook.Transaction, *reply.Reply) {
	// To plugins it looks like the transaction of a client that may relay.
	t := &hook.Transaction{Relaying: true, Results: new(result.Store), Bodies: bodies(s.o.NewBody)}
	t.ID = mail.NewID(mail.NewConnectionID(), 1)
	t.Received, t.Origin = s.o.Now(), m.Origin
	if t.Notes = m.Notes.Clone(); t.Notes == nil {
		t.Notes = mail.Notes{}
	}
	if _, err := json.Marshal(t.Notes); err != nil {
		return nil, reply.New(554, "5.3.0", "Notes cannot be kept").Because(err)
	}

	// A malformed address will never become a good one: these refusals are for good.
	from, err := mail.ParseAddress(m.From)
	if err != nil {
		return nil, reply.Newf(553, "5.1.7", "Malformed from: %s", reply.Clip(m.From)).Because(err)
	}
	t.From, t.UTF8 = from, from.IsUTF8()

	// A recipient that is named twice gets one copy.
	for _, one := range m.To {
		to, err := mail.ParseAddress(one)
		if err == nil && to.IsNull() {
			err = mail.ErrAddress
		}
		if err != nil {
			return nil, reply.Newf(553, "5.1.3", "Malformed to: %s", reply.Clip(one)).Because(err)
		}
		if slices.ContainsFunc(t.Recipients, func(r mail.Recipient) bool { return r.Address == to }) {
			continue
		}
		t.UTF8 = t.UTF8 || to.IsUTF8()
		t.Recipients = append(t.Recipients, mail.Recipient{Address: to})
	}
	if len(t.Recipients) == 0 {
		return nil, reply.New(554, "5.5.1", "No recipients for email")
	}
	return t, nil
}

// seal returns the message of a transaction as it leaves.
func (s *Submitter) seal(ctx context.Context, t *hook.Transaction) (mail.Content, error) {
	m := t.View().Outgoing()
	if s.o.Seal == nil {
		return m.Content(), nil
	}
	fields, err := s.o.Seal.Seal(ctx, m)
	return m.With(fields), err
}

// Finish returns a DSN as it leaves: with the header fields that plugins gave it, and
// signed. Nothing else of it is theirs to change. An error is temporary.
func (s *Submitter) Finish(ctx context.Context, env *mail.Envelope, c mail.Content) (mail.Content, error) {
	hooks := s.o.Chain != nil && s.o.Chain.Has(hook.OnPreSendTransEmail)
	if !hooks && s.o.Seal == nil {
		return c, nil
	}
	t := &hook.Transaction{Envelope: *env, Relaying: true, Results: new(result.Store), Content: c, Size: c.Size()}
	t.Recipients, t.Notes = slices.Clone(env.Recipients), mail.Notes{}
	if err := readHeader(t); err != nil {
		return nil, err
	}
	if hooks {
		s.o.Chain.Run(ctx, hook.OnPreSendTransEmail, &hook.Event{Point: hook.OnPreSendTransEmail, Tx: t.View()})
	}
	t.Freeze()
	return s.seal(ctx, t)
}

// readHeader parses the header section of t.Content, and puts in the empty line
// behind it if that is missing.
func readHeader(t *hook.Transaction) error {
	section, err := mail.ReadHeader(t.Content, maxHeader)
	if err != nil {
		return err
	}
	if section.Cut {
		return reply.Newf(552, "5.3.4", "Header section is longer than %d bytes", maxHeader)
	}

	// Without the empty line the next header field would be taken for body.
	size := int64(len(section.Bytes))
	t.Header, t.HeaderSize = section.Header, size
	if !section.Complete {
		head := section.Header.Bytes()
		t.Content, t.HeaderSize = mail.WithHead(head, t.Content, size), int64(len(head))
	}
	return nil
}

// canon writes lines that end in CRLF, whatever they ended in.
type canon struct {
	w        io.Writer
	stuffed  bool
	eightBit bool // there was an octet above 127
	begun    bool // of the line something was written
	dot      bool // the line began with a dot, which was dropped
	cr       bool // the line ended in CR; if LF follows it belongs to that
	ended    bool // by the line with one dot
}

var crlf = []byte("\r\n")

// copyLines reads r to its end.
func (c *canon) copyLines(ctx context.Context, r io.Reader) error {
	// Lines are short, and the body behind may be a file.
	out := bufio.NewWriterSize(c.w, 32<<10)
	c.w = out
	b := make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(b)
		c.eightBit = c.eightBit || !mail.IsASCII(b[:n])
		if err := c.writeLines(b[:n]); err != nil {
			return err
		}
		switch {
		case errors.Is(err, io.EOF):
			if c.cr || c.begun || c.dot {
				if err := c.endLine(); err != nil {
					return err
				}
			}
			return out.Flush()
		case err != nil:
			return err
		}
	}
}

func (c *canon) writeLines(b []byte) error {
	for len(b) > 0 {
		switch {
		case c.cr:
			c.cr = false
			if b[0] == '\n' {
				b = b[1:]
			}
			if err := c.endLine(); err != nil {
				return err
			}
			continue
		case c.ended:
			return reply.New(554, "5.6.0", "There is more behind the line with one dot")
		case c.stuffed && !c.begun && !c.dot && b[0] == '.':
			c.dot = true
			b = b[1:]
			continue
		}

		// What stands up to the next line end is written in one piece.
		end := bytes.IndexAny(b, "\r\n")
		text := b
		if end >= 0 {
			text = b[:end]
		}
		if len(text) > 0 {
			c.begun = true
			if _, err := c.w.Write(text); err != nil {
				return err
			}
		}
		if end < 0 {
			return nil
		}
		if b[end] == '\r' {
			c.cr = true
		} else if err := c.endLine(); err != nil {
			return err
		}
		b = b[end+1:]
	}
	return nil
}

func (c *canon) endLine() error {
	if c.dot && !c.begun {
		c.ended = true
		return nil
	}
	c.begun, c.dot = false, false
	_, err := c.w.Write(crlf)
	return err
}
