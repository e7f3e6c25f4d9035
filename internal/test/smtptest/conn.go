package smtptest

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
)

// conn is one connection.
type conn struct {
	s   *Server
	n   int
	raw net.Conn
	c   net.Conn // raw, or TLS on it
	br  *bufio.Reader
	bw  *bufio.Writer

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
	k := &conn{s: s, n: n, raw: c}
	k.use(c)
	return k
}

// use reads from and writes to c. Replies are collected while commands are
// there to be read, as pipelining servers do.
func (k *conn) use(c net.Conn) {
	k.c = c
	k.bw = bufio.NewWriter(c)
	k.br = bufio.NewReader(flushing{k.bw, c})
}

type flushing struct {
	w *bufio.Writer
	r io.Reader
}

func (f flushing) Read(p []byte) (int, error) {
	if err := f.w.Flush(); err != nil {
		return 0, err
	}
	return f.r.Read(p)
}

func (k *conn) serve() {
	if k.s.implicit && k.handshake() != nil {
		return
	}
	if _, err := k.answer(Connect, "", "", "220 mx.test ESMTP"); err != nil {
		return
	}
	for k.command() == nil {
	}
}

func (k *conn) handshake() error {
	c := tls.Server(k.c, k.s.tls)
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
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	k.s.violations = append(k.s.violations, fmt.Sprintf("connection %d: ", k.n)+fmt.Sprintf(format, args...))
}

// answer asks the hook and does what it says; sent is as of ask.
func (k *conn) answer(stage Stage, line, address, byDefault string) (sent string, err error) {
	a, sent := k.ask(stage, line, address, byDefault)
	return sent, k.do(a)
}

// ask asks the hook. What comes back has its reply in raw; sent is the first
// line of it, if it is whole.
func (k *conn) ask(stage Stage, line, address, byDefault string) (a Action, sent string) {
	if h := k.s.hooks[stage]; h != nil {
		a = h(Event{
			Conn: k.n, Transaction: k.number, Stage: stage, Line: line, Address: address, Default: byDefault,
			TLS: k.tls, User: k.user,
		})
	}
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
	k.bw.Flush()
	switch a.then {
	case resetConn:
		if c, ok := k.raw.(interface{ SetLinger(seconds int) error }); ok {
			c.SetLinger(0)
		}
	case silent:
		io.Copy(io.Discard, k.c)
	case stalled:
		<-k.s.done.Done()
	case breakTLS:
		k.br.Peek(1) // the client's hello
		io.WriteString(k.c, "this is not TLS\r\n")
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
	k.s.mu.Lock()
	k.s.dialogs[k.n] = append(k.s.dialogs[k.n], line)
	k.s.notify()
	k.s.mu.Unlock()
	verb, args, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if k.br.Buffered() > 0 && verb != "BDAT" && !k.offers("PIPELINING") {
		k.violation("pipelined %q", line)
	}
	switch verb {
	case "EHLO", "HELO", "LHLO":
		return k.hello(line, verb, args)
	case "STARTTLS":
		return k.startTLS(line)
	case "AUTH":
		return k.auth(line, args)
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
	k.violation("unknown command %q", line)
	_, err = k.answer(Other, line, "", "500 5.5.2 what?")
	return err
}

func (k *conn) offers(keyword string) bool {
	if k.verb == "HELO" {
		return false
	}
	for _, x := range k.s.extensions {
		if word, _, _ := strings.Cut(x, " "); word == keyword {
			return true
		}
	}
	return false
}

func (k *conn) hello(line, verb, host string) error {
	lines := []string{"mx.test"}
	if verb != "HELO" {
		lines = append(lines, k.s.extensions...)
		if k.s.tls != nil && !k.tls {
			lines = append(lines, "STARTTLS")
		}
		if k.s.user != "" {
			lines = append(lines, "AUTH "+strings.Join(k.s.mechanisms, " "))
		}
	}
	if (verb == "LHLO") != k.s.lmtp {
		k.violation("%s", line)
	}
	for i := range lines[:len(lines)-1] {
		lines[i] = "250-" + lines[i]
	}
	lines[len(lines)-1] = "250 " + lines[len(lines)-1]
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
	if k.s.tls == nil || k.tls {
		_, err := k.answer(StartTLS, line, "", "502 5.5.1 not here")
		return err
	}
	sent, err := k.answer(StartTLS, line, "", "220 2.0.0 go ahead")
	if err != nil || !positive(sent) {
		return err
	}
	k.bw.Flush()
	k.tx, k.verb, k.helo = nil, "", ""
	return k.handshake()
}

func (k *conn) auth(line, args string) error {
	mech, initial, given := strings.Cut(args, " ")
	ask := func(prompt string) (string, error) {
		io.WriteString(k.bw, "334 "+base64.StdEncoding.EncodeToString([]byte(prompt))+"\r\n")
		return k.readLine()
	}
	decode := func(s string) string {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			k.violation("AUTH: %q is not base64", s)
		}
		return string(b)
	}
	var user, pass string
	var err error
	switch strings.ToUpper(mech) {
	case "PLAIN":
		if !given {
			if initial, err = ask(""); err != nil {
				return err
			}
		}
		parts := strings.Split(decode(initial), "\x00")
		if len(parts) == 3 {
			user, pass = parts[1], parts[2]
		}
	case "LOGIN":
		if !given {
			if initial, err = ask("Username:"); err != nil {
				return err
			}
		}
		user = decode(initial)
		answer, err := ask("Password:")
		if err != nil {
			return err
		}
		pass = decode(answer)
	case "CRAM-MD5":
		const challenge = "<1896.697170952@mx.test>"
		answer, err := ask(challenge)
		if err != nil {
			return err
		}
		name, digest, _ := strings.Cut(decode(answer), " ")
		h := hmac.New(md5.New, []byte(k.s.pass))
		h.Write([]byte(challenge))
		if digest == hex.EncodeToString(h.Sum(nil)) {
			user, pass = name, k.s.pass
		}
	case "EXTERNAL":
		if !given {
			if _, err = ask(""); err != nil {
				return err
			}
		}
		if k.certificate != "" {
			user, pass = k.s.user, k.s.pass
		}
	}
	byDefault := "535 5.7.8 wrong"
	if k.s.user != "" && user == k.s.user && pass == k.s.pass {
		byDefault = "235 2.7.0 welcome"
	}
	sent, err := k.answer(Auth, line, "", byDefault)
	if positive(sent) {
		k.user = user
	}
	return err
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
	for key, needs := range map[string]string{
		"SIZE": "SIZE", "BODY": "8BITMIME", "SMTPUTF8": "SMTPUTF8", "RET": "DSN", "ENVID": "DSN",
		"REQUIRETLS": "REQUIRETLS",
	} {
		if _, used := params[key]; used && !k.offers(needs) {
			k.violation("%s is not offered: %q", needs, line)
		}
	}
	k.number++
	sent, err := k.answer(Mail, line, address, "250 2.1.0 sender ok")
	if positive(sent) {
		k.tx = &Transaction{
			Conn: k.n, Number: k.number, Verb: k.verb, Helo: k.helo, TLS: k.tls, User: k.user,
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

// wanted reports whether a recipient of the transaction was accepted.
func (k *conn) wanted() bool {
	return k.tx != nil && slices.ContainsFunc(k.tx.Rcpts, func(r Recipient) bool { return positive(r.Reply) })
}

func (k *conn) data(line string) error {
	byDefault := "354 go ahead"
	if !k.wanted() {
		byDefault = "503 5.5.1 need RCPT"
	}
	sent, err := k.answer(Data, line, "", byDefault)
	if err != nil || !strings.HasPrefix(sent, "3") {
		return err
	}
	if _, err := k.answer(Body, "", "", ""); err != nil {
		return err
	}
	content, err := k.content()
	if err != nil {
		return err
	}
	tx := k.tx
	if tx == nil {
		tx = &Transaction{Conn: k.n}
	}
	tx.Content = content
	return k.finish(tx)
}

// finish ends a transaction of which the whole message is there.
func (k *conn) finish(tx *Transaction) error {
	k.tx, k.xforward = nil, nil
	// The transaction is on record before anybody hears of it.
	var actions []Action
	if !k.s.lmtp {
		a, sent := k.ask(Dot, ".", "", "250 2.0.0 queued")
		for i := range tx.Rcpts {
			tx.Rcpts[i].Final = sent
		}
		actions = append(actions, a)
	} else {
		for i := range tx.Rcpts {
			r := &tx.Rcpts[i]
			if !positive(r.Reply) || len(actions) > 0 && actions[len(actions)-1].then != goOn {
				continue
			}
			a, sent := k.ask(Dot, ".", r.Address, "250 2.0.0 delivered")
			r.Final = sent
			actions = append(actions, a)
		}
	}
	k.s.mu.Lock()
	k.s.transactions = append(k.s.transactions, *tx)
	k.s.notify()
	k.s.mu.Unlock()
	for _, a := range actions {
		if err := k.do(a); err != nil {
			return err
		}
	}
	return nil
}

// content reads a message up to the final dot. Only CRLF ends a line.
func (k *conn) content() ([]byte, error) {
	var b, line []byte
	for {
		part, err := k.br.ReadSlice('\n')
		line = append(line, part...)
		if err == bufio.ErrBufferFull {
			continue
		}
		if err != nil {
			return nil, err
		}
		if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.IndexByte(line, '\r') != len(line)-2 {
			k.violation("bare CR or LF in content")
		}
		if string(line) == ".\r\n" {
			return b, nil
		}
		b = append(b, bytes.TrimPrefix(line, []byte("."))...)
		line = line[:0]
	}
}

// bdat reads one chunk (RFC 3030).
func (k *conn) bdat(line, args string) error {
	count, mark, marked := strings.Cut(args, " ")
	size, err := strconv.Atoi(count)
	last := strings.EqualFold(mark, "LAST")
	switch {
	case err != nil || size < 0 || marked && !last:
		k.violation("syntax: %q", line)
		_, err := k.answer(Other, line, "", "501 5.5.4 syntax")
		return err
	case !k.offers("CHUNKING"):
		k.violation("CHUNKING is not offered: %q", line)
	}
	chunk := make([]byte, size)
	if _, err := io.ReadFull(k.br, chunk); err != nil {
		return err
	}
	switch {
	case k.failed: // an earlier chunk: the client may have sent this one before it knew
		_, err := k.answer(Chunk, line, "", "503 5.5.1 the transaction has failed")
		return err
	case !k.wanted():
		_, err := k.answer(Chunk, line, "", "503 5.5.1 need RCPT")
		return err
	}
	k.tx.Content = append(k.tx.Content, chunk...)
	k.tx.Chunks++
	if !last {
		sent, err := k.answer(Chunk, line, "", "250 2.0.0 chunk taken")
		k.failed = !positive(sent)
		return err
	}
	content := k.tx.Content
	if n := bytes.Count(content, []byte("\r\n")); bytes.Count(content, []byte("\r")) != n || bytes.Count(content, []byte("\n")) != n {
		k.violation("bare CR or LF in content")
	}
	return k.finish(k.tx)
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
	sent, err := k.answer(XClient, line, "", "220 mx.test ESMTP")
	if positive(sent) { // as if just connected
		k.xclient, k.xforward, k.verb, k.helo, k.user = told, nil, "", "", ""
	}
	return err
}

// parameters are the words behind an extension's keyword.
func (k *conn) parameters(keyword string) []string {
	for _, x := range k.s.extensions {
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
