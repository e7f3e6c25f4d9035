package smtpclient

import (
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// envelope sends MAIL, RCPT and DATA and reads the replies: one command at a
// time, or with PIPELINING as many as the window holds.
func (t *transaction) envelope() *Failure {
	c := t.c
	for {
		// Commands go out as far as the window allows. What arrives before anything was
		// sent is no reply to them.
		before := t.sent
		t.fillWindow()
		if t.sent > before {
			if t.answered == before {
				if f := c.unasked(t.nextStage()); f != nil {
					return f
				}
			}
			if err := c.conn.Flush(c.o.CommandTimeout); err != nil {
				return t.envelopeLost(err)
			}
		}

		// With PIPELINING the batch that was just sent stays under way while the replies to
		// the one before are read, so that the line is never idle.
		until := t.sent
		if c.ext.Pipelining && !t.dataSent && t.mail == nil && t.sent > before {
			until = before // the batch just sent stays under way
		}
		for t.answered < until {
			if stop, f := t.answer(); stop || f != nil {
				return f
			}
		}

		// The envelope is complete when every command has its reply and there is nothing
		// more to say.
		if t.answered == t.sent && (t.dataSent || t.mail != nil || t.nextSent == len(t.replies) && (t.chunked || t.accepted == 0)) {
			return nil
		}
	}
}

// fillWindow puts the next commands in c.conn.Out.
func (t *transaction) fillWindow() {
	c := t.c
	if t.mail != nil {
		return
	}
	for len(c.conn.Out) < window && !t.dataSent {
		switch {
		case t.sent < len(t.xforward):
			c.conn.Out = append(append(c.conn.Out, t.xforward[t.sent]...), "\r\n"...)
		case t.sent == len(t.xforward):
			c.conn.Out = c.ext.AppendMail(c.conn.Out, t.env, t.fit, t.content.Size())
		case t.nextSent < len(t.replies):
			i := t.nextSent
			t.nextSent++
			if t.replies[i] != nil {
				continue
			}
			var refusal *reply.Reply
			if c.conn.Out, refusal = c.ext.AppendRcpt(c.conn.Out, &t.env.Recipients[i]); refusal != nil {
				t.replies[i] = refusal
				continue
			}

		// BDAT waits for all replies to RCPT. DATA is sent along with the last RCPT, unless
		// it is known already that all were refused.
		case t.chunked, t.sent == t.answered && t.accepted == 0:
			return // or nobody wants it
		default:
			c.conn.Out = append(c.conn.Out, "DATA\r\n"...)
			t.dataSent = true
		}
		t.sent++
		if !c.ext.Pipelining {
			return
		}
	}
}

// nextStage is that of the command with the next reply.
func (t *transaction) nextStage() Stage {
	switch {
	case t.answered < len(t.xforward):
		return StageXForward
	case t.answered == len(t.xforward):
		return StageMail
	case t.dataSent && t.answered == t.sent-1:
		return StageData
	}
	return StageRecipient
}

// envelopeLost reports a broken connection, unless all that matters is known.
func (t *transaction) envelopeLost(err error) *Failure {
	f := t.c.connectionLost(t.nextStage(), err)
	if t.mail != nil || t.nextStage() == StageData && t.accepted == 0 {
		return nil
	}
	return f
}

// answer reads the reply to one command. stop ends the transaction.
func (t *transaction) answer() (stop bool, f *Failure) {
	c, stage := t.c, t.nextStage()
	wait := c.o.CommandTimeout
	if stage == StageData {
		wait = c.o.DataTimeout
	}
	if err := c.conn.Await(wait); err != nil {
		return true, t.envelopeLost(err)
	}
	t.answered++

	// After a refused MAIL the replies to what was pipelined behind it say nothing; they
	// are read to keep the connection usable.
	class := c.conn.Last.Class()
	if t.mail != nil { // only to keep replies and commands together
		t.data = t.data || stage == StageData && class == 3
		return c.hungUp(), nil
	}
	switch {
	// A 421 is the end of the connection at any stage. Other refusals settle recipients;
	// what fits nowhere ends the conversation.
	case stage == StageXForward && c.conn.Last.Code == 421:
		return true, c.refused(stage)
	case stage == StageXForward && class != 3: // it is for the server's log only
		return false, nil
	case stage == StageMail && class == 2:
		return false, nil
	case stage == StageMail && c.conn.Last.Code == 421:
		return true, c.refused(stage)
	case stage == StageMail && class >= 4:
		t.mail = c.conn.Last.Reply()
		return false, nil
	case stage == StageRecipient:
		return t.recipient(class)
	case stage == StageData && class == 3:
		t.data = true
		return false, nil
	case stage == StageData && t.accepted == 0:
		if class == 2 {
			c.conn.Close()
		}
		return c.hungUp() || c.conn.Closed(), nil
	case stage == StageData && c.conn.Last.Code == 421:
		return true, c.refused(stage)
	case stage == StageData && class >= 4:
		t.settle(c.conn.Last.Reply())
		return false, nil
	}
	return true, c.unexpected(stage)
}

// recipient takes the reply to one RCPT.
func (t *transaction) recipient(class int) (stop bool, f *Failure) {
	for t.replies[t.nextAnswered] != nil {
		t.nextAnswered++
	}
	i := t.nextAnswered
	t.nextAnswered++
	switch {
	case class == 2:
		t.accepted++
	case class == 3:
		return true, t.c.unexpected(StageRecipient)
	default:
		t.replies[i] = t.c.conn.Last.Reply()
		if t.c.hungUp() {
			t.settle(t.replies[i])
			return true, nil
		}
	}
	return false, nil
}

// hungUp reports whether the last reply was a 421, after which nobody listens.
func (c *Client) hungUp() bool {
	if c.conn.Last.Code != 421 {
		return false
	}
	c.conn.Close()
	return true
}

// emptyDot ends a DATA that the server began though it refused all recipients
// (RFC 2920 section 3.1). The reply to it changes nothing. An LMTP server has
// none to give, so that there the connection is not worth keeping.
func (t *transaction) emptyDot() {
	c := t.c
	if !t.data || c.conn.Closed() {
		return
	}
	if c.o.Protocol == mail.LMTP {
		c.conn.Close()
		return
	}
	if f := c.command(StageDot, "."); f == nil && !c.hungUp() {
		c.dirty = false
	}
}
