package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"net/url"
	"strings"
)

// masked stands for a secret in what a server said.
const masked = "********"

const (
	piece    = 8   // so many bytes of a secret in a row are a part of it
	shortest = 4   // shorter ones count only as whole words
	long     = 256 // bytes of a form from which on one piece in piece is kept: a token has thousands
)

// Secrets finds the credentials of a connection in what its server says: many
// quote the command that they do not understand, and a reply goes into DSNs, logs
// and the queue. Letters count in either case, since servers change it.
type Secrets struct {
	user   []byte              // counts while we authenticate, as a word: it is an address elsewhere
	short  [][]byte            // forms of less than piece bytes, in lower case
	pieces map[uint64]struct{} // every piece of the longer ones
	blocks map[uint64]struct{} // one piece after the other of those that are really long
}

// NewSecrets returns what hides a user's credentials; nil: there are none.
func NewSecrets(user, pass string) *Secrets {
	if user == "" && pass == "" {
		return nil
	}
	s := &Secrets{user: lowerCase(cleaned(user)), pieces: map[uint64]struct{}{}, blocks: map[uint64]struct{}{}}
	s.addSecret(pass)
	s.encoded(user)
	s.encoded(user + "\x00" + pass)
	s.encoded("\x00" + user + "\x00" + pass)
	s.encoded(user + "\x00" + user + "\x00" + pass)
	return s
}

// Answered adds what was sent in an exchange of AUTH.
func (s *Secrets) Answered(mechanism string, answer []byte) {
	if s == nil {
		return
	}
	s.encoded(string(answer))
	if i := bytes.LastIndexByte(answer, ' '); mechanism == "CRAM-MD5" && i >= 0 {
		s.addSecret(string(answer[i+1:]))
	}
}

// addSecret adds a secret in all forms: as it is, in hexadecimal, as in a URL, and in
// base64 by itself and within something longer.
func (s *Secrets) addSecret(secret string) {
	if s == nil || secret == "" {
		return
	}
	s.addForm(string(cleaned(secret)))
	s.addForm(hex.EncodeToString([]byte(secret)))
	s.addForm(url.QueryEscape(secret))
	s.addForm(url.PathEscape(secret))
	for before := range 3 { // bytes modulo 3 in front
		text := strings.Repeat("\x00", before) + secret
		// A digit of base64 has six bits: those that share some with a neighbour are left out.
		from, to := (before*8+5)/6, len(text)*8/6
		if from >= to {
			continue
		}
		for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			s.addForm(e.EncodeToString([]byte(text))[from:to])
		}
	}
	s.encoded(secret)
}

// encoded adds the base64 of something that holds a secret.
func (s *Secrets) encoded(text string) {
	s.addForm(base64.RawStdEncoding.EncodeToString([]byte(text)))
	s.addForm(base64.RawURLEncoding.EncodeToString([]byte(text)))
}

func (s *Secrets) addForm(text string) {
	low := lowerCase([]byte(text))
	switch {
	case text == "":
	case len(low) < piece:
		s.short = append(s.short, low)
	case len(low) >= long:
		for i := 0; i+piece <= len(low); i += piece {
			s.blocks[binary.LittleEndian.Uint64(low[i:])] = struct{}{}
		}
	default:
		for i := 0; i+piece <= len(low); i++ {
			s.pieces[binary.LittleEndian.Uint64(low[i:])] = struct{}{}
		}
	}
}

// Mask returns text without the secrets: text itself when it has none. login is
// set for the replies to AUTH.
func (s *Secrets) Mask(text []byte, login bool) []byte {
	if s == nil || len(text) == 0 {
		return text
	}

	// The comparison is in lower case; positions are the same in both.
	low := lowerCase(text)
	var out []byte
	copied := 0
	for i := 0; i < len(low); {
		n := s.matchAt(low, i, login)
		if n == 0 {
			i++
			continue
		}

		// Of a long secret only blocks are known: the whole word around one is hidden.
		if s.isBlock(low, i) {
			for i > copied && !isBreak(low[i-1]) {
				i--
				n++
			}
		}

		// Pieces that touch become one mask, so that its length tells nothing.
		if !bytes.HasSuffix(out, []byte(masked)) || copied < i {
			out = append(append(out, text[copied:i]...), masked...)
		}
		i += n
		for i < len(low) && low[i] == '=' { // the end of base64
			i++
		}
		copied = i
	}
	if out == nil {
		return text
	}
	return bytes.ToValidUTF8(append(out, text[copied:]...), []byte("?")) // a piece may begin within a character
}

// matchAt returns the length of the secret that begins at low[i:]; 0: none does.
func (s *Secrets) matchAt(low []byte, i int, login bool) int {
	n := 0
	if s.isBlock(low, i) {
		for n = piece; i+n < len(low) && !isBreak(low[i+n]); {
			n++
		}
		return n
	}
	for i+n+piece <= len(low) {
		if _, found := s.pieces[binary.LittleEndian.Uint64(low[i+n:])]; !found {
			break
		}
		n++
	}
	if n > 0 {
		return n + piece - 1
	}
	for _, f := range s.short {
		if bytes.HasPrefix(low[i:], f) && (len(f) >= shortest || isWord(low, i, len(f))) {
			return len(f)
		}
	}
	if login && len(s.user) > 0 && bytes.HasPrefix(low[i:], s.user) && isWord(low, i, len(s.user)) {
		return len(s.user)
	}
	return 0
}

// isBlock reports whether a block of a long secret is at low[i:].
func (s *Secrets) isBlock(low []byte, i int) bool {
	if len(s.blocks) == 0 || i+piece > len(low) {
		return false
	}
	_, found := s.blocks[binary.LittleEndian.Uint64(low[i:])]
	return found
}

// isBreak reports whether c ends the words of a text that tokens can be part of.
func isBreak(c byte) bool { return c <= ' ' || c == '<' || c == '>' || c == '"' || c == '\'' }

// isWord reports whether no letter or digit is before or behind n bytes at i.
func isWord(text []byte, i, n int) bool {
	alphanumeric := func(i int) bool {
		return i >= 0 && i < len(text) && (isDigit(text[i]) || 'a' <= text[i] && text[i] <= 'z' || text[i] >= 0x80)
	}
	return !alphanumeric(i-1) && !alphanumeric(i+n)
}

// lowerCase returns a copy of text with the letters of ASCII in lower case.
func lowerCase(text []byte) []byte {
	low := bytes.Clone(text)
	for i, c := range low {
		if 'A' <= c && c <= 'Z' {
			low[i] = c + 'a' - 'A'
		}
	}
	return low
}

// cleaned is s as the text of a reply has it.
func cleaned(s string) []byte {
	var p Response
	p.appendText([]byte(s), false)
	return p.Text
}
