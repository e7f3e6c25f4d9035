package queue

import (
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"tarishi/internal/mail"
	"tarishi/internal/spool"
	"tarishi/internal/vfs"
)

// Body takes a message's content while it arrives: in memory up to
// Options.LargeBody, then in a file of the spool. Write and Content are for one
// goroutine.
type Body struct {
	q      *Queue
	chunks mail.Memory
	held   int64 // bytes that the chunks take
	size   int64
	file   *bodyFile // nil: in memory
	look   int64     // size at which to see whether there is still space
	sealed bool
	err    error
}

// NewBody returns an empty Body. Discard must be called at its end.
func (q *Queue) NewBody() *Body { return &Body{q: q} }

const (
	leastChunk = 1 << 10
	mostChunk  = 256 << 10
	lookAgain  = 1 << 20
)

// Write implements io.Writer. Its errors are of type *reply.Reply and stay.
func (b *Body) Write(p []byte) (int, error) {
	if b.err == nil && b.sealed {
		b.err = refuse(errors.New("body written after its content was asked for"))
	}
	if b.err != nil {
		return 0, b.err
	}
	if b.file == nil && b.size+int64(len(p)) > b.q.o.LargeBody {
		b.err = b.spill()
	}
	if b.err == nil && b.file != nil && b.size >= b.look {
		// The client need not have said how long it is.
		b.look = b.size + lookAgain
		b.err = b.q.tight()
	}
	if b.err == nil && b.file != nil {
		var n int
		n, b.err = b.file.write(p)
		b.size += int64(n)
	}
	if b.err != nil {
		b.err = refuse(b.err)
		return 0, b.err
	}
	if b.file == nil {
		b.keep(p)
		b.size += int64(len(p))
	}
	return len(p), nil
}

// keep appends p to the chunks, which never move. A new one has room for what p
// brings, and for as much as those before it have.
func (b *Body) keep(p []byte) {
	for len(p) > 0 {
		i := len(b.chunks) - 1
		if i < 0 || len(b.chunks[i]) == cap(b.chunks[i]) {
			c := b.q.chunks.take(max(len(p), int(b.held)))
			b.chunks = append(b.chunks, c)
			b.held += int64(cap(c))
			i++
		}
		c := b.chunks[i]
		n := min(len(p), cap(c)-len(c))
		b.chunks[i] = append(c, p[:n]...)
		p = p[n:]
	}
}

// Held is how many bytes of memory the body takes.
func (b *Body) Held() int64 { return b.held }

// Spill moves what was written to a file, as Write does above Options.LargeBody:
// the rest goes there too. Its errors are as Write's.
func (b *Body) Spill() error {
	if b.err == nil && b.file == nil && !b.sealed {
		if b.err = b.q.tight(); b.err == nil {
			b.err = b.spill()
		}
		if b.err != nil {
			b.err = refuse(b.err)
		}
	}
	return b.err
}

// spill moves what there is to a file.
func (b *Body) spill() error {
	f, name, err := b.q.spool.Temp()
	if err != nil {
		return err
	}
	b.file = &bodyFile{f: f, temp: name, refs: 1}
	for _, c := range b.chunks {
		if _, err := b.file.write(c); err != nil {
			return err
		}
	}
	b.q.chunks.giveBack(b.chunks) // nobody else has seen them
	b.chunks, b.held = nil, 0
	return nil
}

// chunks keeps the memory of bodies that went to files for the next ones: when many
// large messages come at once that is most of what they use. The zero value is empty.
type chunks struct {
	pools [9]sync.Pool // of *[]byte, by least size: leastChunk, twice that, … mostChunk
}

func (c *chunks) pool(size int) *sync.Pool { return &c.pools[bits.Len(uint(size/leastChunk))-1] }

// take returns an empty chunk for n bytes, or for some of them. A new one is hardly
// larger than that: most messages are small, and come in one piece.
func (c *chunks) take(n int) []byte {
	size := min(leastChunk<<bits.Len(uint(n-1)/leastChunk), mostChunk)
	if b, ok := c.pool(size).Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, min(size, (n+leastChunk-1)/leastChunk*leastChunk))
}

func (c *chunks) giveBack(all mail.Memory) {
	for _, b := range all {
		c.pool(cap(b)).Put(&b)
	}
}

// Content ends the body and returns what was written. It stays readable until
// its readers are closed; it cannot be opened any more after Discard.
func (b *Body) Content() (mail.Content, error) {
	b.sealed = true
	if b.err != nil {
		return nil, b.err
	}
	if b.file != nil {
		b.file.size = b.size
		return b.file, nil
	}
	return b.chunks, nil
}

var errDiscarded = refuse(errors.New("body was discarded"))

// Discard frees the body. A message that was put in the queue is not touched.
func (b *Body) Discard() {
	if b.err == nil {
		b.err = errDiscarded
	}
	b.chunks, b.held = nil, 0
	if f := b.file; f != nil {
		b.file = nil
		if temp, ok := f.take(); ok {
			_ = b.q.spool.Drop(temp) // else the next start does
		}
		f.release()
	}
}

// bodyFile is the Content of a Body in a file.
type bodyFile struct {
	f    vfs.File
	size int64
	sum  spool.Summer

	mu   sync.Mutex
	temp string // "": the file was placed or dropped
	refs int    // the Body and open readers
}

func (c *bodyFile) write(p []byte) (int, error) {
	n, err := c.f.Write(p)
	_, _ = c.sum.Write(p[:n])
	return n, err
}

// take returns the temporary name to the first who asks.
func (c *bodyFile) take() (temp string, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	temp, c.temp = c.temp, ""
	return temp, temp != ""
}

func (c *bodyFile) giveBack(temp string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.temp = temp
}

func (c *bodyFile) release() {
	c.mu.Lock()
	c.refs--
	last := c.refs == 0
	c.mu.Unlock()
	if last {
		_ = c.f.Close()
	}
}

// Size implements mail.Content.
func (c *bodyFile) Size() int64 { return c.size }

// Open implements mail.Content.
func (c *bodyFile) Open() (io.ReadCloser, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refs == 0 {
		return nil, errors.New("queue: content was discarded")
	}
	c.refs++
	return newReader(c.f, 0, c.size, c.release), nil
}

// reader reads a part of a file. It can seek and, for what reads without a
// buffer of its own, implements nothing else.
type reader struct {
	io.SectionReader
	close func()
}

func newReader(r io.ReaderAt, off, n int64, done func()) *reader {
	return &reader{*io.NewSectionReader(r, off, n), sync.OnceFunc(done)}
}

// Close implements io.Closer. It may be called again.
func (r *reader) Close() error {
	r.close()
	return nil
}

// checked reads a content to its end and compares it with its checksum. The
// last bytes are not passed on if that does not match, so that no reader takes a
// damaged content for whole, however it finds the end.
type checked struct {
	r      *reader // not embedded: whoever seeks would go round the checksum
	left   int64
	summer spool.Summer
	want   spool.Sum
	spoilt func(cause error) error // told once; it returns the error of Read
	err    error
}

// Read implements io.Reader.
func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	if c.left == 0 {
		return 0, io.EOF
	}
	n, err := c.r.Read(p)
	c.left -= int64(n)
	_, _ = c.summer.Write(p[:n])
	switch {
	case c.left > 0 && errors.Is(err, io.EOF):
		c.err = c.spoilt(fmt.Errorf("%w: %d bytes of the content are missing", errDamaged, c.left))
	case c.left == 0 && c.summer.Sum() != c.want:
		c.err = c.spoilt(fmt.Errorf("%w: the content's checksum does not match", errDamaged))
	default:
		return n, err
	}
	return 0, c.err
}

// Close implements io.Closer. It may be called again.
func (c *checked) Close() error { return c.r.Close() }
