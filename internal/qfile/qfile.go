// Package qfile reads and writes the files of Haraka's queue: their names and
// their contents. It is a pure codec and touches no file system.
//
// A file is one message for one destination:
//
//	0    N, uint32 big-endian
//	4    envelope: LF, JSON indented by tabs, LF; N bytes in all
//	4+N  message: CRLF line ends, dot-stuffed (RFC 5321 section 4.5.2), no final dot
//
// The JSON is an object with the keys queue_time (Unix milliseconds), domain,
// rcpt_to, mail_from, notes, uuid and force_tls, in this order. Files of old
// versions have compact JSON without the line feeds, lack force_tls, and may
// write an address as a string, or with nulls. Everything but the envelope and
// the schedule is inside the JSON; attempts and the next try are in the name.
//
// Decode returns errors that wrap ErrDamaged for files that can never be read,
// and the error of the reader for all others.
package qfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"tarishi/internal/mail"
)

// ErrDamaged is what the errors about a file's content wrap.
var ErrDamaged = errors.New("damaged queue file")

const (
	prefix      = 4
	maxEnvelope = 64 << 20 // bytes that we are willing to read

	// lastMillis is the end of the year 9999, beyond which no time can be
	// written as text.
	lastMillis = 253402300799999
)

// Message is the content of a file.
type Message struct {
	Queued     time.Time // in milliseconds; zero: not said
	Domain     string    // destination, lower case
	Recipients []Recipient
	From       mail.Address
	Notes      json.RawMessage // the transaction's notes, a JSON object; empty: none
	UUID       string          // of the transaction, and the number of the delivery: UUID.n.k
	ForceTLS   bool            // written by Haraka and never read
	Content    mail.Content    // not dot-stuffed
}

// Recipient is one entry of rcpt_to.
type Recipient struct {
	Address mail.Address
	Last    string // the reply that deferred it last, which old versions kept; "": none
}

func damaged(format string, a ...any) error {
	return fmt.Errorf("%w: %w", ErrDamaged, fmt.Errorf(format, a...))
}

// Decode reads a file of size bytes. The Content of the message reads from r
// whenever it is opened.
func Decode(r io.ReaderAt, size int64) (*Message, error) {
	if size == 0 {
		return nil, damaged("it is empty")
	}
	if size < prefix {
		return nil, damaged("%d bytes are not even a length", size)
	}
	var head [prefix]byte
	if err := readAt(r, head[:], 0); err != nil {
		return nil, err
	}

	// The length is the first thing to be wrong in a damaged file. No memory is allocated for it
	// before it has been checked.
	n := int64(binary.BigEndian.Uint32(head[:]))
	switch {
	case n > size-prefix:
		return nil, damaged("the envelope should have %d bytes and only %d follow: cut short, or a wrong length", n, size-prefix)
	case n > maxEnvelope:
		return nil, damaged("an envelope of %d bytes is too long", n)
	case n == 0:
		return nil, damaged("an envelope of 0 bytes")
	case n == size-prefix:
		return nil, damaged("no message follows the envelope")
	}
	b := make([]byte, n)
	if err := readAt(r, b, prefix); err != nil {
		return nil, err
	}
	m, err := decodeEnvelope(b)
	if err != nil {
		return nil, err
	}
	m.Content, err = newContent(r, prefix+n, size)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// readAt fills b. A file that ends earlier than it did before is not damaged:
// somebody writes to it.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	return nil
}

// Encode writes m as Haraka 3.3 does.
func Encode(w io.Writer, m *Message) error {
	b, err := encodeEnvelope(m)
	if err != nil {
		return err
	}
	if len(b) > maxEnvelope {
		return fmt.Errorf("an envelope of %d bytes is too long", len(b))
	}
	head := binary.BigEndian.AppendUint32(make([]byte, 0, prefix+len(b)), uint32(len(b)))
	if _, err := w.Write(append(head, b...)); err != nil {
		return err
	}
	return writeStuffed(w, m.Content)
}
