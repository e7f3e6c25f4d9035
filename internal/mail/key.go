package mail

import (
	"encoding/binary"
	"encoding/hex"
	"strconv"
)

// Key is an ID in 20 bytes, for stores that keep a million of them: the UUID and
// the transaction's number. Keys are equal when their IDs are. The zero Key is
// the Key of no ID.
type Key [20]byte

// Key returns the Key of an ID as NewID makes it; ok is false for one of any
// other form.
func (id ID) Key() (k Key, ok bool) {
	if len(id) < 38 || len(id) > 47 || id[36] != '.' {
		return Key{}, false
	}
	at := 0
	for _, part := range [...][2]int{{0, 8}, {9, 13}, {14, 18}, {19, 23}, {24, 36}} {
		n, err := hex.Decode(k[at:16], []byte(id[part[0]:part[1]]))
		if err != nil {
			return Key{}, false
		}
		at += n
	}
	n, err := strconv.ParseUint(string(id[37:]), 10, 32)

	// The zero Key stands for "no ID", so no ID may map to it.
	if err != nil || [16]byte(k[:16]) == [16]byte{} {
		return Key{}, false
	}
	binary.BigEndian.PutUint32(k[16:], uint32(n))
	var b [47]byte
	return k, string(k.appendID(b[:0])) == string(id) // there is one spelling only
}

// ID returns the ID that k was made of.
func (k Key) ID() ID {
	var b [47]byte
	return ID(k.appendID(b[:0]))
}

func (k Key) appendID(b []byte) []byte {
	const digits = "0123456789ABCDEF"
	for i, c := range k[:16] {
		if i == 4 || i == 6 || i == 8 || i == 10 {
			b = append(b, '-')
		}
		b = append(b, digits[c>>4], digits[c&15])
	}
	b = append(b, '.')
	return strconv.AppendUint(b, uint64(binary.BigEndian.Uint32(k[16:])), 10)
}
