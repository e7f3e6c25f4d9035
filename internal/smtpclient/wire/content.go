package wire

import (
	"net"
	"strconv"
	"time"
)

// block is how much of a content has one deadline.
const block = 256 << 10

// BeginContent says how long a block of content may take, and how many bytes a second
// the server must take on the average, beyond a first such time; negative: any.
func (c *Conn) BeginContent(each time.Duration, rate int64) {
	c.blockTime, c.rate, c.contentBy = each, rate, time.Now().Add(each)
}

// noteWritten notes that the server has taken n bytes of content, which gives it time
// for more.
func (c *Conn) noteWritten(n int) {
	if c.rate > 0 {
		c.contentBy = c.contentBy.Add(time.Duration(float64(n) / float64(c.rate) * float64(time.Second)))
	}
}

// ContentTime is how long a step of sending content may take that has most by
// itself.
func (c *Conn) ContentTime(most time.Duration) time.Duration {
	if c.rate < 0 {
		return most
	}
	return min(most, time.Until(c.contentBy))
}

// Content is the io.Writer of a connection for content, with a deadline for each
// block.
type Content Conn

// Write implements io.Writer.
func (w *Content) Write(p []byte) (n int, err error) {
	c := (*Conn)(w)
	for n < len(p) && err == nil {
		var m int
		c.writeBy(c.ContentTime(c.blockTime))
		m, err = c.stream.Write(p[n:min(len(p), n+block)])
		c.noteWritten(m)
		n += m
	}
	return n, err
}

// WriteChunk writes a BDAT command and its chunk of content (RFC 3030); without an
// error all of it has been written.
func (c *Conn) WriteChunk(p []byte, last bool) error {
	c.head = strconv.AppendInt(append(c.head[:0], "BDAT "...), int64(len(p)), 10)
	if last {
		c.head = append(c.head, " LAST"...)
	}
	c.head = append(c.head, "\r\n"...)

	// Command and first block go out together; the rest has further deadlines.
	first := min(len(p), block)
	c.spans = [2][]byte{c.head, p[:first]}
	spans := net.Buffers(c.spans[:])
	c.writeBy(c.ContentTime(c.blockTime))
	if _, err := spans.WriteTo(c.stream); err != nil {
		return err
	}
	c.noteWritten(first)
	_, err := (*Content)(c).Write(p[first:])
	return err
}
