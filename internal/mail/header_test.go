package mail

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestMailboxLines(t *testing.T) {
	const (
		line   = "From ann@a.test Mon Jan  1 12:34:56 2024\r\n"
		fields = "From: ann@a.test\r\nSubject: s\r\n"
	)
	for name, c := range map[string]struct {
		in, head string // head is the section with its empty line; "": as in
		rest     string // what does not belong to it
	}{
		"none":                {fields + "\r\nbody\r\n", fields + "\r\n", "body\r\n"},
		"From":                {line + fields + "\r\nbody\r\n", "X-Mailbox-Line: " + line + fields + "\r\n", "body\r\n"},
		">From":               {">" + line + fields + "\r\n", "X-Mailbox-Line: >" + line + fields + "\r\n", ""},
		">>From":              {">>" + line + fields + "\r\n", "X-Mailbox-Line: >>" + line + fields + "\r\n", ""},
		"several":             {line + ">" + line + ">" + line + fields + "\r\n", strings.Repeat("X-Mailbox-Line: ", 1) + line + "X-Mailbox-Line: >" + line + "X-Mailbox-Line: >" + line + fields + "\r\n", ""},
		"folded":              {line + " more\r\n" + fields + "\r\n", "X-Mailbox-Line: " + line + " more\r\n" + fields + "\r\n", ""},
		"below Received":      {"Received: x\r\n\ty\r\n" + line + fields + "\r\nb", "Received: x\r\n\ty\r\nX-Mailbox-Line: " + line + fields + "\r\n", "b"},
		"below other traces":  {"Return-Path: <>\r\n" + line + "X-A: b\r\n" + line + fields + "\r\n", "Return-Path: <>\r\nX-Mailbox-Line: " + line + "X-A: b\r\nX-Mailbox-Line: " + line + fields + "\r\n", ""},
		"bare line feeds":     {"From x\nSubject: s\n\nb", "X-Mailbox-Line: From x\nSubject: s\n\r\n", "b"}, // of plugins
		"nothing but one":     {line + "\r\nbody\r\n", "X-Mailbox-Line: " + line + "\r\n", "body\r\n"},
		"nothing behind":      {line, "X-Mailbox-Line: " + line + "\r\n", ""},
		"without line end":    {"From x", "X-Mailbox-Line: From x\r\n\r\n", ""},
		"no empty line":       {line + fields + "body\r\n", "X-Mailbox-Line: " + line + fields + "\r\n", "body\r\n"},
		"text":                {"From me to you\r\nwith love\r\n", "\r\n", "From me to you\r\nwith love\r\n"},
		"text below a header": {fields + "From me to you\r\n\r\nlove\r\n", fields + "\r\n", "From me to you\r\n\r\nlove\r\n"},
		"old form of a field": {"From : ann@a.test\r\n\r\n", "From : ann@a.test\r\n\r\n", ""},
		"other words":         {"FROM x\r\nSubject: s\r\n\r\n", "\r\n", "FROM x\r\nSubject: s\r\n\r\n"},
		"in the body":         {fields + "\r\n" + line, fields + "\r\n", line},
	} {
		h, size, _ := ParseHeader([]byte(c.in))
		if got := string(h.Bytes()); got != c.head {
			t.Errorf("%s: head %q, want %q", name, got, c.head)
		}
		if got := c.in[size:]; got != c.rest {
			t.Errorf("%s: rest %q, want %q", name, got, c.rest)
		}
		if want := strings.Contains(c.head, "X-Mailbox-Line"); h.Changed() != want {
			t.Errorf("%s: changed %v", name, h.Changed())
		}
		if strings.HasSuffix(c.in, "\n") { // an end of the last line is not MoveMailboxLines' business, nor is an empty line
			checkMoved(t, name, c.in, c.head+c.rest)
		}
	}
	if h, _, _ := ParseHeader([]byte(line + fields + "\r\n")); h.Get("Subject") != "s" || h.Get("X-Mailbox-Line") != strings.TrimSpace(line) {
		t.Errorf("fields: %q", h.Bytes())
	}
}

// checkMoved moves the mailbox lines of a message.
func checkMoved(t *testing.T, name, in, want string) {
	t.Helper()
	c, err := MoveMailboxLines(Memory{[]byte(in)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := c.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, _ := io.ReadAll(r)
	squeeze := strings.NewReplacer("\r\n", "")
	if squeeze.Replace(string(got)) != squeeze.Replace(want) || int64(len(got)) != c.Size() {
		t.Errorf("%s: moved %q (%d), want %q", name, got, c.Size(), want)
	}
}

// A peer sends whatever it likes, and as much as the header section may have. Work
// that grows with the square of it would take minutes here.
func TestMailboxLinesAreCheap(t *testing.T) {
	for _, unit := range []string{"From x\r\n", "X: y\r\nFrom x\r\n", ">From \r\n y\r\n"} {
		b := bytes.Repeat([]byte(unit), (1<<20)/len(unit))
		if h, _, _ := ParseHeader(b); !h.Has("X-Mailbox-Line") {
			t.Errorf("%q: no field", unit)
		}
	}
}

// Where a header section ends does not depend on how much of the message is seen,
// once a whole line behind the end is.
func FuzzParseHeader(f *testing.F) {
	for _, s := range []string{
		"From x\r\nA: b\r\n\r\nbody", ">From x\r\n>From y\r\n z\r\nA: b\r\n c\r\n\r\n", "A: b\r\nFrom x\r\ntext\r\n", "From: a\r\nFrom b\r\n\r\n", " a\r\nB: c\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, size, complete := ParseHeader([]byte(s))
		if size > len(s) {
			t.Fatalf("%q: size %d", s, size)
		}
		if !h.Changed() {
			want := s[:size]
			if !complete {
				if want != "" && !strings.HasSuffix(want, "\n") {
					want += "\r\n"
				}
				want += "\r\n"
			}
			if got := string(h.Bytes()); strings.TrimRight(got, "\r\n") != strings.TrimRight(want, "\r\n") {
				t.Fatalf("%q: %q, want %q", s, got, want)
			}
		}
		again, n, whole := ParseHeader(h.Bytes())
		if again.Len() != h.Len() || !whole || n != len(h.Bytes()) || again.Changed() {
			t.Fatalf("%q: %q reads back as %q", s, h.Bytes(), again.Bytes())
		}
		for cut := range s {
			_, n, early := ParseHeader([]byte(s[:cut]))
			ended := early && s[n-1] == '\n' || !early && strings.IndexByte(s[n:cut], '\n') >= 0
			if ended && n != size {
				t.Fatalf("%q: ends at %d, but at %d when only %d bytes are seen", s, size, n, cut)
			}
		}
	})
}

// TestTLSRequired: only one field with the value No makes TLS optional (RFC 8689 section 3).
func TestTLSRequired(t *testing.T) {
	for section, want := range map[string]bool{
		"TLS-Required: No\r\n":                        true,
		"tls-required:nO\r\n":                         true,
		"Subject: x\r\nTLS-Required:\r\n No \r\n":     true,
		"TLS-Required: Yes\r\n":                       false,
		"TLS-Required:\r\n":                           false,
		"TLS-Required: No, really\r\n":                false,
		"TLS-Required: \"No\"\r\n":                    false,
		"TLS-Required: No\r\nTLS-Required: No\r\n":    false,
		"TLS-Required: No\r\nTLS-Required: Yes\r\n":   false,
		"X-TLS-Required: No\r\n":                      false,
		"Subject: x\r\n\r\nTLS-Required: No\r\n\r\n":  false,
		"Subject: =?utf-8?q?TLS-Required=3A_No?=\r\n": false,
	} {
		h, _, _ := ParseHeader([]byte(section + "\r\n"))
		if h.MakesTLSOptional() != want {
			t.Errorf("%q: %v", section, !want)
		}
	}
}
