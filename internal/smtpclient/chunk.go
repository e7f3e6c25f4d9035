package smtpclient

import (
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"tarishi/internal/reply"
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
	chunkBuffer = 256 << 10 // what is copied is sent in chunks of this
	maxChunk    = 1 << 20
	// maxPending is how many chunks are sent ahead of the replies to them. It
	// keeps a server that refuses the first from being sent a gigabyte, and the
	// replies within what the sockets hold.
	maxPending = 8
)

// heard reports whether something has arrived that nobody has asked for, be it
// the end of the connection or, with TLS, nothing for us. It never waits. A
// reply too many puts all that follow off by one; with DATA that shows late,
// since only the reply to DATA is of a class of its own, and with BDAT never.
func (c *Client) heard() bool {
	if c.in.buffered() > 0 {
		return true
	}
	if c.conn != c.raw { // TLS may have read more than it has given us
		c.raw.SetReadDeadline(time.Unix(1, 0))
		if c.in.more(); c.in.buffered() > 0 {
			return true
		}
	}
	s, ok := c.raw.(syscall.Conn)
	if !ok {
		return false
	}
	socket, err := s.SyscallConn()
	if err != nil {
		return true
	}
	n := -1
	err = socket.Control(func(fd uintptr) {
		var one [1]byte
		n, _, _ = syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	return err != nil || n >= 0
}

var errUnasked = errors.New("closed, or more replies than commands")

var errTooMany = garbled("more than one reply to a command")

// errRefused stops the copying of a content because a chunk of it was refused.
var errRefused = errors.New("chunk refused")

// chunks sends what is written to it, each Write as one chunk or more.
type chunks struct {
	c       *Client
	pending int          // sent, and no reply read yet
	refused *reply.Reply // the first reply to a chunk that was not positive
	head    []byte
	spans   [2][]byte
}

// Write implements io.Writer. The error is errRefused, a *Failure or the
// connection's.
func (k *chunks) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if k.pending == 0 && k.c.in.buffered() > 0 {
			return n, k.c.wire(StageContent, errTooMany)
		}
		part := p[n:min(len(p), n+maxChunk)]
		if err := k.send(part, false); err != nil {
			return n, err
		}
		n += len(part)
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

// send writes one chunk; without an error all of it has been written.
func (k *chunks) send(p []byte, last bool) error {
	c := k.c
	k.head = strconv.AppendInt(append(k.head[:0], "BDAT "...), int64(len(p)), 10)
	if last {
		k.head = append(k.head, " LAST"...)
	}
	k.head = append(k.head, "\r\n"...)
	first := min(len(p), block)
	k.spans = [2][]byte{k.head, p[:first]}
	spans := net.Buffers(k.spans[:])
	c.writeBy(c.contentTime(c.o.BlockTimeout))
	if _, err := spans.WriteTo(c.conn); err != nil {
		return err
	}
	c.wrote(first)
	if _, err := (*blocks)(c).Write(p[first:]); err != nil {
		return err
	}
	k.pending++
	return nil
}

// answer reads the reply to one chunk that is not the last.
func (k *chunks) answer() *Failure {
	c := k.c
	if err := c.await(c.contentTime(c.o.SubmissionTimeout)); err != nil {
		return c.wire(StageContent, err)
	}
	k.pending--
	switch {
	case c.res.code == 421:
		return c.refused(StageContent)
	case c.res.class() == 3:
		return c.unexpected(StageContent)
	case c.res.class() >= 4 && k.refused == nil:
		k.refused = c.res.reply()
	}
	return nil
}

// chunkBodies is for BDAT what bodies is for DATA.
var chunkBodies = sync.Pool{New: func() any {
	return &body{dots: dotWriter{plain: true, buf: make([]byte, 0, chunkBuffer)}}
}}

// sendChunks sends the message by BDAT and reads all replies, of which there is
// one to each chunk but the last; to that they are as to the final dot.
func (t *transaction) sendChunks() *Failure {
	c := t.c
	b := chunkBodies.Get().(*body)
	defer chunkBodies.Put(b)
	k := &chunks{c: c}
	b.dots.reset(k)
	defer b.dots.reset(nil)
	size, local, err := t.copy(b)
	if local == nil && err == nil && size != t.content.Size() {
		local = t.wrongSize(size)
	}
	if local != nil { // never the last chunk behind half a message
		return c.failure(StageContent, nil, local)
	}
	var rest []byte
	if err == nil {
		rest, err = b.dots.rest()
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
	if err == nil {
		if stop, f := t.interrupted(); stop {
			return f
		}
		if f := c.mayEnd(); f != nil {
			return f
		}
		err = k.send(rest, true)
	}
	if err == nil {
		f := t.verdict()
		// Not every server forgets a transaction whose last chunk it refused.
		c.dirty = slices.ContainsFunc(t.replies, func(r *reply.Reply) bool { return r != nil && !r.Positive() })
		return f
	}
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
