// Package smtptest is a scripted SMTP or LMTP server for tests, on loopback or on a
// Network in memory. By itself it is a correct ESMTP server that accepts and records
// everything; a hook may replace its reply at every stage, break the protocol
// in many ways, or break the connection.
//
// A Server fails no test by itself but in the Wait methods; what a client did
// wrong is in Violations. It is closed by the test's cleanup.
package smtptest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Stage is where in a conversation an Event happens.
type Stage string

// The stages. Body comes after the positive reply to DATA and before content
// is read; its reply is unasked for. Chunk is each BDAT but the last of a
// message. Dot is the final dot or the last chunk: it comes once for a message,
// or in LMTP once for each accepted recipient.
const (
	Connect  Stage = "connect"
	Hello    Stage = "hello"
	StartTLS Stage = "starttls"
	Auth     Stage = "auth"
	Mail     Stage = "mail"
	Rcpt     Stage = "rcpt"
	Data     Stage = "data"
	Body     Stage = "body"
	Chunk    Stage = "chunk"
	Dot      Stage = "dot"
	Rset     Stage = "rset"
	Quit     Stage = "quit"
	XForward Stage = "xforward"
	XClient  Stage = "xclient" // the default reply is a new greeting
	Other    Stage = "other"   // NOOP and unknown commands
)

// Event is what a hook is asked about.
type Event struct {
	Conn        int // connection, from 1
	Transaction int // of this connection, from 1; 0 before the first MAIL
	Stage       Stage
	Line        string // the command
	Address     string // Mail, Rcpt, and Dot in LMTP
	Default     string // the reply that an empty Action sends
	TLS         bool
	User        string // authenticated
}

// Hook answers an event; the empty Action is the default reply. It is called
// from the goroutine of the connection.
type Hook func(e Event) Action

// Action is what the server does instead of its default.
type Action struct {
	reply string // lines separated by \n; they get their CRLF
	raw   string // as it is
	extra string // as it is, behind the reply
	then  after
}

type after int

const (
	goOn after = iota
	closeConn
	resetConn
	silent
	stalled
	breakTLS
)

// Reply sends the lines of text, "\n" between them.
func Reply(text string) Action { return Action{reply: text} }

// Raw sends s as it is.
func Raw(s string) Action { return Action{raw: s} }

// Extra sends the default reply and, in the same write, s as it is.
func Extra(s string) Action { return Action{extra: s} }

// Close closes the connection without a reply.
func Close() Action { return Action{then: closeConn} }

// Reset closes the connection with an RST.
func Reset() Action { return Action{then: resetConn} }

// Silence says nothing any more and reads until the peer closes.
func Silence() Action { return Action{then: silent} }

// Stall neither writes nor reads any more until the server is closed.
func Stall() Action { return Action{then: stalled} }

// BreakTLS answers STARTTLS with 220 and the handshake with garbage.
func BreakTLS() Action { return Action{then: breakTLS} }

// Garbage sends a line that is no reply.
func Garbage() Action { return Raw("\x00\xfe\xff garbage\x1b[2J\r\n") }

// HalfLine sends the beginning of a reply and then nothing.
func HalfLine() Action { return Action{raw: "250 2.0", then: silent} }

// Huge sends a reply of about 100 kB in lines with the code.
func Huge(code string) Action {
	return Raw(strings.Repeat(code+"-"+strings.Repeat("x", 94)+"\r\n", 1000) + code + " end\r\n")
}

// LongLine sends a reply of 100 kB in one line.
func LongLine(code string) Action { return Raw(code + " " + strings.Repeat("x", 100_000) + "\r\n") }

// ThenClose closes the connection after what a sends.
func (a Action) ThenClose() Action { a.then = closeConn; return a }

// ThenReset resets the connection after what a sends.
func (a Action) ThenReset() Action { a.then = resetConn; return a }

// ThenSilence says nothing more after what a sends.
func (a Action) ThenSilence() Action { a.then = silent; return a }

// Option configures a Server.
type Option func(*Server)

// On sets the hook of one stage.
func On(stage Stage, h Hook) Option { return func(s *Server) { s.hooks[stage] = h } }

// Always makes a hook that answers every event with a.
func Always(a Action) Hook { return func(Event) Action { return a } }

// First makes a hook that answers the first n events with a.
func First(n int, a Action) Hook {
	var mu sync.Mutex
	return func(Event) Action {
		mu.Lock()
		defer mu.Unlock()
		if n--; n >= 0 {
			return a
		}
		return Action{}
	}
}

// For makes a hook that answers events about these addresses with a.
func For(a Action, addresses ...string) Hook {
	return func(e Event) Action {
		if slices.Contains(addresses, e.Address) {
			return a
		}
		return Action{}
	}
}

// Extensions replaces what EHLO offers besides STARTTLS and AUTH: by default
// PIPELINING, 8BITMIME, SIZE, DSN, SMTPUTF8 and ENHANCEDSTATUSCODES.
func Extensions(list ...string) Option { return func(s *Server) { s.extensions = list } }

// Without takes extensions away, by keyword.
func Without(keywords ...string) Option {
	return func(s *Server) {
		s.extensions = slices.DeleteFunc(slices.Clone(s.extensions), func(x string) bool {
			word, _, _ := strings.Cut(x, " ")
			return slices.Contains(keywords, word)
		})
	}
}

// With adds extensions to what EHLO offers, each a line such as "CHUNKING",
// "REQUIRETLS" or "XFORWARD NAME ADDR". BDAT, XFORWARD and XCLIENT work only
// where they are offered.
func With(lines ...string) Option {
	return func(s *Server) { s.extensions = append(slices.Clone(s.extensions), lines...) }
}

// LMTP makes the server speak LMTP.
func LMTP() Option { return func(s *Server) { s.lmtp = true } }

// TLS makes the server offer STARTTLS, with a self-signed certificate for
// localhost, 127.0.0.1 and the hosts named.
func TLS(hosts ...string) Option {
	return func(s *Server) { s.tls, s.roots = certificate(s.test, hosts) }
}

// ImplicitTLS makes the server speak TLS from the first byte; see TLS.
func ImplicitTLS(hosts ...string) Option {
	return func(s *Server) {
		TLS(hosts...)(s)
		s.implicit = true
	}
}

// Credentials makes the server offer AUTH with PLAIN and LOGIN for one user. It
// also knows CRAM-MD5, and EXTERNAL for clients with a certificate; see
// Mechanisms.
func Credentials(user, pass string) Option {
	return func(s *Server) { s.user, s.pass = user, pass }
}

// Mechanisms replaces the mechanisms that are announced with Credentials.
func Mechanisms(list ...string) Option { return func(s *Server) { s.mechanisms = list } }

// Tokens makes the server offer AUTH with XOAUTH2 and OAUTHBEARER. Those that valid takes are right.
// With explains it says in a challenge why another is not, before it refuses it.
func Tokens(valid func(user, token string) bool, explains bool) Option {
	return func(s *Server) {
		s.token, s.explains, s.mechanisms = valid, explains, []string{"XOAUTH2", "OAUTHBEARER"}
	}
}

// Listen sets where the server listens instead of "tcp" and "127.0.0.1:0".
func Listen(network, address string) Option {
	return func(s *Server) { s.network, s.address = network, address }
}

// Socket is a path for Listen on "unix" and for a client in the same process. It
// fits into a socket's address, however long the name of the temporary folder is.
func Socket(t testing.TB) string {
	t.Helper()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return fmt.Sprintf("/proc/self/fd/%d/socket", dir.Fd())
}

// Server is a running server.
type Server struct {
	test             testing.TB
	network, address string
	memory           *Network // in the place of a socket
	extensions       []string
	mechanisms       []string
	hooks            map[Stage]Hook
	lmtp, implicit   bool
	user, pass       string
	token            func(user, token string) bool
	explains         bool
	tls              *tls.Config
	roots            *x509.CertPool
	ln               net.Listener
	done             context.Context // ends with the server
	cancel           context.CancelFunc
	running          sync.WaitGroup

	mu           sync.Mutex
	changed      chan struct{} // closed and replaced at every change below
	conns        int
	open         map[net.Conn]bool
	transactions []Transaction
	dialogs      map[int][]string
	violations   []string
}

// New starts a server.
func New(t testing.TB, options ...Option) *Server {
	t.Helper()
	s := &Server{
		test: t, network: "tcp", address: "127.0.0.1:0", hooks: map[Stage]Hook{},
		extensions: []string{"PIPELINING", "8BITMIME", "SIZE 0", "DSN", "SMTPUTF8", "ENHANCEDSTATUSCODES"},
		mechanisms: []string{"PLAIN", "LOGIN"},
		changed:    make(chan struct{}), open: map[net.Conn]bool{}, dialogs: map[int][]string{},
	}
	for _, o := range options {
		o(s)
	}
	if s.memory != nil {
		s.ln = s.memory.listen()
	} else {
		ln, err := net.Listen(s.network, s.address)
		if err != nil {
			t.Fatal(err)
		}
		s.ln = ln
	}
	s.done, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.accept)
	t.Cleanup(s.Close)
	return s
}

// Close stops the server and closes its connections. It may be called more
// than once.
func (s *Server) Close() {
	s.cancel()
	s.ln.Close()
	s.Drop()
	s.running.Wait()
}

// Drop closes all connections, without a word.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

// Addr is where the server listens: "127.0.0.1:port" or a path.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Port is the number in Addr.
func (s *Server) Port() int {
	if a, ok := s.ln.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// Certificate returns the certificate of a server with TLS, for a client that
// wants one.
func (s *Server) Certificate() tls.Certificate { return s.tls.Certificates[0] }

// Roots holds the server's certificate, for clients that verify it.
func (s *Server) Roots() *x509.CertPool { return s.roots }

// PEM is the server's certificate as a file holds it.
func (s *Server) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.tls.Certificates[0].Certificate[0]}))
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns++
		n := s.conns
		s.open[c] = true
		s.notify()
		s.mu.Unlock()
		s.running.Go(func() {
			defer func() {
				c.Close()
				s.mu.Lock()
				delete(s.open, c)
				s.notify()
				s.mu.Unlock()
			}()
			if s.done.Err() == nil {
				newConn(s, c, n).serve()
			}
		})
	}
}

// notify wakes the Wait methods; s.mu is held.
func (s *Server) notify() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Connections is how many connections were accepted so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conns
}

// Open is how many connections are open.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Transactions returns every transaction with a whole message, whatever was
// answered, in the order in which they ended.
func (s *Server) Transactions() []Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.transactions)
}

// Messages returns the transactions that were accepted for one recipient at
// least.
func (s *Server) Messages() []Transaction {
	return slices.DeleteFunc(s.Transactions(), func(x Transaction) bool { return len(x.Accepted()) == 0 })
}

// Dialog returns the commands that arrived on one connection, from 1.
func (s *Server) Dialog(conn int) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.dialogs[conn])
}

// Violations returns what clients did against the protocol.
func (s *Server) Violations() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.violations)
}

// patience ends the Wait methods of a test that fails; no other depends on it.
const patience = 2 * time.Minute

// WaitMessages waits until there are n Messages and returns them. The test
// fails after two minutes.
func (s *Server) WaitMessages(n int) []Transaction {
	s.test.Helper()
	var all []Transaction
	s.Wait(func() bool { all = s.Messages(); return len(all) >= n }, "messages")
	return all
}

// WaitOpen waits until n connections are open. The test fails after two minutes.
func (s *Server) WaitOpen(n int) {
	s.test.Helper()
	s.Wait(func() bool { return s.Open() == n }, "open connections")
}

// Wait waits until cond is true; it is asked whenever something changed. The
// test fails after two minutes.
func (s *Server) Wait(cond func() bool, what string) {
	s.test.Helper()
	timeout := time.After(patience)
	for {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		if cond() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			s.test.Fatalf("smtptest: waited in vain for %s", what)
		}
	}
}

// Transaction is one message with its envelope.
type Transaction struct {
	Conn   int    // connection, from 1
	Number int    // on the connection, from 1
	Verb   string // "EHLO", "HELO" or "LHLO"
	Helo   string // its argument
	TLS    bool
	User   string // authenticated

	Remote string // the client's address

	// Certificate is the common name of the client's certificate, if it has one.
	Certificate string
	// XClient and XForward are the attributes that were told, decoded: those of
	// this connection, and those of this transaction.
	XClient, XForward map[string]string
	// Chunks is how many BDAT commands brought the content; 0: DATA did.
	Chunks int

	From    string // without angle brackets
	Params  map[string]string
	Rcpts   []Recipient // all that were tried
	Content []byte      // as it was before dot-stuffing
}

// Recipient is one RCPT.
type Recipient struct {
	Address string // without angle brackets
	Params  map[string]string
	Reply   string // to RCPT
	Final   string // to the final dot; "" when none was sent
}

// Accepted returns the recipients that were accepted in RCPT and in the end.
func (x Transaction) Accepted() []string {
	var all []string
	for _, r := range x.Rcpts {
		if positive(r.Reply) && positive(r.Final) {
			all = append(all, r.Address)
		}
	}
	return all
}

func positive(reply string) bool { return strings.HasPrefix(reply, "2") }
