package spool

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strconv"
	"time"

	"tarishi/internal/mail"
)

// Errors that LoadState and DecodeState wrap.
var (
	ErrDamaged = errors.New("damaged state file")
	ErrVersion = errors.New("state file of a newer version")

	// ErrUnlisted is passed on by Walk for a folder that hides its messages.
	ErrUnlisted = errors.New("folder cannot be listed")
)

const (
	stateVersion = 2
	sumVersion   = 2        // the first with a checksum at the end of its documents
	maxState     = 64 << 20 // bytes that we are willing to read
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Sum is the CRC-32C of a content; the zero Sum says that nobody knows it.
type Sum struct {
	CRC   uint32
	Known bool
}

// SumOf returns the Sum of bytes.
func SumOf(parts ...[]byte) Sum {
	var s Summer
	for _, p := range parts {
		_, _ = s.Write(p)
	}
	return s.Sum()
}

// Summer is an io.Writer that computes a Sum.
type Summer struct{ crc uint32 }

// Write implements io.Writer.
func (s *Summer) Write(p []byte) (int, error) {
	s.crc = crc32.Update(s.crc, castagnoli, p)
	return len(p), nil
}

// Sum returns the Sum of what was written.
func (s *Summer) Sum() Sum { return Sum{CRC: s.crc, Known: true} }

// MarshalText writes eight hexadecimal digits.
func (s Sum) MarshalText() ([]byte, error) { return fmt.Appendf(nil, "%08x", s.CRC), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Sum) UnmarshalText(b []byte) error {
	crc, err := strconv.ParseUint(string(b), 16, 32)
	if err != nil || len(b) != 8 {
		return fmt.Errorf("%q is no CRC-32C of eight hexadecimal digits", b)
	}
	*s = Sum{CRC: uint32(crc), Known: true}
	return nil
}

// IsZero says that it is not known.
func (s Sum) IsZero() bool { return !s.Known }

// State is the document ID.json: sender and recipients of a message, and what became
// of each recipient. Its last member "crc32c" is the checksum of all that stands
// before it, so that one changed bit is noticed. A document of version 1 has none,
// and is not checked: that is for older programs and for editors. Every later
// version ends with it, so that damage and a newer version can be told apart.
type State struct {
	Version    int            `json:"version"`                 // 1 or 2
	Size       int64          `json:"size"`                    // bytes of ID.eml
	Content    Sum            `json:"content_crc32c,omitzero"` // of ID.eml, if it is known
	Envelope   *mail.Envelope `json:"envelope"`
	Recipients []Recipient    `json:"recipients"` // in the order of envelope.recipients
}

// Recipient is the state of one recipient.
type Recipient struct {
	Status   Status     `json:"status"`
	Attempts int        `json:"attempts,omitempty"` // that ended in a deferral
	Next     *time.Time `json:"next,omitempty"`     // due; absent: at once
	Last     string     `json:"last,omitempty"`     // the reply that deferred it last
	Held     bool       `json:"held,omitempty"`     // not to be tried until it is released
}

// Status says whether anything is left to do for a recipient.
type Status string

// The two values of Status.
const (
	Pending Status = "pending" // neither delivered nor failed
	Settled Status = "settled" // delivered, or failed and reported
)

// Encode returns the document.
func (st *State) Encode() ([]byte, error) {
	c := *st
	c.Version = stateVersion
	b, err := json.MarshalIndent(&c, "", " ")
	if err != nil {
		return nil, err
	}

	// The checksum has to cover the bytes as they stand in the file, so it is appended to the text
	// and not marshalled with it.
	b = bytes.TrimSuffix(b, []byte("\n}"))
	return append(b, trailer(b)...), nil
}

// trailer is the end of a document that begins with b.
func trailer(b []byte) []byte {
	return fmt.Appendf(nil, ",\n \"crc32c\": \"%08x\"\n}\n", crc32.Checksum(b, castagnoli))
}

var trailerSize = len(trailer(nil))

// checkSum says whether a document ends with a checksum, and whether that is
// right.
func checkSum(b []byte) (there, right bool) {
	at := len(b) - trailerSize
	if at < 0 {
		return false, false
	}
	want := trailer(b[:at])
	return bytes.HasPrefix(b[at:], want[:bytes.LastIndexByte(want, ':')]), bytes.Equal(b[at:], want)
}

// DecodeState reads the document of message id and checks all that the queue
// relies on.
func DecodeState(id mail.ID, b []byte) (*State, error) {
	there, right := checkSum(b)
	if there && !right {
		return nil, fmt.Errorf("%w: its checksum does not match", ErrDamaged)
	}
	var st State
	err := json.Unmarshal(b, &st)
	if st.Version > stateVersion {
		return nil, fmt.Errorf("%w: %d", ErrVersion, st.Version)
	}
	if err != nil {
		// What makes it unreadable may be the newer version.
		var v struct {
			Version int `json:"version"`
		}
		if json.Unmarshal(b, &v) == nil && v.Version > stateVersion {
			return nil, fmt.Errorf("%w: %d", ErrVersion, v.Version)
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}

	// A document that is well-formed may still be of another message, or cut short.
	if err = st.checkState(id); err == nil && st.Version >= sumVersion && !right {
		err = errors.New("it does not end with a checksum")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return &st, nil
}

func (st *State) checkState(id mail.ID) error {
	// Each of these would make the queue attempt, or forget, the wrong recipients.
	switch {
	case st.Version < 1:
		return errors.New("no version")
	case st.Envelope == nil:
		return errors.New("no envelope")
	case st.Envelope.ID != id:
		return fmt.Errorf("it is about message %q", st.Envelope.ID)
	case st.Size < 0:
		return errors.New("negative size")
	case len(st.Recipients) == 0, len(st.Recipients) != len(st.Envelope.Recipients):
		return fmt.Errorf("%d recipients in the envelope, %d states", len(st.Envelope.Recipients), len(st.Recipients))
	}
	for i, r := range st.Recipients {
		if r.Status != Pending && r.Status != Settled {
			return fmt.Errorf("recipient %d has the status %q", i, r.Status)
		}
		if r.Attempts < 0 || r.Attempts > math.MaxInt32 {
			return fmt.Errorf("recipient %d has %d attempts", i, r.Attempts)
		}
	}
	return nil
}
