package smtpd

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/emersion/go-smtp"

	"tarishi/internal/smtpd/syntax"
)

// judge is go-smtp, asked what it makes of a path.
type judge struct {
	conn net.Conn
	r    *bufio.Reader
	got  *string
}

func newJudge(f *testing.F) *judge {
	ours, theirs := net.Pipe()
	j := &judge{conn: ours, r: bufio.NewReader(ours)}
	server := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return j, nil }))
	server.MaxLineLength = 0
	server.ErrorLog = &answerer{}
	_ = server.Serve(&listener{conn: theirs})
	f.Cleanup(func() { ours.Close() })
	if _, err := j.r.ReadString('\n'); err != nil {
		f.Fatal(err)
	}
	return j
}

func (j *judge) Mail(from string, _ *smtp.MailOptions) error { j.got = &from; return errNotHere }
func (j *judge) Rcpt(string, *smtp.RcptOptions) error        { return errNotHere }
func (j *judge) Data(io.Reader) error                        { return errNotHere }
func (j *judge) Reset()                                      {}
func (j *judge) Logout() error                               { return nil }

// ask returns the address in the argument of MAIL, and whether there is one.
func (j *judge) ask(t *testing.T, arg string) (string, bool) {
	j.got = nil
	for _, line := range []string{"HELO x", "MAIL " + arg} {
		if _, err := io.WriteString(j.conn, line+"\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := j.r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	if j.got == nil {
		return "", false
	}
	return *j.got, true
}

// FuzzPath: the paths that can be read, and what is read, are those of go-smtp.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		`<"a@b"@c.d>`, `<@r:u@h>`, `a@b`, `<"\"">`, `<a@b@c>`, `<"a"@b@c>`, ` <>`, `<a b@c>`, `<a@b`, `<a@b>c`, `a@b>`, `@x:a@b`, `<"a\`, "<a@\x00>", `<"<a@b>"@c.test>`,
	} {
		f.Add(s)
	}
	j := newJudge(f)
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 || strings.ContainsAny(text, "\r\n") {
			return
		}
		arg := strings.TrimSpace("FROM:" + text)
		m, bad := syntax.ParseMail(arg, syntax.Offer{})
		if m.Parameters != nil || bad != nil && m.From.Text != "" {
			return // what stands behind the path is not go-smtp's
		}
		if bad != nil && strings.ContainsAny(text, `":`) {
			return // go-smtp lets anything stand in a source route, and quotes in a domain
		}
		if theirs, ok := j.ask(t, arg); ok != (bad == nil) || theirs != m.From.Plain() {
			t.Fatalf("%q is %+v %v here, %q %v there", arg, m.From, bad, theirs, ok)
		}
	})
}
