package scan

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// endings are the ways in which servers were made to see an end of data where
// there is none (CVE-2023-51764 and its kin).
var endings = map[string]string{
	"LF.LF": "\n.\n", "LF.CRLF": "\n.\r\n", "CRLF.LF": "\r\n.\n", "CR.CR": "\r.\r", "CR.CRLF": "\r.\r\n", "LF.CR": "\n.\r",
	"CRLF.CR": "\r\n.\r", "CRLF NUL.CRLF": "\r\n\x00.\r\n",
}

// scanAll runs a scanner over b in pieces of the sizes in cut, as a stream does.
func scanAll(b []byte, dots bool, cut []byte) (out []byte, used int, done bool, err error) {
	s := Scanner{Dots: dots}
	var w bytes.Buffer
	shown := 0
	for i := 0; !done && err == nil; i++ {
		step := len(b)
		if len(cut) > 0 {
			step = int(cut[i%len(cut)])%7 + 1
		}
		if shown = min(shown+step, len(b)); shown == used && used == len(b) {
			break
		}
		var n int
		n, done, err = s.Scan(b[used:shown], &w)
		if rest := shown - used - n; !done && err == nil && rest > 2 {
			panic("too much is held back")
		}
		used += n
		if shown == len(b) && !done && err == nil {
			break
		}
	}
	return w.Bytes(), used, done, err
}

func FuzzScanner(f *testing.F) {
	for _, e := range endings {
		f.Add([]byte("a\r\n..b"+e+"x\r\n.\r\n"), true, []byte{1})
		f.Add([]byte("a\r\n..b"+e), false, []byte{3, 1})
	}
	f.Add([]byte(".\r\n"), true, []byte{1, 1})
	f.Fuzz(func(t *testing.T, b []byte, dots bool, cut []byte) {
		whole, used, done, err := scanAll(b, dots, nil)
		pieces, used2, done2, err2 := scanAll(b, dots, cut)
		if done != done2 || !errors.Is(err2, err) {
			t.Fatalf("%q: %v %v in one piece, %v %v cut by %v", b, done, err, done2, err2, cut)
		}
		if err != nil {
			return
		}
		if used != used2 || !bytes.Equal(whole, pieces) {
			t.Fatalf("%q: %q (%d) in one piece, %q (%d) cut by %v", b, whole, used, pieces, used2, cut)
		}
		// Against the definition.
		text := string(b)
		if dots {
			if strings.HasPrefix(text, ".\r\n") {
				text = ""
			} else if i := strings.Index(text, "\r\n.\r\n"); i >= 0 {
				text = text[:i+2]
			} else if done {
				t.Fatalf("%q has no end", b)
			} else {
				return
			}
			if !done {
				t.Fatalf("the end of %q was not seen", b)
			}
			text = strings.ReplaceAll("\r\n"+text, "\r\n.", "\r\n")[2:]
		}
		if string(whole) != text {
			t.Fatalf("%q became %q, want %q", b, whole, text)
		}
		if bare := strings.ReplaceAll(text, "\r\n", ""); strings.Trim(bare[:max(0, len(bare)-1)], "\r\n") != bare[:max(0, len(bare)-1)] || strings.Contains(bare, "\n") {
			t.Fatalf("%q passed with a bare CR or LF", b)
		}
	})
}

func BenchmarkScanner(b *testing.B) {
	content := []byte(strings.Repeat(strings.Repeat("x", 76)+"\r\n", 400))
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		s := Scanner{Dots: true}
		if _, _, err := s.Scan(content, io.Discard); err != nil {
			b.Fatal(err)
		}
	}
}
