package smtpd

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"tarishi/internal/smtpd/pace"
	"tarishi/internal/smtpd/scan"
)

// Receiver takes the content of one message.
type Receiver interface {
	// Write gets the content in pieces, without the dots that were stuffed. An error
	// ends the reading at once: a client does not listen before its message ends.
	io.Writer
	// Spare is called now and then while nothing comes. It may free memory.
	Spare()
	// GiveWay is called when a faster client needs the memory that the message takes.
	// The session goes on if it returns true: then Watch.Stay has.
	GiveWay() bool
}

// ReadData passes the content behind DATA to r, up to the final dot.
func (c *Conn) ReadData(r Receiver) error {
	scanner := scan.Scanner{Dots: true}
	return c.readContent(func(b []byte) (int, bool, error) { return scanner.Scan(b, r) }, r)
}

// ReadChunk passes the next size octets to r, which are a chunk of the message of
// the current transaction and perhaps its last.
func (c *Conn) ReadChunk(size int64, last bool, r Receiver) error {
	err := c.readOctets(size, func(b []byte) error {
		_, _, err := c.watch.chunks.Scan(b, r)
		return err
	}, r)
	if err == nil && last {
		err = c.watch.chunks.Finish()
	}
	return err
}

// SkipChunk drops the next size octets.
func (c *Conn) SkipChunk(size int64) error {
	return c.readOctets(size, func([]byte) error { return nil }, nil)
}

// readOctets hands the next left octets to f, piece by piece.
func (c *Conn) readOctets(left int64, f func([]byte) error, r Receiver) error {
	if left == 0 {
		return nil
	}
	return c.readContent(func(b []byte) (int, bool, error) {
		n := min(int64(len(b)), left)
		left -= n
		return int(n), left == 0, f(b[:n])
	}, r)
}

// readContent hands what arrives to f until f is done or fails. f says how many
// bytes it used; it must use all but a few when it wants more. The client has
// to send something within the inactivity timeout, and the minimum rate on average
// over a window of waiting; our own slowness does not count. r, unless nil, may free
// memory meanwhile.
func (c *Conn) readContent(f func(b []byte) (n int, done bool, err error), r Receiver) error {
	if c.gone {
		return net.ErrClosed
	}
	c.trickles = false
	for {
		// What has arrived, perhaps together with the command, comes first.
		if c.from < c.to {
			n, done, err := f(c.buf[c.from:c.to])
			c.from += n
			c.pace.Receive(n)
			if done || err != nil {
				return err
			}
			if c.pace.IsTooSlow() {
				return ErrTooSlow
			}
		}

		// A client may wait for a reply before it sends the rest.
		if err := c.FlushReplies(); err != nil {
			return err
		}
		err := c.receive(r)
		if errors.Is(err, ErrGiveWay) && r != nil && r.GiveWay() {
			continue
		}
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
}

// smallPiece and longWait tell a trickle from a client that is worth a large
// buffer.
const (
	smallPiece = commandBuffer / 2
	longWait   = 100 * time.Millisecond
)

// receive reads content into the buffer.
func (c *Conn) receive(r Receiver) error {
	for {
		// The wait is cut into windows, so that a slow message can leave the memory.
		began := time.Now()
		limit, overdue := c.patience(began)
		look := r != nil && limit > pace.Window
		if look {
			limit = pace.Window
		}
		if err := c.beginRead(began.Add(max(limit, 1))); err != nil {
			return err
		}
		c.pace.BeginWait(began)
		before := c.to - c.from
		err := c.fill(!c.trickles)
		why := c.endWait()
		waited := time.Since(began)
		c.pace.EndWait(waited)

		// A client that sends little at a time needs no large buffer.
		c.trickles = c.to-c.from-before < smallPiece && waited >= longWait
		switch {
		case err == nil || !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case why != nil:
			return why
		case !look:
			return overdue
		}
		r.Spare()
	}
}
