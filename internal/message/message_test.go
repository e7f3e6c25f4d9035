package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/mail"
)

// read makes a message of text, whose line ends become CRLF.
func read(text string, limits Limits) (*Message, []byte) {
	raw := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
	return parsed(raw, limits), raw
}

func parsed(raw []byte, limits Limits) *Message {
	header, size, _ := mail.ParseHeader(raw)
	return New(header, mail.Memory{raw}, int64(size), limits)
}

// outline writes a tree as one line: types, and texts of leaves.
func outline(t *testing.T, p *Part) string {
	t.Helper()
	if len(p.Parts) > 0 {
		var inner []string
		for _, child := range p.Parts {
			inner = append(inner, outline(t, child))
		}
		return p.Type + "(" + strings.Join(inner, " ") + ")"
	}
	return fmt.Sprintf("%s%q", p.Type, content(t, p))
}

// content reads a part, decoded.
func content(t *testing.T, p *Part) string {
	t.Helper()
	r, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Errorf("%s: %v", p.Type, err)
	}
	return string(b)
}

const mixed = `From: a@b.test
Subject: mixed
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

preamble
--outer
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=UTF-8
Content-Transfer-Encoding: quoted-printable

caf=C3=A9 soft=
ly
--inner
Content-Type: TEXT/HTML; charset="ISO-8859-1"
Content-Transfer-Encoding: base64

PGI+aGk8L2I+Cg==
--inner--
inner epilogue

--outer
Content-Type: application/pdf; name=a.pdf
Content-Disposition: attachment; filename*=UTF-8''na%C3%AFve.pdf
Content-Transfer-Encoding: BASE64

QUJD
REVG
--outer
Content-Type: message/rfc822

Subject: enclosed
Content-Type: multipart/mixed; boundary=outer2

--outer2

no type
--outer2--
--outer--
epilogue
`

func TestTree(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{
			"mixed", mixed,
			`multipart/mixed(multipart/alternative(text/plain"café softly" text/html"<b>hi</b>\n") application/pdf"ABCDEF" ` +
				`message/rfc822(multipart/mixed(text/plain"no type")))`,
		},
		{"no MIME", "Subject: x\n\nhello\n", `text/plain"hello\r\n"`},
		{"no body", "Subject: x\n\n", `text/plain""`},
		{"single base64", "Content-Type: text/x; charset=utf-8\nContent-Transfer-Encoding: base64\n\naGk=\n", `text/x"hi"`},
		{"no boundary", "Content-Type: multipart/mixed\n\n--x\n\ntext\n", `multipart/mixed"--x\r\n\r\ntext\r\n"`},
		{"cut short", "Content-Type: multipart/mixed; boundary=x\n\n--x\n\none\n--x\nContent-Type: text/two\n\ntwo\n", `multipart/mixed(text/plain"one" text/two"two\r\n")`},
		{"cut in a header", "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/two\n", `multipart/mixed(text/two"")`},
		{"header only", "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: text/two\n--x--\n", `multipart/mixed(text/two"")`},
		{"part without a header", "Content-Type: multipart/mixed; boundary=x\n\n--x\nno header here\nmore: text\n--x--\n", `multipart/mixed(text/plain"no header here\r\nmore: text")`},
		{"part that begins with a fold", "Content-Type: multipart/mixed; boundary=x\n\n--x\n indented\n--x--\n", `multipart/mixed(text/plain" indented")`},
		{"blanks behind the delimiter", "Content-Type: multipart/mixed; boundary=x\n\n--x \t\n\none\n--x-- \n", `multipart/mixed(text/plain"one")`},
		{"longer boundary inside", "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=xy\n\n--xy\n\none\n--xy--\n--x--\n", `multipart/mixed(multipart/mixed(text/plain"one"))`},
		{"outer delimiter ends inner parts", "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Type: multipart/mixed; boundary=y\n\n--y\n\none\n--x\n\ntwo\n--x--\n", `multipart/mixed(multipart/mixed(text/plain"one") text/plain"two")`},
		{"empty parts", "Content-Type: multipart/mixed; boundary=x\n\n--x\n--x\n\n--x\n\n\n--x", `multipart/mixed(text/plain"" text/plain"" text/plain"" text/plain"")`},
		{"digest", "Content-Type: multipart/digest; boundary=x\n\n--x\n\nSubject: one\n\nbody\n--x--\n", `multipart/digest(message/rfc822(text/plain"body"))`},
		{"malformed parameters", "Content-Type: multipart/mixed; charset; boundary=\"a;b\" ; =; x=\"\\\"\n\n--a;b\n\none\n--a;b--\n", `multipart/mixed(text/plain"one")`},
		{"boundary twice", "Content-Type: multipart/mixed; boundary=x; boundary=y\n\n--x\n\none\n--x--\n", `multipart/mixed(text/plain"one")`},
		{"encoded message is a leaf", "Content-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\nU3ViamVjdDogeA0KDQo=\n", "message/rfc822\"Subject: x\\r\\n\\r\\n\""},
		{"encoding with a comment", "Content-Transfer-Encoding: base64 (really)\n\naGk=\n", `text/plain"hi"`},
		{"empty multipart", "Content-Type: multipart/mixed; boundary=x\n\n--x--\n", `multipart/mixed"--x--\r\n"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m, _ := read(tc.text, Limits{})
			root, err := m.Root()
			if err != nil {
				t.Fatal(err)
			}
			if got := outline(t, root); got != tc.want {
				t.Errorf("%s\nwant %s", got, tc.want)
			}
		})
	}
}

// TestCuts: the tree does not depend on how the content comes.
func TestCuts(t *testing.T) {
	_, raw := read(mixed, Limits{})
	whole, err := parsed(raw, Limits{}).Root()
	if err != nil {
		t.Fatal(err)
	}
	header, size, _ := mail.ParseHeader(raw)
	var pieces mail.Memory
	for _, b := range raw {
		pieces = append(pieces, []byte{b})
	}
	root, err := New(header, pieces, int64(size), Limits{}).Root()
	if err != nil || outline(t, root) != outline(t, whole) {
		t.Errorf("%s, %v", outline(t, root), err)
	}
}

// TestLineEndInPieces: a line end that the buffer cuts in two is still not part of the
// content before a delimiter.
func TestLineEndInPieces(t *testing.T) {
	for extra := range 4 {
		text := strings.Repeat("a", lineBuffer-2+extra)
		m, _ := read("Content-Type: multipart/mixed; boundary=x\n\n--x\n\n"+text+"\n--x--\n", Limits{})
		for leaf := range m.Leaves() {
			if got := content(t, leaf); got != text {
				t.Errorf("%d bytes, want %d", len(got), len(text))
			}
		}
	}
}

func TestDescription(t *testing.T) {
	m, _ := read(mixed, Limits{})
	leaves := slices.Collect(m.Leaves())
	pdf := leaves[2]
	if pdf.Filename() != "naïve.pdf" || pdf.Disposition() != "attachment" || pdf.Charset() != "" || pdf.Size() != int64(len("QUJD\r\nREVG")) {
		t.Errorf("%q %q %q %d", pdf.Filename(), pdf.Disposition(), pdf.Charset(), pdf.Size())
	}
	if leaves[0].Charset() != "utf-8" || leaves[1].Charset() != "iso-8859-1" || leaves[0].Filename() != "" {
		t.Errorf("%q %q %q", leaves[0].Charset(), leaves[1].Charset(), leaves[0].Filename())
	}
	for _, tc := range []struct{ header, want string }{
		{`Content-Disposition: attachment; filename="a b.txt"`, "a b.txt"},
		{`Content-Type: text/plain; name="=?utf-8?q?caf=C3=A9.txt?="`, "café.txt"},
		{`Content-Disposition: attachment; filename="=?koi8-r?b?0NIu?="`, "=?koi8-r?b?0NIu?="},
		{"Content-Disposition: attachment; filename*0=one; filename*1=two.exe", "onetwo.exe"},
		{`Content-Disposition: attachment; filename=virus.exe; x`, "virus.exe"},
		{`Content-Disposition: attachment; filename="un\"ended.exe`, `un"ended.exe`},
		{"Content-Disposition: attachment", ""},
	} {
		one, _ := read(tc.header+"\n\n", Limits{})
		root, err := one.Root()
		if err != nil || root.Filename() != tc.want {
			t.Errorf("%s: %q, %v", tc.header, root.Filename(), err)
		}
	}
}

func TestBase64IsGenerous(t *testing.T) {
	for encoded, want := range map[string]string{
		"aGVs bG8h\n": "hello!", "aGVsbG8hCg==\ntrailing words": "hello!\n", "!!aGVs*bG8h": "hello!", "aGVsbG8hC": "hello!", "aGVsbG8": "hello", "": "",
	} {
		m, _ := read("Content-Transfer-Encoding: base64\n\n"+encoded, Limits{})
		root, _ := m.Root()
		if got := content(t, root); got != want {
			t.Errorf("%q: %q, want %q", encoded, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	nested := func(depth int) string {
		var b strings.Builder
		for i := range depth {
			fmt.Fprintf(&b, "Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n", i, i)
		}
		return b.String() + "\ntext\n"
	}
	enclosed := strings.Repeat("Content-Type: message/rfc822\n\n", 150)
	many := "Content-Type: multipart/mixed; boundary=x\n\n" + strings.Repeat("--x\n\n\n", 2000)
	for _, tc := range []struct {
		name, text string
		limits     Limits
		want       error
	}{
		{"deep", nested(150), Limits{}, ErrDepth},
		{"enclosed", enclosed, Limits{}, ErrDepth},
		{"not deep", nested(20), Limits{}, nil},
		{"own depth", nested(20), Limits{Depth: 10, Parts: 100, Header: 1 << 20}, ErrDepth},
		{"many", many, Limits{}, ErrParts},
		{"header", "Content-Type: multipart/mixed; boundary=x\n\n--x\n" + strings.Repeat("A: b\n", 300_000), Limits{}, ErrHeader},
	} {
		m, _ := read(tc.text, tc.limits)
		root, err := m.Root()
		if !errors.Is(err, tc.want) || root == nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if _, err := m.Rewrite(io.Discard, keep); !errors.Is(err, tc.want) {
			t.Errorf("%s rewritten: %v", tc.name, err)
		}
	}
}

func keep(*Part) (*Change, error) { return nil, nil }

// upper is a transformation.
func upper(w io.Writer, old io.Reader) error {
	b, err := io.ReadAll(old)
	if err == nil {
		_, err = w.Write(bytes.ToUpper(b))
	}
	return err
}

func TestRewrite(t *testing.T) {
	m, raw := read(mixed, Limits{})
	var same bytes.Buffer
	if _, err := m.Rewrite(&same, keep); err != nil || !bytes.Equal(same.Bytes(), raw) {
		t.Errorf("unchanged: %v\n%s", err, same.String())
	}
	m.Header.AddLeading("X-Scanned", "yes")
	var out bytes.Buffer
	_, err := m.Rewrite(&out, func(p *Part) (*Change, error) {
		switch {
		case p.Filename() != "":
			return &Change{ContentType: "text/plain", Transform: func(w io.Writer, _ io.Reader) error {
				_, err := io.WriteString(w, "The file "+p.Filename()+" was taken out.\r\n")
				return err
			}}, nil
		case p.Type == "text/html":
			return &Change{Drop: true}, nil
		case p.Type == "text/plain":
			return &Change{Transform: upper}, nil
		}
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	again := parsed(out.Bytes(), Limits{})
	root, err := again.Root()
	if err != nil {
		t.Fatal(err)
	}
	want := `multipart/mixed(multipart/alternative(text/plain"CAFé SOFTLY") text/plain"The file naïve.pdf was taken out.\r\n" ` +
		`message/rfc822(multipart/mixed(text/plain"NO TYPE")))`
	if got := strings.ReplaceAll(outline(t, root), "É", "é"); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if again.Header.Get("X-Scanned") != "yes" || strings.Contains(out.String(), "a.pdf") || !strings.Contains(out.String(), "\r\npreamble\r\n--outer\r\n") ||
		!strings.HasSuffix(out.String(), "--outer--\r\nepilogue\r\n") {
		t.Errorf("%s", out.String())
	}
}

// TestRewriteSingle: the header of a message without parts says how its new body is
// encoded.
func TestRewriteSingle(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{"Subject: x\n\nhello\n", "Subject: x\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nHELLO\r\n"},
		{"Content-Transfer-Encoding: base64\n\naGVsbG8=\n", "Content-Transfer-Encoding: base64\r\n\r\nSEVMTE8=\r\n"},
		{"Content-Transfer-Encoding: quoted-printable\n\na=3Db\n", "Content-Transfer-Encoding: quoted-printable\r\n\r\nA=3DB\r\n"},
	} {
		m, _ := read(tc.text, Limits{})
		var out bytes.Buffer
		_, err := m.Rewrite(&out, func(*Part) (*Change, error) { return &Change{Transform: upper}, nil })
		if err != nil || out.String() != tc.want {
			t.Errorf("%q: %q, %v", tc.text, out.String(), err)
		}
		if m.Header.Changed() {
			t.Errorf("%q: the header of the message itself was changed", tc.text)
		}
		if _, err := m.Rewrite(io.Discard, func(*Part) (*Change, error) { return &Change{Drop: true}, nil }); !errors.Is(err, ErrDrop) {
			t.Errorf("%q dropped: %v", tc.text, err)
		}
	}
}

// TestRewriteFails: an error of a transformation, of the caller or of a writer ends the
// rewriting.
func TestRewriteFails(t *testing.T) {
	broken := errors.New("broken")
	m, _ := read(mixed, Limits{})
	transform := func(io.Writer, io.Reader) error { return broken }
	for name, rewrite := range map[string]func() (*mail.Header, error){
		"edit": func() (*mail.Header, error) {
			return m.Rewrite(io.Discard, func(*Part) (*Change, error) { return nil, broken })
		},
		"transform": func() (*mail.Header, error) {
			return m.Rewrite(io.Discard, func(*Part) (*Change, error) { return &Change{Transform: transform}, nil })
		},
		"writer": func() (*mail.Header, error) { return m.Rewrite(failing{broken}, keep) },
	} {
		if _, err := rewrite(); !errors.Is(err, broken) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// TestLongLines: base64 is broken into lines that every server takes, and what a
// transformation does not read is passed over.
func TestLongLines(t *testing.T) {
	encoded := "Content-Type: multipart/mixed; boundary=x\n\n--x\nContent-Transfer-Encoding: base64\n\n" + strings.Repeat("QUJD", 30_000) + "\n--x--\n"
	m, _ := read(encoded, Limits{})
	big := strings.Repeat("0123456789", 10_000)
	var out bytes.Buffer
	_, err := m.Rewrite(&out, func(*Part) (*Change, error) {
		return &Change{Transform: func(w io.Writer, old io.Reader) error {
			_, err := io.CopyN(io.Discard, old, 10)
			if err == nil {
				_, err = io.WriteString(w, big)
			}
			return err
		}}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > maxEncoded+2 || !strings.HasSuffix(line, "\r\n") {
			t.Fatalf("line of %d bytes", len(line))
		}
	}
	for leaf := range parsed(out.Bytes(), Limits{}).Leaves() {
		if content(t, leaf) != big {
			t.Error("another content")
		}
	}
}

// FuzzMessage: no message makes the parser panic or go outside of the content, and
// one that is written without changes stays the same.
func FuzzMessage(f *testing.F) {
	f.Add([]byte(strings.ReplaceAll(mixed, "\n", "\r\n")))
	f.Add([]byte("Content-Type: multipart/mixed; boundary=\"\"\r\n\r\n--\r\n----\r\n"))
	f.Add([]byte("Content-Type: message/rfc822\r\n\r\n\r\n--x"))
	f.Add([]byte("Content-Transfer-Encoding: base64\n\n==a\x00b"))
	f.Add([]byte("Content-Type:multipart/0;boundary= outer\n--outer\n--outer"))
	f.Add([]byte("Content-Type:multipart/;boundary=outer\n--outer\nContent-Type:message/rfc822\n\n\n--outer"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		header, size, complete := mail.ParseHeader(raw)
		m := New(header, mail.Memory{raw}, int64(size), Limits{Depth: 5, Parts: 20, Header: 1000})
		root, err := m.Root()
		check(t, root, int64(size), int64(len(raw)))
		for leaf := range m.Leaves() {
			r, err := leaf.Open()
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, r)
			r.Close()
			leaf.Filename()
			leaf.Disposition()
		}
		if err != nil {
			return
		}
		var out bytes.Buffer
		if _, err := m.Rewrite(&out, keep); err != nil {
			t.Fatal(err)
		}
		if !header.Changed() && complete && !bytes.Equal(out.Bytes()[len(header.Bytes()):], raw[size:]) {
			t.Errorf("%q became %q", raw, out.Bytes())
		}
		if _, err := m.Rewrite(io.Discard, func(*Part) (*Change, error) {
			return &Change{Transform: func(w io.Writer, old io.Reader) error { _, _ = io.Copy(w, old); return nil }}, nil
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// check sees that parts lie in each other and behind each other.
func check(t *testing.T, p *Part, from, to int64) {
	if p.head < p.start || p.body < p.head || p.body < from || p.end < p.body || p.end > to || p.Header == nil || p.Type == "" {
		t.Fatalf("%s from %d to %d, within %d and %d", p.Type, p.body, p.end, from, to)
	}
	from = p.body
	for _, child := range p.Parts {
		check(t, child, from, p.end)
		from = child.end
	}
}

func BenchmarkRoot(b *testing.B) {
	text := strings.Replace(mixed, "QUJD\n", strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 10_000), 1)
	raw := []byte(strings.ReplaceAll(text, "\n", "\r\n"))
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parsed(raw, Limits{}).Root(); err != nil {
			b.Fatal(err)
		}
	}
}
