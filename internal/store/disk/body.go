package disk

import (
	"errors"
	"io"
	"math/bits"
	"sync"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/spool"
	"tarishi/internal/vfs"
)

// Body takes a message's content while it arrives: in memory up to
// Options.LargeBody, then in a file of the spool. Write and Content are for one
// goroutine.
type Body struct {
	q      *Store
	chunks mail.Memory
	held   int64 // bytes that the chunks take
	size   int64
	file   *bodyFile // nil: in memory
	look   int64     // size at which to see whether there is still space
	sealed bool
	err    error
}

// NewBody returns an empty Body. Discard must be called at its end.
func (q *Store) NewBody() store.Body { return &Body{q: q} }

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

	// A body that becomes too long for memory goes on in a file.
	if b.file == nil && b.size+int64(len(p)) > b.q.limits.Load().largeBody {
		b.err = b.moveToFile()
	}
	if b.err == nil && b.file != nil && b.size >= b.look {
		// The client need not have said how long it is.
		b.look = b.size + lookAgain
		b.err = b.q.floor.CheckTight()
	}
	if b.err == nil && b.file != nil {
		var n int
		n, b.err = b.file.writePart(p)
		b.size += int64(n)
	}
	if b.err != nil {
		b.err = refuse(b.err)
		return 0, b.err
	}

	// Memory is taken in chunks that never move, so that readers may keep them.
	if b.file == nil {
		b.appendChunks(p)
		b.size += int64(len(p))
	}
	return len(p), nil
}

// appendChunks appends p to the chunks, which never move. A new one has room for what p
// brings, and for as much as those before it have.
func (b *Body) appendChunks(p []byte) {
	for len(p) > 0 {
		i := len(b.chunks) - 1
		if i < 0 || len(b.chunks[i]) == cap(b.chunks[i]) {
			c := b.q.chunks.takeChunk(max(len(p), int(b.held)))
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
		if b.err = b.q.floor.CheckTight(); b.err == nil {
			b.err = b.moveToFile()
		}
		if b.err != nil {
			b.err = refuse(b.err)
		}
	}
	return b.err
}

// moveToFile moves what there is to a file.
func (b *Body) moveToFile() error {
	f, name, err := b.q.spool.Temp()
	if err != nil {
		return err
	}
	b.file = &bodyFile{f: f, temp: name, refs: 1}
	for _, c := range b.chunks {
		if _, err := b.file.writePart(c); err != nil {
			return err
		}
	}
	b.q.chunks.giveBack(b.chunks) // nobody else has seen them
	b.chunks, b.held = nil, 0
	return nil
}

// chunks keeps the memory of bodies that went to files for the next ones: when many
// large messages come at once that is most of their memory. The zero value is empty.
type chunks struct {
	pools [9]sync.Pool // of *[]byte, by least size: leastChunk, twice that, … mostChunk
}

func (c *chunks) poolFor(size int) *sync.Pool { return &c.pools[bits.Len(uint(size/leastChunk))-1] }

// takeChunk returns an empty chunk for n bytes, or for some of them. A new one is
// hardly larger than that: most messages are small, and come in one piece.
func (c *chunks) takeChunk(n int) []byte {
	size := min(leastChunk<<bits.Len(uint(n-1)/leastChunk), mostChunk)
	if b, ok := c.poolFor(size).Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, min(size, (n+leastChunk-1)/leastChunk*leastChunk))
}

func (c *chunks) giveBack(all mail.Memory) {
	for _, b := range all {
		c.poolFor(cap(b)).Put(&b)
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
		if temp, ok := f.takeName(); ok {
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

func (c *bodyFile) writePart(p []byte) (int, error) {
	n, err := c.f.Write(p)
	_, _ = c.sum.Write(p[:n])
	return n, err
}

// takeName returns the temporary name to its first caller.
func (c *bodyFile) takeName() (temp string, ok bool) {
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

// bodyUse is one open reader of a bodyFile.
type bodyUse struct{ c *bodyFile }

// Close implements io.Closer.
func (u bodyUse) Close() error {
	u.c.release()
	return nil
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
	return spool.NewReader(c.f, 0, c.size, bodyUse{c}), nil
}
