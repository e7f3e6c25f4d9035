// Package session holds the server's side of one SMTP conversation (RFC 5321)
// from accept to close and runs the inbound hooks along it.
//
// go-smtp parses the commands. Between it and the client stands a stream that
// owns the socket, TLS, deadlines and both buffers, and that gives go-smtp one
// command line at a time, after all earlier ones have been answered. Therefore
// the state of the conversation is known at every byte, however the client cuts
// its segments. What go-smtp cannot do as it is needed here never reaches it:
//
//   - DATA and BDAT content, which is read here, so that bare CR and LF are
//     refused, a vanished client leaves nothing behind, hook data runs before
//     354, and no byte is looked at twice;
//   - STARTTLS: the plaintext conversation ends and a new one begins under TLS,
//     so that nothing of the first can survive (RFC 3207 section 4.2);
//   - QUIT and the greeting, whose texts are ours.
//
// Invariants: hooks of one connection and the hook.Connection they see are
// touched by one goroutine at a time. What a handler still has after its timeout is
// given up to it: the client is told 421, and the hooks that end a transaction and
// a connection get fresh objects. A transaction exists from an accepted
// MAIL to its reset and is gone after every end of data, good or bad;
// reset_transaction runs once for each, disconnect once for each connection.
// Nothing is passed to the Intake that did not end with a whole end-of-data.
// Memory does not grow with the size of a message, and what all sessions hold of
// mail that is arriving is bounded: see budget. A panic in a hook or here
// costs its own connection only, which is told 421.
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/reply"
)

// Chain runs hooks. *hook.Chain is one.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
}

// Resolver finds the names of an address, without trailing dots, and the
// addresses of a name. The end of ctx ends what it does.
type Resolver interface {
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Body takes the bytes of one message. Content ends the writing. Discard drops
// what nobody took over; it may be called at any time, more than once.
type Body interface {
	io.Writer
	Content() (mail.Content, error)
	Discard()
	// Held is how many bytes of memory the body takes. Spill has it take none, from
	// then on; the error is as Write's.
	Held() int64
	Spill() error
}

// Intake takes responsibility for received messages.
type Intake interface {
	NewBody() Body
	// Accept runs after data_post. Its reply is the answer to the end of data; a
	// positive one says that someone took responsibility. The verdict is that of the
	// hooks: it says whether the connection is to be closed behind a refusal, and
	// whether c and t still belong to the caller (Fresh).
	Accept(ctx context.Context, c *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict)
	// Room returns nil, or the reply that MAIL gets when a message of size bytes
	// cannot be taken; size is 0 where the client did not say.
	Room(size int64) error
}

// Options is what a Server works with. Me, Chain and Intake are needed; zero
// sizes and times mean the default or, where there is none, no limit.
type Options struct {
	Me       string   // our hostname
	Version  string   // shown in banner and Received
	Greeting []string // lines of the banner; nil: the built-in
	Helo     string   // end of the EHLO and HELO reply
	Close    string   // text of the reply to QUIT

	MaxBytes          int64         // of a message, announced with SIZE; 0: none
	MaxLine           int           // of a command with its line end, octets; 0: 2048; at most 16 KiB
	MaxReceived       int           // Received fields, ours included; 0: none
	MaxRecipients     int           // of a transaction; 0: none
	InactivityTimeout time.Duration // for a whole command, and between bytes of content; 0: 5 min
	MaxRefusals       int           // replies 5yz in a session since a message was accepted; 0: no limit
	MaxAuthFailures   int           // wrong passwords from one IPv4 address or IPv6 /64 before it has to wait; 0: no limit
	MinRate           int64         // of content, bytes a second; 0: none
	MinRateWindow     time.Duration // over which MinRate is averaged; 0: 30 s
	// TransactionTimeout is how long after MAIL the client may still be waited for
	// until its message is whole; 0: no limit.
	TransactionTimeout time.Duration
	// Memory is how many bytes all sessions together may hold of mail that is
	// arriving, beside the first 16 KiB of each message; 0: no limit.
	Memory      int64
	RDNSTimeout time.Duration // of the lookups for the client's name, all in all; 0: 5 s

	ShowVersion      bool
	AddReceived      bool
	CleanAuthResults bool // rename Authentication-Results that clients send
	SMTPUTF8         bool // announce and accept RFC 6531
	Postel           bool // addresses up to mail.MaxPathRelaxed
	StrictDomains    bool // refuse addresses with an underscore in their domain
	StrictRFC1869    bool // FROM:<…> and TO:<…> without blanks, from clients that may not relay

	TLSConfig       *tls.Config // nil: no TLS; with it hook.Connection.OfferTLS decides
	SubmissionPorts []int       // local ports on which only clients that may relay may send (RFC 6409 section 4.3)
	AuthInsecure    bool        // offer AUTH also to public addresses without TLS

	BannerChars int // of the connection's id, shown in the banner
	DenyChars   int // of the id, in front of our refusals; 1: the whole id

	Chain    Chain
	Intake   Intake
	Resolver Resolver     // nil: clients have no names
	Mail     *maillog.Log // nil: none
	Log      *zap.Logger  // nil: none

	Now func() time.Time // for the wait after wrong passwords; nil: time.Now
}

const (
	defaultMaxLine    = 2048
	largestMaxLine    = 16 << 10 // fits the content buffer
	defaultInactivity = 5 * time.Minute
	defaultRateWindow = 30 * time.Second
	defaultRDNS       = 5 * time.Second
	defaultHelo       = "Tarishi is at your service."
	defaultClose      = "closing connection. Have a jolly good day."

	// authDelay is what the first wrong password costs; it doubles with each
	// further one up to maxAuthDelay.
	authDelay    = time.Second
	maxAuthDelay = 16 * time.Second
	// shutdownNotice is how long a Shutdown without grace still lets sessions say
	// 421, and how long it waits for those that it cut off.
	shutdownNotice = 500 * time.Millisecond
	shutdownUnwind = 5 * time.Second
)

// Server serves connections and knows those that are open.
type Server struct {
	o         Options
	own       []netip.Addr // this host's addresses, as they were at the start
	authDelay time.Duration
	guesses   *guesses
	panics    atomic.Int64
	memory    budget

	closing chan struct{} // closed by Shutdown
	served  sync.WaitGroup

	mu       sync.Mutex
	sessions map[*session]struct{}
	closed   bool
}

// NewServer returns a Server. It starts nothing.
func NewServer(o Options) *Server {
	if o.MaxLine <= 0 {
		o.MaxLine = defaultMaxLine
	}
	o.MaxLine = min(o.MaxLine, largestMaxLine)
	if o.InactivityTimeout <= 0 {
		o.InactivityTimeout = defaultInactivity
	}
	if o.MinRateWindow <= 0 {
		o.MinRateWindow = defaultRateWindow
	}
	if o.RDNSTimeout <= 0 {
		o.RDNSTimeout = defaultRDNS
	}
	if o.Helo == "" {
		o.Helo = defaultHelo
	}
	if o.Close == "" {
		o.Close = defaultClose
	}
	if o.Mail == nil {
		o.Mail = maillog.Nop()
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Server{o: o, authDelay: authDelay, guesses: newGuesses(o.MaxAuthFailures, o.Now), closing: make(chan struct{}), sessions: map[*session]struct{}{}}
	s.memory = budget{limit: o.Memory, shares: map[*share]struct{}{}}
	if addrs, err := net.InterfaceAddrs(); err == nil {
		for _, a := range addrs {
			if n, ok := a.(*net.IPNet); ok {
				if ip, ok := netip.AddrFromSlice(n.IP); ok {
					s.own = append(s.own, ip.Unmap())
				}
			}
		}
	}
	return s
}

// Serve holds one whole conversation on conn, which it closes. With implicitTLS
// the conversation is under TLS from the first byte. The end of ctx cuts it
// off; to let it end well use Shutdown.
func (s *Server) Serve(ctx context.Context, conn net.Conn, implicitTLS bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := newSession(ctx, s, conn)
	c.cancel = cancel
	if !s.enter(c) {
		if !implicitTLS {
			c.io.say(421, "4.3.2", s.o.Me+" is shutting down")
		}
		c.io.close()
		return
	}
	defer s.leave(c)
	stop := context.AfterFunc(ctx, c.io.kill)
	defer stop()
	c.serve(implicitTLS)
}

func (s *Server) enter(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.sessions[c] = struct{}{}
	s.served.Add(1)
	return true
}

func (s *Server) leave(c *session) {
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
	s.served.Done()
}

// Shutdown ends all sessions and refuses new ones. A session that waits for a
// command is told 421 and closed at once; one that receives or queues a message
// answers that first. When ctx ends the rest is cut off, and the error says how
// many sessions that were.
func (s *Server) Shutdown(ctx context.Context) error {
	began := time.Now()
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	for c := range s.sessions {
		c.io.wake()
	}
	s.mu.Unlock()

	done := make(chan struct{})
	go func() { // ends with the last session
		s.served.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-done:
		return nil
	case <-time.After(shutdownNotice - time.Since(began)):
	}
	s.mu.Lock()
	n := len(s.sessions)
	for c := range s.sessions {
		c.cancel()
		c.io.kill()
	}
	s.mu.Unlock()
	err := fmt.Errorf("%d sessions were cut off: %w", n, context.Cause(ctx))
	select {
	case <-done:
		return err
	case <-time.After(shutdownUnwind):
		return errors.Join(err, errors.New("a hook of one of them is still running"))
	}
}

// Panics returns how many panics were caught since the start. Anything but 0 is
// a defect.
func (s *Server) Panics() int64 { return s.panics.Load() }

// isOwn reports whether addr is an address of this host.
func (s *Server) isOwn(addr netip.Addr) bool { return slices.Contains(s.own, addr) }
