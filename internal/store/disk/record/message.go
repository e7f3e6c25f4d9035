// Package record is the format of what package disk keeps in its journal: a Message
// for each message that was accepted, and changes of it. docs/queue-format.md shows
// the bytes. Whatever is read here may be damaged or forged: it is checked, and never
// trusted with a length.
package record

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// The kinds of record.
const (
	KindMessage  = journal.FirstKind + iota // envelope, and content unless it is large
	KindSettled                             // recipients that are delivered, or failed and reported
	KindDeferred                            // recipients to try again
	KindDone                                // nothing is left to do, or the message was never accepted
	KindHeld                                // recipients not to be tried
	KindReleased                            // recipients that are held no more
	KindNotes                               // notes of a message that changed
)

const (
	Version  = 1 // of all records: their first byte
	SealSize = 4 // bytes that Seal writes behind the envelope

	messageHead = 24
	inSpool     = 1 // flag of a Message record: the content is msg/XX/ID.eml
	hasSum      = 2 // flag of a Message record: it holds the content's checksum
	hasSeal     = 4 // flag of a Message record: what stands before the content ends with its own
)

// ErrMalformed is the error about anything that is no record of ours.
var ErrMalformed = errors.New("malformed record")

// Message is the fixed part of a Message record:
//
//	 0  version (1)   1  flags   2  length of the ID   3  0
//	 4  recipients (4 bytes)     8  length of the envelope (4)
//	12  CRC-32C of the content (4), if there is a flag that says so
//	16  size of the content (8)
//	24  ID, envelope as JSON, CRC-32C of all before it (4) if a flag says so, content
//
// The frame has a checksum of the whole payload, which only a replay reads. That
// of the envelope is for readers of nothing else: a changed bit of an address
// must not be believed.
type Message struct {
	ID         mail.ID
	Recipients int
	Envelope   int64 // bytes
	Size       int64 // of the content
	Spooled    bool  // the content is not in the record
	Sealed     bool  // the envelope has a checksum
	Sum        spool.Sum
}

// Offset is where the content stands, and what stands before it ends.
func (m *Message) Offset() int64 {
	n := messageHead + int64(len(m.ID)) + m.Envelope
	if m.Sealed {
		n += SealSize
	}
	return n
}

// SealMessage completes what EncodeMessage returned with the checksums of the content
// and of itself.
func SealMessage(head []byte, sum spool.Sum) {
	head[1] |= hasSum | hasSeal
	binary.LittleEndian.PutUint32(head[12:], sum.CRC)
	end := len(head) - SealSize
	binary.LittleEndian.PutUint32(head[end:], spool.SumOf(head[:end]).CRC)
}

// EncodeMessage returns the part of a Message record before its content, which
// lacks its checksums: see Seal. An envelope that would not read back is an error:
// better now, while there is a client to refuse.
func EncodeMessage(env *mail.Envelope, size int64, spooled bool) ([]byte, error) {
	if err := env.From.ReadsBack(); err != nil {
		return nil, err
	}
	for i := range env.Recipients {
		if err := env.Recipients[i].Address.ReadsBack(); err != nil {
			return nil, err
		}
	}

	// The envelope follows the ID, and room for its checksum follows that.
	b := make([]byte, messageHead, messageHead+len(env.ID)+envelopeSize(env)+SealSize)
	b = append(b, env.ID...)
	b, err := appendEnvelope(b, env)
	if err != nil {
		return nil, err
	}
	n := len(b) - messageHead - len(env.ID)
	b = append(b, make([]byte, SealSize)...)

	// The head is filled in last, as it has the lengths of what follows.
	b[0], b[2] = Version, byte(len(env.ID))
	if spooled {
		b[1] = inSpool
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(env.Recipients)))
	binary.LittleEndian.PutUint32(b[8:], uint32(n))
	binary.LittleEndian.PutUint64(b[16:], uint64(size))
	return b, nil
}

// DecodeMessage reads the fixed part and the ID from the first bytes of a
// payload that is total bytes long.
func DecodeMessage(b []byte, total int64) (Message, error) {
	if len(b) < messageHead || b[0] != Version || len(b) < messageHead+int(b[2]) {
		return Message{}, ErrMalformed
	}
	m := Message{
		ID:         mail.ID(b[messageHead : messageHead+int(b[2])]),
		Recipients: int(binary.LittleEndian.Uint32(b[4:])),
		Envelope:   int64(binary.LittleEndian.Uint32(b[8:])),
		Size:       int64(binary.LittleEndian.Uint64(b[16:])),
		Spooled:    b[1]&inSpool != 0,
		Sealed:     b[1]&hasSeal != 0,
	}
	if b[1]&hasSum != 0 {
		m.Sum = spool.Sum{CRC: binary.LittleEndian.Uint32(b[12:]), Known: true}
	}

	// The lengths must add up to the record, and be possible.
	want := m.Offset()
	if !m.Spooled {
		want += m.Size
	}
	// An envelope spends more than one byte on each recipient.
	if !m.ID.Valid() || m.Size < 0 || want != total || m.Recipients == 0 || int64(m.Recipients) > m.Envelope {
		return Message{}, ErrMalformed
	}
	return m, nil
}

// DecodeEnvelope reads the envelope from what stands before the content.
func DecodeEnvelope(b []byte, m Message) (*mail.Envelope, error) {
	if end := len(b) - SealSize; m.Sealed {
		if binary.LittleEndian.Uint32(b[end:]) != spool.SumOf(b[:end]).CRC {
			return nil, fmt.Errorf("%w: the envelope's checksum does not match", ErrMalformed)
		}
		b = b[:end]
	}
	var env mail.Envelope
	if err := json.Unmarshal(b[messageHead+len(m.ID):], &env); err != nil {
		return nil, err
	}
	if env.ID != m.ID || len(env.Recipients) != m.Recipients {
		return nil, fmt.Errorf("%w: the envelope is of another message", ErrMalformed)
	}
	return &env, nil
}
