package smtpclient

import (
	"errors"
	"slices"

	"tarishi/internal/reply"
	"tarishi/internal/smtpclient/wire"
)

// BDAT (RFC 3030). It begins when all replies to RCPT are known, so that nothing
// goes to a server which took no recipient. A content that fits in one chunk
// takes as many round trips as with DATA, a longer one takes one more.
const (
	// chunkedFrom is from how many bytes of content on. Postfix 3.7 takes a
	// message of 64 KiB to 10 MiB as fast by DATA as by BDAT, within a few
	// percent. So what counts is the additional round trip, which is lost among
	// those that TCP needs for a content from about here on.
	chunkedFrom = 1 << 20
	maxChunk    = 1 << 20
	// maxPending is how many chunks are sent ahead of the replies to them. It
	// keeps a server that refuses the first from being sent a gigabyte, and the
	// replies within what the sockets hold.
	maxPending = 8
)

var errUnasked = errors.New("closed, or more replies than commands")

var errTooMany = wire.Garbled("more than one reply to a command")

// errRefused stops the copying of a content because a chunk of it was refused.
var errRefused = errors.New("chunk refused")

// chunks sends content, each Write as one chunk or more.
type chunks struct {
	c       *Client
	pending int          // sent, and no reply read yet
	refused *reply.Reply // the first reply to a chunk that was not positive
}

// Write implements io.Writer. The error is errRefused, a *Failure or the
// connection's.
func (k *chunks) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if k.pending == 0 && k.c.conn.Buffered() > 0 {
			return n, k.c.connectionLost(StageContent, errTooMany)
		}

		// A reply that comes before any chunk is under way would be taken for the next
		// one's.
		part := p[n:min(len(p), n+maxChunk)]
		if err := k.c.conn.WriteChunk(part, false); err != nil {
			return n, err
		}
		k.pending++
		n += len(part)

		// The window is full: wait for the oldest reply, which may be a refusal of all that
		// follows.
		for k.pending > 0 && (k.pending >= maxPending || !k.c.ext.Pipelining) {
			if f := k.answer(); f != nil {
				return n, f
			}
			if k.refused != nil {
				return n, errRefused
			}
		}
	}
	return n, nil
}

// answer reads the reply to one chunk that is not the last.
func (k *chunks) answer() *Failure {
	c := k.c
	if err := c.conn.Await(c.conn.ContentTime(c.o.SubmissionTimeout)); err != nil {
		return c.connectionLost(StageContent, err)
	}
	k.pending--
	switch {
	case c.conn.Last.Code == 421:
		return c.refused(StageContent)
	case c.conn.Last.Class() == 3:
		return c.unexpected(StageContent)
	case c.conn.Last.Class() >= 4 && k.refused == nil:
		k.refused = c.conn.Last.Reply()
	}
	return nil
}

// sendChunks sends the message by BDAT and reads all replies: one to each
// chunk but the last, and to that one those to the final dot.
func (t *transaction) sendChunks() *Failure {
	c := t.c
	k := &chunks{c: c}
	b := wire.NewBody(k, true)
	defer b.Release()
	local, err := b.Copy(t.content, t.body)
	if local != nil { // never the last chunk behind half a message
		return c.failure(StageContent, nil, local)
	}
	var rest []byte
	if err == nil {
		rest, err = b.Rest()
	}

	// The last chunk, to which the reply is the one that counts, is sent when all
	// others have been taken: no reply to one of those is mistaken for it, and a
	// message that lacks a part is never ended.
	for err == nil && k.pending > 0 {
		if f := k.answer(); f != nil {
			return f
		}
		if k.refused != nil {
			err = errRefused
		}
	}
	if err != nil {
		return t.stopChunks(k, err)
	}

	// From here on the message may be taken, so this is the last moment at which a refusal,
	// or a caller that gives up, can keep it back.
	if stop, f := t.interrupted(); stop {
		return f
	}
	if f := c.mayEnd(); f != nil {
		return f
	}
	if err := c.conn.WriteChunk(rest, true); err != nil {
		return t.cutShort(err)
	}
	f := t.verdict()
	// Not every server forgets a transaction after it refused the last chunk.
	c.dirty = slices.ContainsFunc(t.replies, func(r *reply.Reply) bool { return r != nil && !r.Positive() })
	return f
}

// stopChunks sees to a message that is not sent to its end, because of err: a chunk was
// refused, or the connection is of no more use.
func (t *transaction) stopChunks(k *chunks, err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	if !errors.Is(err, errRefused) {
		return t.cutShort(err)
	}
	for k.pending > 0 { // chunks that are refused for the first one's sake
		if f := k.answer(); f != nil {
			if f.Reply == nil || f.Reply.Code != 421 {
				return f
			}
			break
		}
	}
	t.settle(k.refused)
	return nil
}
