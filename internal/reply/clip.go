package reply

import (
	"strings"
	"unicode/utf8"
)

// maxClipped is how much of a server's words is kept: bytes.
const maxClipped = 1000

// Clip makes a peer's words fit for a record: valid UTF-8 on one line, without
// control characters, of bounded length.
func Clip(s string) string {
	if len(s) > maxClipped {
		s = s[:maxClipped] + "…"
	}

	// The cut may have split a character, and a peer's bytes need not be UTF-8 at all.
	s = strings.ToValidUTF8(s, "?")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError || 0x80 <= r && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
