package wire

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"tarishi/internal/reply"
)

// normal is what DotWriter makes of content, said in another way.
func normal(s string) string {
	s = regexp.MustCompile(`\r+\n`).ReplaceAllString(s, "\n")
	s = strings.ReplaceAll(s, "\r", "\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\n"
	}
	return strings.ReplaceAll(s, "\n", "\r\n")
}

// unstuff reads what is on the wire as a strict server does.
func unstuff(t *testing.T, wire string) string {
	t.Helper()
	var b strings.Builder
	for {
		line, rest, ok := strings.Cut(wire, "\r\n")
		if !ok || strings.ContainsAny(line, "\r\n") {
			t.Fatalf("bad line %q", line)
		}
		if line == "." {
			if rest != "" {
				t.Fatalf("%q behind the final dot", rest)
			}
			return b.String()
		}
		b.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		wire = rest
	}
}

func FuzzDotWriter(f *testing.F) {
	for _, s := range []string{
		"", ".", "..", ".\r\n", "\r\n.\r\n", "a\r\n.b\r\n", "\n.\n", "\r.\r", "\n.\r\n", "\r\n.\n", "\r\n.\r", "\r\r\n", "a\r\r\nb\r\rc",
		"x\r\n.\x00\r\n", "line\r\nwithout end", "\r", "\n", "\n\r", strings.Repeat("abc\r\n.", 100), "MAIL FROM:<>\r\n.\r\r\n.\r\nRSET",
	} {
		f.Add([]byte(s), uint8(1), uint8(3))
		f.Add([]byte(s), uint8(2), uint8(255))
	}
	f.Fuzz(func(t *testing.T, content []byte, chunk, size uint8) {
		var wire bytes.Buffer
		d := NewDotWriter(int(size)+1, false)
		d.Reset(&wire)
		for p := content; len(p) > 0; {
			n := min(len(p), int(chunk)+1)
			if m, err := d.Write(p[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			p = p[n:]
		}
		if dotted, err := d.Finish(); !dotted || err != nil {
			t.Fatal(dotted, err)
		}
		if got, want := unstuff(t, wire.String()), normal(string(content)); got != want {
			t.Fatalf("%q became %q, want %q", content, got, want)
		}
	})
}

// TestDotWriterFails: whether the peer can have seen the dot.
func TestDotWriterFails(t *testing.T) {
	content := strings.Repeat("x", 100)
	whole := len(content) + len("\r\n.\r\n")
	for room := range whole + 1 {
		w := &limited{room: room}
		d := NewDotWriter(64, false)
		d.Reset(w)
		_, err := d.Write([]byte(content))
		dotted := false
		if err == nil {
			dotted, err = d.Finish()
		}
		if (err == nil) != (room == whole) || dotted != (room >= whole-2) {
			t.Errorf("room for %d of %d: dotted %v, %v", room, whole, dotted, err)
		}
	}
}

type limited struct{ room int }

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.room)
	if l.room -= n; n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

func TestReply(t *testing.T) {
	for in, want := range map[string]string{
		"250 ok\r\n":              "250 ok",
		"250\r\n":                 "250",
		"250-a\r\n250 b\r\n":      "250 a b",
		"250 ok\n":                "250 ok",
		"550 5.7.26 no dmarc\r\n": "550 5.7.26 no dmarc",
		"550-5.1.1 a\r\n550-5.1.1 b\r\n550 5.1.1\r\n":   "550 5.1.1 a b ",
		"550-5.1.1 a\r\n550 5.1.2 b\r\n":                "550 5.1.1 a 5.1.2 b",
		"550 4.1.1 odd\r\n":                             "550 4.1.1 odd", // stays text
		"550 5.1.1234 odd\r\n":                          "550 5.1.1234 odd",
		"550 tab\tbell\a nul\x00 \xff\u0085\u2028é\r\n": "550 tab bell? nul? ???é",
		"250 bare\rcr\r\n":                              "250 bare?cr",
	} {
		var p Response
		r := newReader(iotest.OneByteReader(strings.NewReader(in)))
		if err := p.readReply(&r); err != nil || p.Reply().String() != want {
			t.Errorf("%q: %v %q, want %q", in, err, p.Reply(), want)
		}
	}
	for _, in := range []string{
		"150 x\r\n", "650 x\r\n", "25 x\r\n", "2x0 x\r\n", "250x\r\n", "250_x\r\n", "\r\n", "HTTP/1.1 400 Bad Request\r\n",
		"250-a\r\n550 b\r\n", "250-a\r\n\r\n", strings.Repeat("250-x\r\n", 129) + "250 x\r\n",
		strings.Repeat("250-"+strings.Repeat("x", 2000)+"\r\n", 40) + "250 x\r\n",
		"250 " + strings.Repeat("x", 2045) + "\r\n", "250 " + strings.Repeat("x", 100_000),
	} {
		var p Response
		r := newReader(strings.NewReader(in))
		if err := p.readReply(&r); !errors.Is(err, ErrGarbled) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
	for in, want := range map[string]error{"": io.EOF, "250": io.ErrUnexpectedEOF, "250-a\r\n": io.EOF} {
		var p Response
		r := newReader(strings.NewReader(in))
		if err := p.readReply(&r); err != want {
			t.Errorf("%q: %v", in, err)
		}
	}
	if e := p526(t); e != (reply.Enhanced{5, 7, 26}) {
		t.Error(e)
	}
}

func p526(t *testing.T) reply.Enhanced {
	t.Helper()
	e, rest, ok := cutEnhanced([]byte("5.7.26 x"))
	if !ok || string(rest) != "x" {
		t.Error(ok, string(rest))
	}
	return e
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "550 5.7.26 x\r\n", "421\r\n", "250-\r\n250-\xff\x00\r\n250 \x1b[2J\r\n", "354 go\n", "\n", "250",
		"250-mx\r\n250-SIZE 99999999999999999999\r\n250-AUTH=PLAIN LOGIN\r\n250 AUTH\r\n",
		"550 " + strings.Repeat("x", 3000), "250-a\r\n250-" + strings.Repeat("\xff", 2100) + "\r\n", strings.Repeat("250-x\r\n", 200),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		var whole, bytewise Response
		r1, r2 := newReader(bytes.NewReader(in)), newReader(iotest.OneByteReader(bytes.NewReader(in)))
		for {
			err1, err2 := whole.readReply(&r1), bytewise.readReply(&r2)
			if (err1 == nil) != (err2 == nil) || errors.Is(err1, ErrGarbled) != errors.Is(err2, ErrGarbled) {
				t.Fatalf("%v, byte by byte %v", err1, err2)
			}
			if whole.Decided(err1) != bytewise.Decided(err2) {
				t.Fatalf("decided after %v: %v, byte by byte %v", err1, whole.Code, bytewise.Code)
			}
			if err1 != nil && !whole.Decided(err1) {
				return
			}
			if err1 != nil {
				whole.Clip()
				bytewise.Clip()
			}
			rep := whole.Reply()
			if again := bytewise.Reply(); *rep != *again {
				t.Fatalf("%v, byte by byte %v", rep, again)
			}
			if c := rep.Code / 100; c < 2 || c > 5 || rep.Enhanced != (reply.Enhanced{}) && rep.Enhanced[0] != c {
				t.Fatalf("%v", rep)
			}
			if !utf8.ValidString(rep.Text) || strings.ContainsAny(rep.Text, "\r\x00\x1b\x7f") || len(rep.Text) > 3*maxReplyBytes {
				t.Fatalf("%q", rep.Text)
			}
			if err1 != nil {
				return
			}
		}
	})
}

func BenchmarkDotWriter(b *testing.B) {
	for name, line := range map[string]string{
		"76": strings.Repeat("x", 76) + "\r\n", "dots": "." + strings.Repeat("x", 40) + "\r\n", "bareLF": strings.Repeat("x", 76) + "\n",
	} {
		b.Run(name, func(b *testing.B) {
			content := []byte(strings.Repeat(line, (1<<20)/len(line)))
			d := NewDotWriter(bodyBuffer, false)
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				d.Reset(io.Discard)
				d.Write(content)
				d.Finish()
			}
		})
	}
}
