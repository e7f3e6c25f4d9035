package mail

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// Section is the header section of a message, see ReadHeader.
type Section struct {
	Header   *Header
	Bytes    []byte // as they are in the message, with the empty line
	Complete bool   // the empty line is there; else it is missing, or Cut
	Cut      bool   // the section is longer than what was read
}

// firstRead is how many bytes are read at first: most header sections are shorter.
const firstRead = 8 << 10

// ReadHeader reads the header section of a message as ParseHeader does, and not much of
// what follows. At most limit bytes are read. An error is that of the content, which may be
// shorter than its Size.
func ReadHeader(c Content, limit int) (s Section, err error) {
	r, err := c.Open()
	if err != nil {
		return s, err
	}
	defer r.Close()
	size, b := c.Size(), []byte(nil)
	for {
		// Some sections are huge, so the buffer doubles until the section has ended in it.
		had := len(b)
		more := int(min(int64(max(had, firstRead)), int64(limit-had), size-int64(had)))
		b = slices.Grow(b, more)[:had+more]
		if _, err := io.ReadFull(r, b[had:]); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return s, err
		}

		// The end counts only with its line end, or with a whole line behind it that is no
		// field: half of one may yet become a field.
		h, n, complete := ParseHeader(b)
		s = Section{Header: h, Bytes: b[:n], Complete: complete}
		switch {
		case int64(len(b)) == size, complete && b[n-1] == '\n', !complete && bytes.IndexByte(b[n:], '\n') >= 0:
			return s, nil
		case len(b) >= limit:
			s.Complete, s.Cut = false, true
			return s, nil
		}
	}
}
