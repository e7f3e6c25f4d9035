package canon

import (
	"crypto/sha256"
	"io"
	"slices"
	"strings"
	"testing"
)

// Examples of RFC 6376 section 3.4.5, and bodies of nothing.
func TestCanonicalForms(t *testing.T) {
	field := []byte("B : Y\t\r\n\tZ  \r\n")
	if got := string(Relaxed.AppendField(nil, []byte("A: X\r\n"))) + string(Relaxed.AppendField(nil, field)); got != "a:X\r\nb:Y Z\r\n" {
		t.Errorf("relaxed header %q", got)
	}
	if got := string(Simple.AppendField(nil, field)); got != string(field) {
		t.Errorf("simple header %q", got)
	}
	for _, c := range []struct{ body, simple, relaxed string }{
		{" C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
		{"", "\r\n", ""},
		{"\r\n", "\r\n", ""},
		{"\r\n\r\n", "\r\n", ""},
		{" \t\r\n\r\n", " \t\r\n", ""},
		{"a", "a\r\n", "a\r\n"},
		{"a \t", "a \t\r\n", "a\r\n"},
		{"\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
		{"a\r\n \r\nb\r\n", "a\r\n \r\nb\r\n", "a\r\n\r\nb\r\n"},
		{"a\r\rb\n\r\n", "a\r\rb\n\r\n", "a\r\rb\n\r\n"},
		{"plain\r\nlines\r\n\tand  not\r\nplain\r\n\r\n", "plain\r\nlines\r\n\tand  not\r\nplain\r\n", "plain\r\nlines\r\n and not\r\nplain\r\n"},
		{strings.Repeat("\r\n", 3000) + "x", strings.Repeat("\r\n", 3000) + "x\r\n", strings.Repeat("\r\n", 3000) + "x\r\n"},
	} {
		for _, piece := range []int{len(c.body), 1, 2, 3} {
			for way, want := range map[Algorithm]string{Simple: c.simple, Relaxed: c.relaxed} {
				if got := canonicalBody(way, c.body, piece); got != want {
					t.Errorf("%s body %.40q in pieces of %d: %.40q, want %.40q", way, c.body, piece, got, want)
				}
			}
		}
	}
}

// text is a hash that keeps what it is given.
type text struct{ strings.Builder }

func (t *text) Sum([]byte) []byte { return []byte(t.String()) }
func (t *text) Size() int         { return 0 }
func (t *text) BlockSize() int    { return 1 }

func canonicalBody(c Algorithm, body string, piece int) string {
	h := NewBodyHash(c, &text{})
	for b := []byte(body); len(b) > 0; {
		n := min(max(piece, 1), len(b))
		h.Add(b[:n])
		b = b[n:]
	}
	return string(h.Finish())
}

// The canonical body is what a plain reading of RFC 6376 sections 3.4.3 and 3.4.4 makes
// of it, for bodies of whole lines.
func FuzzCanonicalBody(f *testing.F) {
	f.Add("a \t b\n\n c\n\n\n", 2)
	f.Add("\n\n", 1)
	f.Fuzz(func(t *testing.T, body string, piece int) {
		lines := strings.Split(strings.ReplaceAll(body, "\r", ""), "\n")
		body = strings.Join(lines, "\r\n")
		for _, c := range []Algorithm{Simple, Relaxed} {
			var want []string
			for _, line := range lines {
				if c == Relaxed {
					begun := len(line) > 0 && isBlank(line[0])
					line = strings.Join(strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' }), " ")
					if begun && line != "" {
						line = " " + line
					}
				}
				want = append(want, line)
			}
			for len(want) > 0 && want[len(want)-1] == "" {
				want = want[:len(want)-1]
			}
			text := strings.Join(append(want, ""), "\r\n")
			if c == Simple && text == "" {
				text = "\r\n"
			}
			if got := canonicalBody(c, body, piece); got != text {
				t.Errorf("%s %q in pieces of %d: %q, want %q", c, body, piece, got, text)
			}
		}
	})
}

// BenchmarkBody hashes a body alone: with blanks to change in every line, and with none.
func BenchmarkBody(b *testing.B) {
	for name, line := range map[string]string{"plain": "Lorem ipsum dolor sit amet, consectetur adipisicing elit, sed do.\r\n", "blanks": "\t<td>  a  cell</td>  \r\n"} {
		body := []byte(strings.Repeat(line, (1<<20)/len(line)))
		for _, canon := range []Algorithm{Simple, Relaxed} {
			b.Run(name+"/"+canon.String(), func(b *testing.B) {
				b.SetBytes(int64(len(body)))
				for b.Loop() {
					h := NewBodyHash(canon, sha256.New())
					for piece := range slices.Chunk(body, 32<<10) {
						h.Add(piece)
					}
					io.Discard.Write(h.Finish())
				}
			})
		}
	}
}
