package smtpclient

import (
	"io"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient/command"
)

// transaction is one Send.
type transaction struct {
	c       *Client
	env     *mail.Envelope
	content mail.Content
	body    io.ReadCloser // nil for a mail.Memory

	fit command.Fit

	// replies is the result. While commands are under way a nil is a recipient
	// that is accepted or not answered yet.
	replies  []*reply.Reply
	mail     *reply.Reply
	accepted int
	data     bool // the server waits for content
	begun    bool // it gets some

	chunked  bool     // BDAT, not DATA
	xforward []string // commands

	// Commands count from 0: xforward, MAIL, the recipients not refused by check,
	// DATA unless chunked.
	sent, answered         int
	nextSent, nextAnswered int // from here on in replies
	dataSent               bool
}

// checkMessage refuses what this server cannot take, and prepares the sender.
func (t *transaction) checkMessage() *Failure {
	x := &t.c.ext
	if r := x.CheckRequireTLS(t.env, t.c.sure); r != nil {
		return t.c.report(StageMail, r, nil)
	}
	t.chunked = x.Chunking && t.content.Size() >= chunkedFrom
	if t.c.o.Forwards == mail.XForward && len(x.XForward) > 0 {
		t.xforward = x.ForwardCommands(t.env.Origin)
	}
	var err error
	if t.fit, err = x.Check(t.env, t.content, t.replies); err != nil {
		return t.c.report(StageContent, nil, err)
	}
	return nil
}

// settle gives r to every recipient that has no reply.
func (t *transaction) settle(r *reply.Reply) {
	for i := range t.replies {
		if t.replies[i] == nil {
			t.replies[i] = r
		}
	}
}

func (t *transaction) openContent() (err error) {
	if _, ok := t.content.(mail.Memory); !ok {
		t.body, err = t.content.Open()
	}
	return err
}

func (t *transaction) closeContent() {
	if t.body != nil {
		t.body.Close()
	}
}

// converse is the dialogue.
func (t *transaction) converse() *Failure {
	c := t.c
	if f := c.endTransaction(); f != nil {
		return f
	}

	// From MAIL on the server has a transaction that RSET has to end, unless it ends well.
	c.dirty = true
	f := t.envelope()
	switch {
	case f != nil:
		return f
	case t.mail != nil:
		t.settle(t.mail)
		if t.data { // nonsense, and an empty message if we went on
			c.conn.Close()
		}
		return nil
	case t.accepted == 0:
		t.emptyDot()
		return nil
	case !t.data && !t.chunked || c.conn.Closed(): // DATA refused, or a 421
		return nil
	}

	// A reply too many now would be taken for the one to the content.
	if c.conn.Buffered() > 0 {
		return c.connectionLost(StageData, errTooMany)
	}

	// A caller may recall a message until its content begins; from then on it only ends the
	// attempt before the final dot.
	t.begun = true
	if !sending.Begin(c.conn.Context()) {
		return c.connectionLost(StageData, c.conn.Err())
	}
	if f = t.transfer(); f == nil || !f.Uncertain {
		sending.Answered(c.conn.Context())
	}
	return f
}

// transfer sends the content and reads what the server says to it.
func (t *transaction) transfer() *Failure {
	t.c.conn.BeginContent(t.c.o.BlockTimeout, t.c.o.MinRate)
	if t.chunked {
		return t.sendChunks()
	}
	if ended, f := t.sendContent(); !ended {
		return f
	}
	return t.verdict()
}
