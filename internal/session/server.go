// Package session holds the server's side of one SMTP conversation (RFC 5321)
// from accept to close and runs the inbound hooks along it. The bytes are package
// smtpd's business: a session gets typed commands and content, and gives replies.
//
// It is a machine of states and commands. The table steps says what each command
// does in each state, and nothing else knows how far the protocol is:
//
//	          banner             EHLO, HELO             AUTH
//	accepted ───────▶ connected ────────────▶ greeted ────────▶ authenticated
//	                      ▲                    │   ▲              │   ▲
//	 STARTTLS, or EHLO or │               MAIL │   │         MAIL │   │
//	 HELO that a hook has │                    ▼   │              ▼   │
//	 refused, from any ───┘          ┌───────▶ inTransaction ─────────┤
//	                      RCPT, MAIL └──────────┘  │                  │
//	                                    DATA, BDAT │                  │
//	                                               ▼                  │
//	                                 ┌───────▶ receiving ─────────────┘
//	                            BDAT └──────────┘    the transaction ends: RSET, EHLO,
//	                                                 end of data, refused DATA or VRFY
//
//	any of them ── QUIT, a refusal that disconnects, a client that vanishes, is too
//	slow or breaks the rules of content, a panic ──▶ closing
//
// A transaction that ends leads back to greeted, or to authenticated if the client has
// shown its credentials.
//
// Invariants: hooks of one connection and the hook.Connection they see are
// touched by one goroutine at a time: a handler sees them through views, which end
// with its time. A transaction exists from an accepted
// MAIL to its reset and is gone after every end of data, good or bad;
// reset_transaction runs once for each, disconnect once for each connection.
// Nothing is passed to the Intake that did not end with a whole end-of-data.
// A panic in a hook or here costs its own connection only, which gets 421.
package session

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/guesses"
	"tarishi/internal/hook"
	"tarishi/internal/localaddr"
	"tarishi/internal/maillog"
	"tarishi/internal/receive"
	"tarishi/internal/reply"
	"tarishi/internal/smtpd"
)

// Chain runs hooks. *hook.Chain is one.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
}

// Resolver finds the names of an address, without trailing dots, and the
// addresses of a name. The end of ctx ends the search.
type Resolver interface {
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	Host(ctx context.Context, host string) ([]netip.Addr, error)
}

// Body takes the bytes of one message.
type Body = receive.Body

// Intake takes responsibility for received messages.
type Intake interface {
	NewBody() Body
	// Accept runs after data_post. Its reply is the answer to the end of data; a
	// positive one says that someone took responsibility. The verdict is that of the
	// hooks: it says whether the connection is to be closed behind a refusal.
	Accept(ctx context.Context, c *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict)
	// Room returns nil, or the reply that MAIL gets when a message of size bytes
	// cannot be taken; size is 0 where the client did not say.
	Room(size int64) error
}

// Options is what a Server works with. Me, Chain and Intake are needed; zero
// sizes and times mean the default or, where there is none, no limit.
type Options struct {
	Settings
	Me      string // our hostname
	Version string // shown in banner and Received

	MinRateWindow time.Duration // over which MinRate is averaged; 0: 30 s
	RDNSTimeout   time.Duration // of the lookups for the client's name, all in all; 0: 5 s

	TLSConfig       *tls.Config // nil: no TLS; with it hook.Connection.OfferTLS decides
	SubmissionPorts []int       // local ports on which only clients that may relay may send (RFC 6409 section 4.3)

	Chain    Chain
	Intake   Intake
	Resolver Resolver     // nil: clients have no names
	Mail     *maillog.Log // nil: none
	Log      *zap.Logger  // nil: none

	Now func() time.Time // for the wait after wrong passwords; nil: time.Now
}

const (
	defaultMaxLine    = 2048
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
	own       *localaddr.Set
	authDelay time.Duration
	guesses   *guesses.Counter
	panics    atomic.Int64
	memory    *smtpd.Budget
	answerers smtpd.Answerers

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
	o.MaxLine = min(o.MaxLine, smtpd.LargestLine)
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
	s := &Server{
		o: o, authDelay: authDelay, guesses: guesses.New(o.MaxAuthFailures, o.Now), memory: smtpd.NewBudget(o.Memory), own: localaddr.New(nil, o.Log),
		closing: make(chan struct{}), sessions: map[*session]struct{}{},
	}
	return s
}

// Serve holds one whole conversation on conn, which it closes. With implicitTLS
// the conversation is under TLS from the first byte. The end of ctx cuts it
// off; to let it end well use Shutdown.
func (s *Server) Serve(ctx context.Context, conn net.Conn, implicitTLS bool) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	c := newSession(own, s, conn)
	c.cancel = cancel
	if !s.register(c) {
		if !implicitTLS {
			c.wire.Answer(421, "4.3.2", s.o.Me+" is shutting down")
		}
		c.wire.Close()
		return
	}
	defer s.unregister(c)
	stop := context.AfterFunc(ctx, c.cutOff)
	defer stop()

	// Hooks and logs need a deep stack, which would stay as large while the client is
	// silent. They have it in a goroutine that ends then.
	active := make(chan bool)
	for first := true; ; first = false {
		go func() {
			idle := false // also when a handler ends the goroutine
			defer func() { active <- idle }()
			idle = c.proceed(first, implicitTLS)
		}()
		if idle := <-active; !idle {
			return
		}
		c.wire.Park()
	}
}

func (s *Server) register(c *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.sessions[c] = struct{}{}
	s.served.Add(1)
	return true
}

func (s *Server) unregister(c *session) {
	s.mu.Lock()
	delete(s.sessions, c)
	last := len(s.sessions) == 0
	s.mu.Unlock()
	if last {
		s.answerers.Dismiss()
	}
	s.served.Done()
}

// Shutdown ends all sessions and refuses new ones. A session that waits for a
// command gets 421 and is closed at once; one that receives or queues a message
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
		c.wire.Wake()
	}
	s.mu.Unlock()

	// Sessions that are busy end by themselves, until ctx says that it is too late.
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

	// Without grace the replies are on their way still.
	select {
	case <-done:
		return nil
	case <-time.After(shutdownNotice - time.Since(began)):
	}

	// The rest is cut off. Hooks see the end of their context.
	s.mu.Lock()
	n := len(s.sessions)
	for c := range s.sessions {
		c.cutOff()
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
