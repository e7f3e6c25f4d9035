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
	"cmp"
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

	"tarishi/internal/generation"
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
	// Wait returns when no handler runs that has outlived its timeout, or when ctx ends.
	Wait(ctx context.Context)
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

// Conversation is what a connection needs of the configuration. It takes the one that
// is in force when it is accepted, and has it to its end. Me, Chain and Intake are
// needed; zero sizes and times mean the default or, where there is none, no limit.
type Conversation struct {
	Settings
	Me string // our hostname

	TLSConfig       *tls.Config // nil: no TLS; with it hook.Connection.OfferTLS decides
	SubmissionPorts []int       // local ports on which only clients that may relay may send (RFC 6409 section 4.3)

	Chain    Chain
	Intake   Intake   // its hooks are those of Chain
	Resolver Resolver // nil: clients have no names
}

// complete puts the defaults in the place of what is not set.
func (c *Conversation) complete() {
	if c.MaxLine <= 0 {
		c.MaxLine = defaultMaxLine
	}
	c.MaxLine = min(c.MaxLine, smtpd.LargestLine)
	if c.InactivityTimeout <= 0 {
		c.InactivityTimeout = defaultInactivity
	}
	c.Helo, c.Close = cmp.Or(c.Helo, defaultHelo), cmp.Or(c.Close, defaultClose)
}

// Options is what a Server works with. Zero times mean the default.
type Options struct {
	Conversation // with which it begins

	Version       string        // shown in banner and Received
	MinRateWindow time.Duration // over which MinRate is averaged; 0: 30 s
	RDNSTimeout   time.Duration // of the lookups for the client's name, all in all; 0: 5 s

	Mail *maillog.Log     // nil: none
	Log  *zap.Logger      // nil: none
	Now  func() time.Time // for the wait after wrong passwords; nil: time.Now
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
	// lateGrace is how long a Conversation without connections is held for handlers that
	// have outlived their timeout: one that never returns must not keep it for ever.
	lateGrace = time.Minute
)

// Server serves connections and knows those that are open.
type Server struct {
	o         Options // without its Conversation
	current   *generation.Value[Conversation]
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
	if o.MinRateWindow <= 0 {
		o.MinRateWindow = defaultRateWindow
	}
	if o.RDNSTimeout <= 0 {
		o.RDNSTimeout = defaultRDNS
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
	first := o.Conversation
	first.complete()
	o.Conversation = Conversation{}
	return &Server{
		o: o, current: generation.New(first), authDelay: authDelay, guesses: guesses.New(first.MaxAuthFailures, o.Now),
		memory: smtpd.NewBudget(first.Memory), own: localaddr.New(nil, o.Log), closing: make(chan struct{}), sessions: map[*session]struct{}{},
	}
}

// Use has the connections that are accepted from now on take next. Those that are open
// go on with what they have. The bounds over all connections together, MaxAuthFailures
// and Memory, count at once for all of them. drained is closed when the last
// connection with the Conversation before has ended, and with it the handlers that have
// outlived their timeout, or a minute later. One call at a time.
func (s *Server) Use(next Conversation) (drained <-chan struct{}) {
	next.complete()
	s.guesses.SetFree(next.MaxAuthFailures)
	s.memory.SetLimit(next.Memory)

	// No connection runs the old chain any more when the last has let it go, but a handler
	// may that was late.
	chain := s.current.Now().Chain
	left := s.current.Swap(next)
	ended := make(chan struct{})
	go func() { // ends with the connections
		defer close(ended)
		<-left
		ctx, cancel := context.WithTimeout(context.Background(), lateGrace)
		defer cancel()
		chain.Wait(ctx)
	}()
	return ended
}

// Serve holds one whole conversation on conn, which it closes. With implicitTLS
// the conversation is under TLS from the first byte. The end of ctx cuts it
// off; to let it end well use Shutdown.
func (s *Server) Serve(ctx context.Context, conn net.Conn, implicitTLS bool) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	held := s.current.Take()
	defer held.Release()
	c := newSession(own, s, &held.Value, conn)
	c.cancel = cancel
	if !s.register(c) {
		if !implicitTLS {
			c.wire.Answer(421, "4.3.2", c.o.Me+" is shutting down")
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
