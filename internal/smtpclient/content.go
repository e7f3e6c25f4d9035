package smtpclient

import (
	"errors"
	"os"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient/wire"
)

var errEnding = errors.New("given up before the end of the message")

// mayEnd asks whether the message may be sent to its end; the failure says that it
// may not.
func (c *Client) mayEnd() *Failure {
	if sending.MayEnd(c.conn.Context()) {
		return nil
	}
	f := c.connectionLost(StageContent, errEnding)
	f.aborted = true
	return f
}

// sendContent writes the message and the final dot. ended is false when there is
// no reply to wait for: the dot was not sent, or not to the end.
func (t *transaction) sendContent() (ended bool, f *Failure) {
	c := t.c
	b := wire.NewBody((*wire.Content)(c.conn), false)
	defer b.Release()
	local, err := b.Copy(t.content, t.body)
	if local != nil { // never a dot behind half a message
		return false, c.failure(StageContent, nil, local)
	}
	if err != nil {
		return false, t.cutShort(err)
	}
	if b.Begun() { // else it goes out at once, dot and all
		if stop, f := t.interrupted(); stop {
			return false, f
		}
	}

	// A caller that has given up meanwhile must not find the message delivered.
	if f := c.mayEnd(); f != nil {
		return false, f
	}

	// Once the dot may be on the wire the message may have been taken, whatever becomes of
	// the connection.
	dotted, err := b.Finish()
	if err == nil {
		return true, nil
	}
	if !dotted {
		return false, t.cutShort(err)
	}
	f = c.connectionLost(StageDot, err)
	f.Uncertain = true
	return false, f
}

// cutShort sees to a connection that was lost while content was written: what
// the server said before it closed counts as in interrupted.
func (t *transaction) cutShort(err error) *Failure {
	c := t.c
	if c.conn.Err() == nil {
		c.conn.AwaitLast()
		for c.conn.Read() == nil {
			if c.conn.Last.Class() >= 4 {
				return t.refusedEarly()
			}
		}
	}
	return c.connectionLost(StageContent, err)
}

// interrupted sees to what the server has said before the message is ended. A
// refusal holds, since the server may have no other: the message is not ended
// then, and the connection of no more use. Whatever else it was would be taken
// for the reply to the end of the message.
func (t *transaction) interrupted() (stop bool, f *Failure) {
	c := t.c
	if !c.conn.Heard() {
		return false, nil
	}
	c.conn.AwaitBy(time.Second)
	switch err := c.conn.Read(); {
	case errors.Is(err, os.ErrDeadlineExceeded) && c.conn.Err() == nil && c.conn.Buffered() == 0 && c.conn.Encrypted():
		return false, nil // of TLS itself
	case err != nil:
		return true, c.connectionLost(StageContent, err)
	case c.conn.Last.Class() < 4:
		return true, c.unexpected(StageContent)
	}
	return true, t.refusedEarly()
}

// refusedEarly takes the last reply for the server's to a message that it has
// not seen to its end, and never will.
func (t *transaction) refusedEarly() *Failure {
	c := t.c
	if c.conn.Last.Code == 421 || c.o.Protocol == mail.LMTP { // that of one recipient only
		return c.refused(StageContent)
	}
	c.conn.Close()
	t.settle(c.conn.Last.Reply())
	return nil
}

// verdict reads what the server says to the final dot: one reply, or in LMTP
// one for each recipient accepted (RFC 2033 section 4.2). A reply without end
// counts by its code, since the server has decided: else the message would be
// sent again for ever. The connection is of no more use then, nor are the
// replies behind it in LMTP.
func (t *transaction) verdict() *Failure {
	c := t.c
	known := false
	for i := range t.replies {
		if t.replies[i] != nil {
			continue
		}

		// SMTP has one reply for all, LMTP one for each recipient that was accepted, in
		// order.
		err := c.conn.Await(c.o.SubmissionTimeout)
		endless := c.conn.Last.Decided(err) && c.conn.Err() == nil
		if endless {
			c.conn.Close()
			c.conn.Last.Clip()
			err = nil
		}

		// No reply, or none that fits: the server may have taken the message.
		// What LMTP said about recipients before stays true.
		if err == nil && c.conn.Last.Class() == 3 {
			err = wire.Garbled("%s is no reply to the final dot", c.conn.Last.Reply())
		}
		if err != nil {
			f := c.connectionLost(StageDot, err)
			f.Uncertain = true
			if !known {
				return f
			}
			t.settle(errLastReply.Because(f))
			return nil
		}

		// A 421 in place of the reply says that the server did not take it (RFC 5321
		// section 3.8).
		if c.o.Protocol != mail.LMTP {
			if c.conn.Last.Code == 421 {
				return c.refused(StageDot)
			}
			t.settle(c.conn.Last.Reply())
			break
		}

		// In LMTP a 421 stands for this recipient and all that follow.
		known = true
		t.replies[i] = c.conn.Last.Reply()
		if c.hungUp() {
			t.settle(t.replies[i])
			return nil
		}
		if endless { // all that is buffered belongs to it
			f := c.connectionLost(StageDot, wire.ErrTooLong)
			f.Uncertain = true
			t.settle(errLastReply.Because(f))
			return nil
		}
	}
	c.dirty = false
	return nil
}

var errLastReply = reply.New(451, "4.4.2", "Connection to the next hop lost before its last reply")
