package dsn

import (
	"fmt"
	netmail "net/mail"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"tarishi/internal/dsn/sevenbit"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// crlf makes the line ends of a message out of a test's.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// leaves returns the decoded leaves of a message, each with its type, in order.
func leaves(t *testing.T, message string) (all []string) {
	t.Helper()
	m, err := netmail.ReadMessage(strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	h := textproto.MIMEHeader(m.Header)
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "text/plain")
	}
	e, err := parseEntity(h, m.Body)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(e parsedEntity)
	walk = func(e parsedEntity) {
		for _, p := range e.parts {
			walk(p)
		}
		switch {
		case e.kind == "message/rfc822":
			all = append(all, leaves(t, e.body)...)
		case len(e.parts) == 0:
			all = append(all, e.kind+" "+e.body)
		}
	}
	walk(e)
	return all
}

// TestSevenBit: what not every mail system carries comes back encoded in its
// leaves, and decodes to what it was.
func TestSevenBit(t *testing.T) {
	long := strings.Repeat("0123456789", 500)
	multi := "From: a@src.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b b\"\nContent-Transfer-Encoding: 8bit\n\npreamble\n--b b\n"
	for name, tt := range map[string]struct {
		message string
		leaves  []string // nil: it cannot be done
	}{
		"plain":        {"Subject: x\n\nx\n", []string{"text/plain x\r\n"}},
		"8-bit text":   {"Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nViele Grüße\n", []string{"text/plain Viele Grüße\r\n"}},
		"mostly 8-bit": {"Subject: x\nMIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\nПривет\n", []string{"text/plain Привет\r\n"}},
		"not MIME":     {"Subject: x\n\nViele Grüße\n", []string{"text/plain Viele Grüße\r\n"}},
		"NUL":          {"Subject: x\n\na\x00b and so on\n", []string{"text/plain a\x00b and so on\r\n"}},
		"long lines":   {"Subject: x\n\n" + long + "\n", []string{"text/plain " + long + "\r\n"}},
		"binary":       {"MIME-Version: 1.0\nContent-Type: image/png\nContent-Transfer-Encoding: binary\n\n\x00\xff\x80", []string{"image/png \x00\xff\x80"}},
		"parts":        {multi + "Content-Type: text/plain\n\nViele Grüße an alle\n--b b\nContent-Type: text/html\n\n<p>plain</p>\n--b b--\nepilogue\n", []string{"text/plain Viele Grüße an alle", "text/html <p>plain</p>"}},
		"an attached message": {
			multi + "Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n\nSubject: inner\n\nGrüße an alle\n\n--b b--\n",
			[]string{"text/plain Grüße an alle\r\n"},
		},
		"digest": {
			"MIME-Version: 1.0\nContent-Type: multipart/digest; boundary=d\n\n--d\n\nSubject: inner\n\nViele Grüße an alle, die das lesen\n--d--\n",
			[]string{"message/rfc822"},
		},
		"deep": {
			strings.NewReplacer("b b", "c").Replace(multi) + "Content-Type: multipart/alternative; boundary=cc\n\n--cc\nContent-Type: text/plain\n\nGrüße an alle\n--cc\nContent-Type: application/x\n\n\xff\n--cc--\n\n--c--\n",
			[]string{"text/plain Grüße an alle", "application/x \xff"},
		},
		"a line that would look like a delimiter": {
			multi + "Content-Type: text/plain\n\n" + strings.Repeat("x", 75) + "--b b--" + long + "\n--b b--\n",
			[]string{"text/plain " + strings.Repeat("x", 75) + "--b b--" + long},
		},

		"header":            {"Subject: " + long + "\n\nx\n", nil},
		"header of a part":  {multi + "X: ü\n\nx\n--b b--\n", nil},
		"preamble":          {strings.Replace(multi, "preamble", "prämbel", 1) + "\nx\n--b b--\n", nil},
		"epilogue":          {multi + "\nx\n--b b--\nepilög\n", nil},
		"cut off":           {multi + "\nGrüße\n", nil},
		"no boundary":       {"MIME-Version: 1.0\nContent-Type: multipart/mixed\n\nGrüße\n", nil},
		"signed":            {strings.Replace(multi, "mixed", "signed", 1) + "\nGrüße\n--b b--\n", nil},
		"encoded and 8-bit": {"MIME-Version: 1.0\nContent-Transfer-Encoding: base64\n\nGrüße\n", nil},
		"another message":   {"MIME-Version: 1.0\nContent-Type: message/partial; id=x; number=1\n\nGrüße\n", nil},
		"no type at all":    {"MIME-Version: 1.0\nContent-Type: ;;;\n\nGrüße\n", nil},
		"too deep":          {strings.Repeat("MIME-Version: 1.0\nContent-Type: message/rfc822\n\n", 20+2) + "Subject: x\n\nGrüße\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample()
			r.Original.Return, r.OriginalContent = "FULL", mail.Memory{[]byte(crlf(tt.message))}
			d := mustCompose(t, r, Templates{})
			p := d.parts[2]
			if enc := p.header.Get("Content-Transfer-Encoding"); p.kind == "message/rfc822" && enc != "" {
				t.Errorf("message/rfc822 has encoding %s", enc)
			}
			if tt.leaves == nil {
				if p.kind != "text/rfc822-headers" || !strings.Contains(d.parts[0].body, "parts of it cannot be carried by every mail system") {
					t.Errorf("%s\n%s", p.kind, d.raw)
				}
				return
			}
			if p.kind != "message/rfc822" {
				t.Fatalf("%s\n%s", p.kind, d.raw)
			}
			if name == "digest" { // its parts need no type
				if !strings.Contains(p.body, "Subject: inner\r\nContent-Transfer-Encoding: quoted-printable\r\n") {
					t.Error(p.body)
				}
				return
			}
			if got := leaves(t, p.body); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", tt.leaves) {
				t.Errorf("%q, want %q in\n%s", got, tt.leaves, p.body)
			}
		})
	}
}

// FuzzSevenBit: whatever comes, what is returned is plain.
func FuzzSevenBit(f *testing.F) {
	f.Add([]byte("MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nGr\xfc\xdfe\r\n--b--\r\n"))
	f.Add([]byte("\xff\n\x00\r"))
	f.Add([]byte("Content-Type: multipart/digest; boundary=\"\"\n\n--\n--\n\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, ok := sevenbit.Encode(b); ok && !sevenbit.IsPlain(got) {
			t.Errorf("%q", got)
		}
		r := sample()
		r.Original.Return, r.OriginalContent = "FULL", mail.Memory{b}
		if d, err := compose(r, Templates{}); err != nil {
			t.Fatalf("%v in\n%q", err, d.raw)
		}
	})
}

// TestSeveralMessages is a report about failures of several messages.
func TestSeveralMessages(t *testing.T) {
	r := sample()
	r.Original, r.OriginalContent = &mail.Envelope{From: r.Original.From, RequireTLS: true}, nil
	r.Recipients = nil
	const n = 300
	for i := range n {
		env := &mail.Envelope{ID: mail.ID(fmt.Sprintf("M%d.1", i)), Received: date.Add(time.Duration(i) * time.Minute), EnvelopeID: fmt.Sprintf("E%d", i)}
		of, err := NewMessage(env, content(fmt.Sprintf("Subject: {me} number %d\nMessage-Id: <m%d@src.example>\n\nbody\n", i, i)))
		if err != nil {
			t.Fatal(err)
		}
		for _, local := range []string{"a", "b"} {
			r.Recipients = append(r.Recipients, Recipient{
				Recipient: to(fmt.Sprintf("%s%d@dst.example", local, i)), Of: of, RemoteMTA: "mx.dst.example",
				Reply: reply.New(550, "5.1.1", "No such user {reason} "+strings.Repeat("z", 900)),
			})
		}
	}
	d := mustCompose(t, r, Templates{Message: []string{"Subject: custom", "", "About {to}"}, HTML: []string{"<p>custom</p>"}})
	if got := d.header.Get("Subject"); got != "Undelivered mail: 600 failures" {
		t.Error(got)
	}
	if !d.env.RequireTLS || len(d.raw) > 2<<20 {
		t.Error(d.env.RequireTLS, len(d.raw))
	}
	text := d.parts[0].body
	groups, err := d.status()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		for k, local := range []string{"a", "b"} {
			address := fmt.Sprintf("%s%d@dst.example", local, i)
			if !strings.Contains(text, "    <"+address+">: 550 5.1.1 No such user { reason}") {
				t.Fatalf("%s is not in the text", address)
			}
			checkFields(t, groups[1+2*i+k], map[string]string{
				"Final-Recipient": "rfc822;" + address, "Action": "failed", "X-Tarishi-Queue-Id": fmt.Sprintf("M%d.1", i),
				"X-Tarishi-Original-Envelope-Id": fmt.Sprintf("E%d", i), "X-Tarishi-Original-Message-Id": fmt.Sprintf("<m%d@src.example>", i),
			})
		}
		if want := fmt.Sprintf("Message of %s: { me} number %d\r\n", rfc5322Date(date.Add(time.Duration(i)*time.Minute)), i); strings.Count(text, want) != 1 {
			t.Fatalf("no %q in\n%.2000s", want, text)
		}
	}
}
