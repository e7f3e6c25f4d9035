package queue

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"tarishi/internal/journal"
	"tarishi/internal/mail"
	"tarishi/internal/spool"
)

// The kinds of record.
const (
	kindMessage  = journal.FirstKind + iota // envelope, and content unless it is large
	kindSettled                             // recipients that are delivered, or failed and reported
	kindDeferred                            // recipients to try again
	kindDone                                // nothing is left to do, or the message was never accepted
	kindHeld                                // recipients not to be tried
	kindReleased                            // recipients that are held no more
	kindNotes                               // notes of a message that changed
)

const (
	recordVersion = 1
	messageHead   = 24
	inSpool       = 1 // flag of a Message record: the content is msg/XX/ID.eml
	hasSum        = 2 // flag of a Message record: it holds the content's checksum
	hasSeal       = 4 // flag of a Message record: what stands before the content ends with its own
	sealSize      = 4

	// usualEnvelope is how many bytes of JSON an envelope has at most, as a rule, and
	// usualRecipient each of its recipients.
	usualEnvelope  = 512
	usualRecipient = 64

	// maxLast is how much of a reply is kept in bytes.
	maxLast = 1000
)

var errRecord = errors.New("malformed record")

// message is the fixed part of a Message record:
//
//	 0  version (1)   1  flags   2  length of the ID   3  0
//	 4  recipients (4 bytes)     8  length of the envelope (4)
//	12  CRC-32C of the content (4), if there is a flag that says so
//	16  size of the content (8)
//	24  ID, envelope as JSON, CRC-32C of all before it (4) if a flag says so, content
//
// The frame has a checksum of the whole payload, which only a replay reads. That
// of the envelope is for those who read nothing else: a changed bit of an address
// must not be believed.
type message struct {
	id         mail.ID
	recipients int
	envelope   int64 // bytes
	size       int64 // of the content
	spooled    bool  // the content is not in the record
	sealed     bool  // the envelope has a checksum
	sum        spool.Sum
}

// offset is where the content stands, and what stands before it ends.
func (m *message) offset() int64 {
	n := messageHead + int64(len(m.id)) + m.envelope
	if m.sealed {
		n += sealSize
	}
	return n
}

// seal completes what encodeMessage returned with the checksums of the content
// and of itself.
func seal(head []byte, sum spool.Sum) {
	head[1] |= hasSum | hasSeal
	binary.LittleEndian.PutUint32(head[12:], sum.CRC)
	end := len(head) - sealSize
	binary.LittleEndian.PutUint32(head[end:], spool.SumOf(head[:end]).CRC)
}

// encodeMessage returns the part of a Message record before its content, which
// lacks its checksums: see seal. An envelope that would not read back is an error: better now than when nobody is
// there to be told.
func encodeMessage(env *mail.Envelope, size int64, spooled bool) ([]byte, error) {
	if err := readsBack(env.From); err != nil {
		return nil, err
	}
	for _, r := range env.Recipients {
		if err := readsBack(r.Address); err != nil {
			return nil, err
		}
	}
	b := make([]byte, messageHead, messageHead+len(env.ID)+usualEnvelope+usualRecipient*len(env.Recipients))
	b[0], b[2] = recordVersion, byte(len(env.ID))
	if spooled {
		b[1] = inSpool
	}
	binary.LittleEndian.PutUint32(b[4:], uint32(len(env.Recipients)))
	binary.LittleEndian.PutUint64(b[16:], uint64(size))

	// The envelope is written in place, and its length before it.
	b = append(b, env.ID...)
	begin := len(b)
	b, err := env.AppendJSON(b)
	if err != nil {
		return nil, err
	}
	binary.LittleEndian.PutUint32(b[8:], uint32(len(b)-begin))
	return append(b, make([]byte, sealSize)...), nil
}

func readsBack(a mail.Address) error {
	b, err := mail.ParseAddress(a.String())
	if err == nil && a != b {
		err = fmt.Errorf("%w: it would read back as another one", mail.ErrAddress)
	}
	return err
}

// decodeMessage reads the fixed part and the ID from the first bytes of a
// payload that is total bytes long.
func decodeMessage(b []byte, total int64) (message, error) {
	if len(b) < messageHead || b[0] != recordVersion || len(b) < messageHead+int(b[2]) {
		return message{}, errRecord
	}
	m := message{
		id:         mail.ID(b[messageHead : messageHead+int(b[2])]),
		recipients: int(binary.LittleEndian.Uint32(b[4:])),
		envelope:   int64(binary.LittleEndian.Uint32(b[8:])),
		size:       int64(binary.LittleEndian.Uint64(b[16:])),
		spooled:    b[1]&inSpool != 0,
		sealed:     b[1]&hasSeal != 0,
	}
	if b[1]&hasSum != 0 {
		m.sum = spool.Sum{CRC: binary.LittleEndian.Uint32(b[12:]), Known: true}
	}
	want := m.offset()
	if !m.spooled {
		want += m.size
	}
	// An envelope spends more than one byte on each recipient.
	if !m.id.Valid() || m.size < 0 || want != total || m.recipients == 0 || int64(m.recipients) > m.envelope {
		return message{}, errRecord
	}
	return m, nil
}

// decodeEnvelope reads the envelope from what stands before the content.
func decodeEnvelope(b []byte, m message) (*mail.Envelope, error) {
	if end := len(b) - sealSize; m.sealed {
		if binary.LittleEndian.Uint32(b[end:]) != spool.SumOf(b[:end]).CRC {
			return nil, fmt.Errorf("%w: the envelope's checksum does not match", errRecord)
		}
		b = b[:end]
	}
	var env mail.Envelope
	if err := json.Unmarshal(b[messageHead+len(m.id):], &env); err != nil {
		return nil, err
	}
	if env.ID != m.id || len(env.Recipients) != m.recipients {
		return nil, fmt.Errorf("%w: the envelope is of another message", errRecord)
	}
	return &env, nil
}

// change is a record about recipients of a message that is there already:
// version (1 byte), length of the ID (1), ID; then for all but Done the count of
// recipients and their indices; then for Deferred the attempts, the
// next try in Unix milliseconds, and the length and the text of the last reply.
// Numbers are unsigned varints. Notes has a JSON object behind the ID, from dotted
// paths to values.
type change struct {
	id         mail.ID
	recipients []int
	attempts   int
	next       int64
	last       string
	notes      map[string]json.RawMessage
}

func encodeChange(k journal.Kind, c change) []byte {
	b := make([]byte, 0, 16+len(c.id)+3*len(c.recipients)+len(c.last))
	b = append(b, recordVersion, byte(len(c.id)))
	b = append(b, c.id...)
	switch k {
	case kindDone:
		return b
	case kindNotes:
		j, err := json.Marshal(c.notes)
		if err != nil { // its values were made by Marshal
			panic(err)
		}
		return append(b, j...)
	}
	b = binary.AppendUvarint(b, uint64(len(c.recipients)))
	for _, i := range c.recipients {
		b = binary.AppendUvarint(b, uint64(i))
	}
	if k != kindDeferred {
		return b
	}
	b = binary.AppendUvarint(b, uint64(c.attempts))
	b = binary.AppendUvarint(b, uint64(c.next))
	b = binary.AppendUvarint(b, uint64(len(c.last)))
	return append(b, c.last...)
}

func decodeChange(k journal.Kind, b []byte) (change, error) {
	if len(b) < 2 || b[0] != recordVersion || len(b) < 2+int(b[1]) {
		return change{}, errRecord
	}
	c := change{id: mail.ID(b[2 : 2+int(b[1])])}
	b = b[2+int(b[1]):]
	bad := !c.id.Valid()
	number := func(limit uint64) uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 || v > limit {
			bad = true
			return 0
		}
		b = b[n:]
		return v
	}
	switch k {
	case kindNotes:
		if err := json.Unmarshal(b, &c.notes); err != nil || c.notes == nil {
			bad = true
		}
		b = nil
	case kindSettled, kindDeferred, kindHeld, kindReleased:
		count := number(uint64(len(b))) // each takes a byte at least
		c.recipients = make([]int, count)
		for i := range c.recipients {
			c.recipients[i] = int(number(1<<32 - 1))
		}
	}
	if k == kindDeferred {
		c.attempts = int(number(1<<31 - 1))
		c.next = int64(number(1<<63 - 1))
		n := number(uint64(len(b)))
		if n > uint64(len(b)) {
			bad = true
		} else {
			c.last, b = string(b[:n]), b[n:]
		}
	}
	if bad || len(b) > 0 {
		return change{}, errRecord
	}
	return c, nil
}

// clip returns a reply as it is kept: valid UTF-8 and not too long.
func clip(s string) string {
	if len(s) > maxLast {
		s = s[:maxLast]
	}
	return strings.ToValidUTF8(s, "")
}
