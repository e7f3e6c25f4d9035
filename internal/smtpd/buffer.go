package smtpd

// adjustBuffer makes room in buf behind the bytes in it: a small buffer does for
// commands, content and long lines get a large one.
func (c *Conn) adjustBuffer(content bool) {
	if c.from == c.to {
		c.from, c.to = 0, 0
	}

	// The kind of buffer follows from the bytes that are expected.
	switch {
	case c.buf == nil:
		c.moveTo(content)
	case content && !c.isLarge():
		c.moveTo(true)
	case !content && c.isLarge() && c.to-c.from < fewBytes:
		c.moveTo(false)
	}

	// A full one is emptied to the front first, and replaced if that gains nothing.
	if c.to < len(c.buf) {
		return
	}
	if c.from == 0 {
		c.moveTo(true)
		return
	}
	c.to = copy(c.buf, c.buf[c.from:c.to])
	c.from = 0
}

// fewBytes is more than content can leave unused.
const fewBytes = 8

// isLarge reports whether buf is a content buffer.
func (c *Conn) isLarge() bool { return len(c.buf) == contentBuffer }

// moveTo takes another buffer. The bytes that are left fit: neither a line nor the rest
// of content fills a content buffer, and a small one is taken only for a few bytes.
func (c *Conn) moveTo(large bool) {
	pool := &commandBuffers
	if large {
		pool = &contentBuffers
	}
	next := pool.Get().(*[]byte)
	n := copy(*next, c.buf[c.from:c.to])
	c.giveBack()
	c.buf, c.pooled, c.from, c.to = *next, next, 0, n
}

// giveBack gives the buffer back to its pool.
func (c *Conn) giveBack() {
	switch {
	case c.pooled == nil:
	case c.isLarge():
		contentBuffers.Put(c.pooled)
	default:
		commandBuffers.Put(c.pooled)
	}
	c.buf, c.pooled = nil, nil
}

// releaseBuffer holds nothing for input while there is none.
func (c *Conn) releaseBuffer() {
	if c.from == c.to {
		c.from, c.to = 0, 0
		c.giveBack()
	}
}
