package mail

import (
	"encoding/binary"
	"unicode/utf8"
)

// IsASCII reports whether all of s is ASCII. It looks at eight bytes at a time, for s
// may be a body.
func IsASCII[T string | []byte](s T) bool {
	b := []byte(s)
	for ; len(b) >= 8; b = b[8:] {
		if binary.NativeEndian.Uint64(b)&0x8080808080808080 != 0 {
			return false
		}
	}
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
