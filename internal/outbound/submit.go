package outbound

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// maxHeader is how many bytes the header section of a submission may have: it
// is held in memory while plugins look at it.
const maxHeader = 1 << 20

// Submit queues a message that this server makes itself, see hook.Submission,
// and sees to its delivery. It returns the message's ID when it is durable. The
// error is a *reply.Reply: of class 5 if the message would never be taken, else
// of class 4; nothing is in the queue then. Memory does not grow with the
// contents. A ctx that ends before the message is queued ends the Submit.
func (o *Outbound) Submit(ctx context.Context, s hook.Submission) (mail.ID, error) {
	t, refusal := o.transaction(s)
	if refusal != nil {
		return "", refusal
	}
	if s.Contents == nil {
		return "", reply.New(554, "5.6.0", "No contents for email")
	}
	defer t.Discard()
	body := o.o.Queue.NewBody()
	defer body.Discard()
	lines := &canon{w: body, stuffed: s.DotStuffed}
	err := lines.copy(ctx, s.Contents)
	if err == nil {
		t.Content, err = body.Content()
	}
	if err == nil {
		err = readHeader(t)
	}
	if err != nil {
		return "", o.refuse(t, err)
	}
	if lines.eightBit {
		t.Body = "8BITMIME"
	}
	t.Size = t.Content.Size()
	if s.RemoveMessageID {
		t.Header.Remove("Message-Id")
	}
	if s.RemoveDate {
		t.Header.Remove("Date")
	}
	t.Header.Complete(t.ID, o.o.Me, o.o.Config.ReceivedHeader, t.Received)
	if c := o.o.Chain; c != nil {
		c.Run(ctx, hook.OnPreSendTransEmail, &hook.Event{Point: hook.OnPreSendTransEmail, Tx: t.View()})
	}
	if err := ctx.Err(); err != nil {
		return "", o.refuse(t, err)
	}
	content := t.Final()
	if err := o.o.Queue.Put(&t.Envelope, content); err != nil {
		return "", o.refuse(t, err)
	}
	o.o.Mail.Queued(string(t.ID), t.From.String(), len(t.Recipients), content.Size())
	o.Enqueue(mail.NewPending(&t.Envelope, content.Size()))
	return t.ID, nil
}

// NewBody implements hook.Lender.
func (o *Outbound) NewBody() hook.Body { return o.o.Queue.NewBody() }

// refuse turns what went wrong into the answer of Submit.
func (o *Outbound) refuse(t *hook.Transaction, err error) error {
	var r *reply.Reply
	if !errors.As(err, &r) {
		r = reply.New(451, "4.3.0", "Message cannot be queued").Because(err)
	}
	o.o.Log.Warn("submission refused", zap.String("uuid", string(t.ID)), zap.String("from", t.From.String()), zap.Error(r))
	return r
}

// transaction makes the envelope of a submission.
func (o *Outbound) transaction(s hook.Submission) (*hook.Transaction, *reply.Reply) {
	t := &hook.Transaction{Relaying: true, Results: hook.NewResults(), Bodies: o}
	t.ID = mail.NewID(mail.NewConnectionID(), 1)
	t.Received, t.Origin = o.o.Now(), s.Origin
	if t.Notes = s.Notes.Clone(); t.Notes == nil {
		t.Notes = mail.Notes{}
	}
	if _, err := json.Marshal(t.Notes); err != nil {
		return nil, reply.New(554, "5.3.0", "Notes cannot be kept").Because(err)
	}
	from, err := mail.ParseAddress(s.From)
	if err != nil {
		return nil, reply.Newf(553, "5.1.7", "Malformed from: %s", clip(s.From)).Because(err)
	}
	t.From, t.UTF8 = from, from.IsUTF8()
	for _, one := range s.To {
		to, err := mail.ParseAddress(one)
		if err == nil && to.IsNull() {
			err = mail.ErrAddress
		}
		if err != nil {
			return nil, reply.Newf(553, "5.1.3", "Malformed to: %s", clip(one)).Because(err)
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

// readHeader parses the header section of t.Content, and puts in the empty line
// behind it if that is missing.
func readHeader(t *hook.Transaction) error {
	r, err := t.Content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	var b bytes.Buffer
	for next := int64(8 << 10); ; next *= 2 {
		n := min(next, maxHeader-int64(b.Len()), t.Content.Size()-int64(b.Len()))
		if _, err := io.CopyN(&b, r, n); err != nil {
			return err
		}
		h, size, complete := mail.ParseHeader(b.Bytes())
		whole := int64(b.Len()) == t.Content.Size()
		switch {
		case !whole && complete && b.Bytes()[size-1] == '\n', !whole && !complete && bytes.IndexByte(b.Bytes()[size:], '\n') >= 0, whole:
			t.Header, t.HeaderSize = h, int64(size)
			if !complete {
				head := h.Bytes()
				t.Content, t.HeaderSize = mail.WithHead(head, t.Content, int64(size)), int64(len(head))
			}
			return nil
		case b.Len() >= maxHeader:
			return reply.Newf(552, "5.3.4", "Header section is longer than %d bytes", maxHeader)
		}
	}
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

// copy reads r to its end.
func (c *canon) copy(ctx context.Context, r io.Reader) error {
	out := bufio.NewWriterSize(c.w, 32<<10)
	c.w = out
	b := make([]byte, 32<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(b)
		c.eightBit = c.eightBit || !isASCII(b[:n])
		if err := c.write(b[:n]); err != nil {
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

func (c *canon) write(b []byte) error {
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

func isASCII(b []byte) bool {
	for len(b) >= 8 {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}
