package smtpclient

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient/wire"
)

// bodyBuffer is how many bytes of a message are collected before they are written.
const bodyBuffer = 32 << 10

// bodies saves the allocation of what copies a message; it holds no state.
var bodies = sync.Pool{New: func() any {
	return &body{dots: wire.NewDotWriter(bodyBuffer, false)}
}}

type body struct {
	dots *wire.DotWriter
	read []byte // made when needed
}

var errEnding = errors.New("given up before the end of the message")

// mayEnd asks whether the message may be sent to its end; the failure says that it
// may not.
func (c *Client) mayEnd() *Failure {
	if sending.MayEnd(c.conn.Context()) {
		return nil
	}
	f := c.lost(StageContent, errEnding)
	f.aborted = true
	return f
}

// sendContent writes the message and the final dot. ended is false when there is
// no reply to wait for: the dot was not sent, or not to the end.
func (t *transaction) sendContent() (ended bool, f *Failure) {
	c := t.c
	b := bodies.Get().(*body)
	defer bodies.Put(b)
	b.dots.Reset((*wire.Content)(c.conn))
	defer b.dots.Reset(nil)
	size, local, err := t.copy(b)
	if local == nil && err == nil && size != t.content.Size() {
		local = t.wrongSize(size)
	}
	if local != nil { // never a dot behind half a message
		return false, c.failure(StageContent, nil, local)
	}
	if err != nil {
		return false, t.cutShort(err)
	}
	if b.dots.Begun() { // else it goes out at once, dot and all
		if stop, f := t.interrupted(); stop {
			return false, f
		}
	}
	if f := c.mayEnd(); f != nil {
		return false, f
	}
	dotted, err := b.dots.Finish()
	if err == nil {
		return true, nil
	}
	if !dotted {
		return false, t.cutShort(err)
	}
	f = c.lost(StageDot, err)
	f.Uncertain = true
	return false, f
}

func (t *transaction) wrongSize(size int64) error {
	return fmt.Errorf("content has %d bytes instead of %d", size, t.content.Size())
}

// copy writes the content to b.dots. local is an error in reading it, err one
// of the connection.
func (t *transaction) copy(b *body) (size int64, local, err error) {
	if m, ok := t.content.(mail.Memory); ok {
		for _, p := range m {
			if _, err := b.dots.Write(p); err != nil {
				return size, nil, err
			}
			size += int64(len(p))
		}
		return size, nil, nil
	}
	if b.read == nil {
		b.read = make([]byte, bodyBuffer)
	}
	for {
		n, rerr := t.body.Read(b.read)
		size += int64(n)
		if _, err := b.dots.Write(b.read[:n]); err != nil {
			return size, nil, err
		}
		if rerr == io.EOF {
			return size, nil, nil
		}
		if rerr != nil {
			return size, rerr, nil
		}
	}
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
	return c.lost(StageContent, err)
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
		return true, c.lost(StageContent, err)
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
		err := c.conn.Await(c.o.SubmissionTimeout)
		endless := c.conn.Last.Decided(err) && c.conn.Err() == nil
		if endless {
			c.conn.Close()
			c.conn.Last.Clip()
			err = nil
		}
		if err == nil && c.conn.Last.Class() == 3 {
			err = wire.Garbled("%s is no reply to the final dot", c.conn.Last.Reply())
		}
		if err != nil {
			f := c.lost(StageDot, err)
			f.Uncertain = true
			if !known {
				return f
			}
			t.settle(errLastReply.Because(f))
			return nil
		}
		if c.o.Protocol != mail.LMTP {
			if c.conn.Last.Code == 421 {
				return c.refused(StageDot)
			}
			t.settle(c.conn.Last.Reply())
			break
		}
		known = true
		t.replies[i] = c.conn.Last.Reply()
		if c.hungUp() {
			t.settle(t.replies[i])
			return nil
		}
		if endless { // what is buffered belongs to it
			f := c.lost(StageDot, wire.ErrTooLong)
			f.Uncertain = true
			t.settle(errLastReply.Because(f))
			return nil
		}
	}
	c.dirty = false
	return nil
}

var errLastReply = reply.New(451, "4.4.2", "Connection to the next hop lost before its last reply")
