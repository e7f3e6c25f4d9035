package wire

import (
	"encoding/base64"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzMask: what is masked holds no password and no base64 with one, and loses
// nothing without a reason.
func FuzzMask(f *testing.F) {
	for _, s := range [][3]string{
		{"alice", "correct horse", "unknown command AUTH PLAIN AGFsaWNlAGNvcnJlY3QgaG9yc2U="},
		{"a", "b", "a b c AGEAYg=="},
		{"", "longer than eight", "LONGER THAN EIGHT eight longer"},
		{"u", "****", "**** ********"},
		{"bob", "aaaaaaaaaaaa", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"},
		{"x", "pass", "passpasspass=="},
		{"box", strings.Repeat("abcdefghi", 40), "x" + strings.Repeat("abcdefghi", 40) + " y " + strings.Repeat("abcdefghi", 3) + "> z"},
	} {
		f.Add(s[0], s[1], s[2])
	}
	f.Fuzz(func(t *testing.T, user, pass, text string) {
		if len(text) > 4096 || len(user)+len(pass) > 1000 {
			return
		}
		s := NewSecrets(user, pass)
		s.Answered("PLAIN", []byte("\x00"+user+"\x00"+pass))
		out := string(s.Mask([]byte(text), true))
		if utf8.ValidString(text) && utf8.ValidString(pass) && !utf8.ValidString(out) {
			t.Errorf("%q became %q", text, out)
		}
		plain := base64.RawStdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + pass))
		for _, secret := range []string{string(cleaned(pass)), plain} {
			if len(secret) >= shortest && !strings.ContainsRune(secret, '*') && strings.Contains(string(lowerCase([]byte(out))), string(lowerCase([]byte(secret)))) && s != nil {
				t.Errorf("%q is in %q", secret, out)
			}
		}
		if len(text) > 0 && out != text && !strings.Contains(out, masked) {
			t.Errorf("%q became %q", text, out)
		}
	})
}
