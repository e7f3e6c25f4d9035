package smtptest

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
)

// conn is one connection.
type conn struct {
	server *Server
	index  int
	raw    net.Conn
	stream net.Conn // raw, or TLS on it
	br     *bufio.Reader
	bw     *bufio.Writer

	verb, helo, user string
	tls              bool
	certificate      string // common name of the client's
	number           int
	tx               *Transaction // from MAIL on
	failed           bool         // a chunk of tx was refused

	xclient, xforward map[string]string
}

// errOver ends a connection.
var errOver = errors.New("connection is over")

func newConn(s *Server, c net.Conn, n int) *conn {
	k := &conn{server: s, index: n, raw: c}
	k.use(c)
	return k
}

// use reads from and writes to c. Replies are collected while commands are
// there to be read, as pipelining servers do.
func (k *conn) use(c net.Conn) {
	k.stream = c
	k.bw = bufio.NewWriter(c)
	k.br = bufio.NewReader(flushing{k.bw, c})
}

type flushing struct {
	writer *bufio.Writer
	reader io.Reader
}

func (f flushing) Read(p []byte) (int, error) {
	if err := f.writer.Flush(); err != nil {
		return 0, err
	}
	return f.reader.Read(p)
}

func (k *conn) serve() {
	if k.server.implicit && k.handshake() != nil {
		return
	}
	if _, err := k.answer(Connect, "", "", "220 mx.test ESMTP"); err != nil {
		return
	}
	for k.command() == nil {
	}
}

func (k *conn) handshake() error {
	c := tls.Server(k.stream, k.server.tls)
	if err := c.Handshake(); err != nil {
		return err
	}
	k.tls = true
	if peer := c.ConnectionState().PeerCertificates; len(peer) > 0 {
		k.certificate = peer[0].Subject.CommonName
	}
	k.use(c)
	return nil
}

func (k *conn) violation(format string, args ...any) {
	k.server.mu.Lock()
	defer k.server.mu.Unlock()
	k.server.violations = append(k.server.violations, fmt.Sprintf("connection %d: ", k.index)+fmt.Sprintf(format, args...))
}

// answer asks the hook and carries out its action; sent is as of ask.
func (k *conn) answer(stage Stage, line, address, byDefault string) (sent string, err error) {
	a, sent := k.ask(stage, line, address, byDefault)
	return sent, k.do(a)
}

// ask asks the hook. What comes back has its reply in raw; sent is the first
// line of it, if it is whole.
func (k *conn) ask(stage Stage, line, address, byDefault string) (a Action, sent string) {
	if h := k.server.hooks[stage]; h != nil {
		a = h(Event{
			Conn: k.index, Transaction: k.number, Stage: stage, Line: line, Address: address, Default: byDefault,
			TLS: k.tls, User: k.user,
		})
	}

	// A hook that only ends or delays the conversation leaves the default reply in place.
	if a.raw == "" && a.reply == "" && (a.then == goOn || a.extra != "" || a.then == breakTLS) {
		a.reply = byDefault
	}
	if a.raw == "" && a.reply != "" {
		a.raw = strings.ReplaceAll(a.reply, "\n", "\r\n") + "\r\n"
	}
	if first, _, whole := strings.Cut(a.raw, "\r\n"); whole {
		sent = first
	}
	return a, sent
}

// do does what ask returned.
func (k *conn) do(a Action) error {
	io.WriteString(k.bw, a.raw+a.extra)
	if a.then == goOn {
		return nil
	}

	// The reply goes out before the connection is broken: the client sees it, and then the trouble.
	k.bw.Flush()
	switch a.then {
	case resetConn:
		if c, ok := k.raw.(interface{ SetLinger(seconds int) error }); ok {
			c.SetLinger(0)
		}
	case silent:
		io.Copy(io.Discard, k.stream)
	case stalled:
		<-k.server.done.Done()
	case breakTLS:
		k.br.Peek(1) // the client's hello
		io.WriteString(k.stream, "this is not TLS\r\n")
	}
	k.raw.Close()
	return errOver
}

// readLine reads one command.
func (k *conn) readLine() (string, error) {
	line, err := k.br.ReadString('\n')
	if err != nil {
		return "", err
	}
	text, ok := strings.CutSuffix(line, "\r\n")
	if !ok || strings.ContainsAny(text, "\r\x00") {
		k.violation("bad command line %q", line)
	}
	return strings.TrimRight(text, "\r\n"), nil
}

func (k *conn) command() error {
	line, err := k.readLine()
	if err != nil {
		return err
	}

	// The dialog is recorded before the reply goes out: a test that has seen the reply must find
	// the command.
	k.server.mu.Lock()
	k.server.dialogs[k.index] = append(k.server.dialogs[k.index], line)
	k.server.notify()
	k.server.mu.Unlock()
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)

	// More input behind a command is pipelining, which a client may only do where it is offered.
	// BDAT is followed by its chunk in any case.
	if k.br.Buffered() > 0 && verb != "BDAT" && !k.offers("PIPELINING") {
		k.violation("pipelined %q", line)
	}
	switch verb {
	case "EHLO", "HELO", "LHLO":
		return k.hello(line, verb, args)
	case "STARTTLS":
		return k.startTLS(line)
	case "AUTH":
		return k.authenticate(line, args)
	case "MAIL":
		return k.mail(line, args)
	case "RCPT":
		return k.rcpt(line, args)
	case "DATA":
		return k.data(line)
	case "BDAT":
		return k.bdat(line, args)
	case "XFORWARD", "XCLIENT":
		return k.attributes(line, verb, args)
	case "RSET":
		k.tx, k.xforward = nil, nil
		_, err := k.answer(Rset, line, "", "250 2.0.0 reset")
		return err
	case "QUIT":
		k.answer(Quit, line, "", "221 2.0.0 bye")
		k.bw.Flush()
		return errOver
	case "NOOP":
		_, err := k.answer(Other, line, "", "250 2.0.0 well")
		return err
	}

	// A client under test knows which commands exist. Anything else is a mistake of the client.
	k.violation("unknown command %q", line)
	_, err = k.answer(Other, line, "", "500 5.5.2 what?")
	return err
}

func (k *conn) offers(keyword string) bool {
	if k.verb == "HELO" {
		return false
	}
	for _, x := range k.server.extensions {
		if word, _, _ := strings.Cut(x, " "); word == keyword {
			return true
		}
	}
	return false
}

func (k *conn) hello(line, verb, host string) error {
	lines := []string{"mx.test"}
	if verb != "HELO" {
		lines = append(lines, k.server.extensions...)
		if k.server.tls != nil && !k.tls {
			lines = append(lines, "STARTTLS")
		}
		if k.server.user != "" || k.server.token != nil {
			lines = append(lines, "AUTH "+strings.Join(k.server.mechanisms, " "))
		}
	}
	if (verb == "LHLO") != k.server.lmtp {
		k.violation("%s", line)
	}
	for i := range lines[:len(lines)-1] {
		lines[i] = "250-" + lines[i]
	}
	lines[len(lines)-1] = "250 " + lines[len(lines)-1]

	// EHLO resets a transaction, whatever the reply (RFC 5321 section 4.1.4).
	k.tx = nil
	sent, err := k.answer(Hello, line, "", strings.Join(lines, "\n"))
	if positive(sent) {
		k.verb, k.helo = verb, host
	}
	return err
}

func (k *conn) startTLS(line string) error {
	if k.br.Buffered() > 0 {
		k.violation("plaintext behind STARTTLS")
	}
	if k.server.tls == nil || k.tls {
		_, err := k.answer(StartTLS, line, "", "502 5.5.1 not here")
		return err
	}
	sent, err := k.answer(StartTLS, line, "", "220 2.0.0 go ahead")
	if err != nil || !positive(sent) {
		return err
	}

	// The reply has to go out in clear before the handshake. Everything that was said before does
	// not count any more.
	k.bw.Flush()
	k.tx, k.verb, k.helo = nil, "", ""
	return k.handshake()
}

// path splits "FROM:<a> X=1 Y" into the address and its parameters.
func path(args string) (address string, params map[string]string, ok bool) {
	_, rest, ok := strings.Cut(args, ":<")
	end := strings.LastIndexByte(rest, '>')
	if !ok || end < 0 {
		return "", nil, false
	}
	params = map[string]string{}
	for word := range strings.FieldsSeq(rest[end+1:]) {
		key, value, _ := strings.Cut(word, "=")
		params[strings.ToUpper(key)] = value
	}
	return rest[:end], params, true
}

func (k *conn) mail(line, args string) error {
	address, params, ok := path(args)
	switch {
	case !ok:
		k.violation("syntax: %q", line)
	case k.tx != nil:
		k.violation("MAIL inside a transaction")
		_, err := k.answer(Mail, line, address, "503 5.5.1 nested MAIL")
		return err
	case k.verb == "":
		k.violation("MAIL before EHLO")
	}

	// Each parameter belongs to an extension. Using one that was not offered is a violation, but no
	// reason to end the test's conversation.
	for key, needs := range map[string]string{
		"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN",
		"REQUIRETLS": "REQUIRETLS",
	} {
		if _, used := params[key]; used && !k.offers(needs) {
			k.violation("%s is not offered: %q", needs, line)
		}
	}

	// Refused transactions are numbered too, so that a hook can refuse the first and accept the
	// second.
	k.number++
	sent, err := k.answer(Mail, line, address, "250 2.1.0 sender ok")
	if positive(sent) {
		k.tx = &Transaction{
			Conn: k.index, Number: k.number, Verb: k.verb, Helo: k.helo, TLS: k.tls, User: k.user,
			Remote: k.raw.RemoteAddr().String(), Certificate: k.certificate, XClient: k.xclient, XForward: k.xforward,
			From: address, Params: params,
		}
		k.failed = false
	}
	return err
}

func (k *conn) rcpt(line, args string) error {
	address, params, ok := path(args)
	if !ok {
		k.violation("syntax: %q", line)
	}
	byDefault := "250 2.1.5 recipient ok"
	if k.tx == nil {
		byDefault = "503 5.5.1 need MAIL"
	}
	sent, err := k.answer(Rcpt, line, address, byDefault)
	if k.tx != nil {
		k.tx.Rcpts = append(k.tx.Rcpts, Recipient{Address: address, Params: params, Reply: sent})
	}
	return err
}

// attributes reads the NAME=value of XFORWARD or XCLIENT.
func (k *conn) attributes(line, verb, args string) error {
	if !k.offers(verb) {
		k.violation("%s is not offered: %q", verb, line)
		_, err := k.answer(Other, line, "", "502 5.5.1 not here")
		return err
	}
	if k.tx != nil {
		k.violation("%s inside a transaction", verb)
		_, err := k.answer(Other, line, "", "503 5.5.1 not now")
		return err
	}

	// The extension's keyword lists the attributes that a client may send.
	offered := k.parameters(verb)
	told := map[string]string{}
	for word := range strings.FieldsSeq(args) {
		name, value, ok := strings.Cut(word, "=")
		if name = strings.ToUpper(name); !ok || !slices.Contains(offered, name) {
			k.violation("%s: %q is not offered", verb, word)
		}
		told[name] = k.unxtext(value)
	}
	if verb == "XFORWARD" {
		sent, err := k.answer(XForward, line, "", "250 2.0.0 well")
		if positive(sent) {
			if k.xforward == nil {
				k.xforward = map[string]string{}
			}
			maps.Copy(k.xforward, told)
		}
		return err
	}

	// After XCLIENT the conversation begins anew for the client that was named.
	sent, err := k.answer(XClient, line, "", "220 mx.test ESMTP")
	if positive(sent) { // as if just connected
		k.xclient, k.xforward, k.verb, k.helo, k.user = told, nil, "", "", ""
	}
	return err
}

// parameters are the words behind an extension's keyword.
func (k *conn) parameters(keyword string) []string {
	for _, x := range k.server.extensions {
		if words := strings.Fields(x); words[0] == keyword {
			return words[1:]
		}
	}
	return nil
}

// unxtext decodes xtext (RFC 3461 section 4).
func (k *conn) unxtext(s string) string {
	parts := strings.Split(s, "+")
	for i, part := range parts[1:] {
		b, err := hex.DecodeString(part[:min(2, len(part))])
		if err != nil || len(b) != 1 {
			k.violation("%q is not xtext", s)
			return s
		}
		parts[i+1] = string(b) + part[2:]
	}
	return strings.Join(parts, "")
}
