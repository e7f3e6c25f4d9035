package record

import (
	"encoding/binary"
	"encoding/json"
	"strings"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
)

// Change is a record about recipients of a message that is there already:
// version (1 byte), length of the ID (1), ID; then for all but Done the count of
// recipients and their indices; then for Deferred the attempts, the
// next try in Unix milliseconds, and the length and the text of the last reply.
// Numbers are unsigned varints. Notes has a JSON object behind the ID, from dotted
// paths to values.
type Change struct {
	ID         mail.ID
	Recipients []int
	Attempts   int
	Next       int64
	Last       string
	Notes      map[string]json.RawMessage
}

// EncodeChange returns the payload of a record.
func EncodeChange(k journal.Kind, c Change) []byte {
	b := make([]byte, 0, 16+len(c.ID)+3*len(c.Recipients)+len(c.Last))
	b = append(b, Version, byte(len(c.ID)))
	b = append(b, c.ID...)

	// Done says nothing but the ID, and notes are JSON to the end.
	switch k {
	case KindDone:
		return b
	case KindNotes:
		j, err := json.Marshal(c.Notes)
		if err != nil { // its values were made by Marshal
			panic(err)
		}
		return append(b, j...)
	}

	// All others name recipients, and a deferral what became of them.
	b = binary.AppendUvarint(b, uint64(len(c.Recipients)))
	for _, i := range c.Recipients {
		b = binary.AppendUvarint(b, uint64(i))
	}
	if k != KindDeferred {
		return b
	}
	b = binary.AppendUvarint(b, uint64(c.Attempts))
	b = binary.AppendUvarint(b, uint64(c.Next))
	b = binary.AppendUvarint(b, uint64(len(c.Last)))
	return append(b, c.Last...)
}

// DecodeChange reads a payload of a kind. The Change shares no memory with it.
func DecodeChange(k journal.Kind, b []byte) (Change, error) {
	if len(b) < 2 || b[0] != Version || len(b) < 2+int(b[1]) {
		return Change{}, ErrMalformed
	}
	c := Change{ID: mail.ID(b[2 : 2+int(b[1])])}
	b = b[2+int(b[1]):]
	bad := !c.ID.Valid()

	// Every number is bounded by its possible maximum, so that a forged one makes
	// nothing large.
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > limit {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}

	// The checks below only note trouble: one return decides.
	switch k {
	case KindNotes:
		if err := json.Unmarshal(b, &c.Notes); err != nil || c.Notes == nil {
			bad = true
		}
		b = nil
	case KindSettled, KindDeferred, KindHeld, KindReleased:
		count := number(uint64(len(b))) // each takes a byte at least
		c.Recipients = make([]int, count)
		for i := range c.Recipients {
			c.Recipients[i] = int(number(1<<32 - 1))
		}
	}

	// A deferral ends with the reply, and its length must not lie either.
	if k == KindDeferred {
		c.Attempts = int(number(1<<31 - 1))
		c.Next = int64(number(1<<63 - 1))
		n := number(uint64(len(b)))
		if n > uint64(len(b)) {
			bad = true
		} else {
			c.Last, b = string(b[:n]), b[n:]
		}
	}
	if bad || len(b) > 0 {
		return Change{}, ErrMalformed
	}
	return c, nil
}

// maxLast is how much of a reply is kept in bytes.
const maxLast = 1000

// ClipReply returns a reply as it is kept: valid UTF-8 and not too long.
func ClipReply(s string) string {
	if len(s) > maxLast {
		s = s[:maxLast]
	}
	return strings.ToValidUTF8(s, "")
}
