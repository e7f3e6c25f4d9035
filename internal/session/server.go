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
// shown its credentials. XCLIENT from a trusted peer makes the connection another client's: it
// leads to the state in which that client is, with a banner.
//
// The parts of a conversation that need no state of it have packages of their own below
// this one: policy (settings, and the rules and texts from them), peer (what the client's
// address says), xclient (what XCLIENT says), certificate (what
// the client has shown under TLS), login (AUTH), transaction (envelope, content and their memory), recipient (which ones are taken), verdict
// (replies to what hooks say) and roster (which conversations are open). What is left here is
// the machine, and the Server with the settings that its connections take: see Conversation.
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
	"net"
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
	"tarishi/internal/session/login"
	"tarishi/internal/session/peer"
	"tarishi/internal/session/policy"
	"tarishi/internal/session/roster"
	"tarishi/internal/smtpd"
	"tarishi/internal/smtpd/budget"
	"tarishi/internal/tlsconf"
)

// Chain runs hooks. *hook.Chain is one.
type Chain interface {
	Run(ctx context.Context, p hook.Point, e *hook.Event) hook.Verdict
	Has(p hook.Point) bool
	// Wait returns when no handler runs that has outlived its timeout, or when ctx ends.
	Wait(ctx context.Context)
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
	policy.Settings
	Me string // our hostname

	TLSConfig       *tls.Config      // nil: no TLS; with it hook.Connection.OfferTLS decides
	Clients         *tlsconf.Clients // whose certificates are asked for; nil: nobody's
	SubmissionPorts []int            // local ports on which only clients that may relay may send (RFC 6409 section 4.3)

	Chain    Chain
	Intake   Intake        // its hooks are those of Chain
	Resolver peer.Resolver // nil: clients have no names
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
	defaultRateWindow = 30 * time.Second
	defaultRDNS       = 5 * time.Second
	// lateGrace is how long a Conversation without connections is held for handlers that
	// have outlived their timeout: one that never returns must not keep it for ever.
	lateGrace = time.Minute
)

// Server serves connections and knows those that are open.
type Server struct {
	o         Options // without its Conversation
	current   *generation.Value[Conversation]
	own       *localaddr.Set
	login     login.Verifier
	panics    atomic.Int64
	memory    *budget.Budget
	answerers smtpd.Answerers
	open      *roster.Roster
}

// NewServer returns a Server. It starts nothing.
func NewServer(o Options) *Server {
	// Only tests change these.
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
	first.Complete()
	o.Conversation = Conversation{}

	// The Conversation changes from here on, so that there is but one place for it.
	s := &Server{
		o: o, current: generation.New(first), memory: budget.New(first.Memory), own: localaddr.New(nil, o.Log), open: roster.New(),
	}
	s.login = login.Verifier{
		Guesses: guesses.New(first.MaxAuthFailures, o.Now), Delay: login.Delay, Closing: s.open.Closing(), Mail: o.Mail, Log: o.Log,
	}
	return s
}

// Use has the connections that are accepted from now on take next. Those that are open
// go on with what they have. The bounds over all connections together, MaxAuthFailures
// and Memory, count at once for all of them. drained is closed when the last
// connection with the Conversation before has ended, and with it the handlers that have
// outlived their timeout, or a minute later. One call at a time.
func (s *Server) Use(next Conversation) (drained <-chan struct{}) {
	next.Complete()
	s.login.Guesses.SetFree(next.MaxAuthFailures)
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
	// Hooks of disconnect are the last that need it.
	held := s.current.Take()
	defer held.Release()
	c := newSession(own, s, &held.Value, conn)
	c.cancel = cancel
	if !s.open.Add(c) {
		if !implicitTLS {
			c.wire.Answer(421, "4.3.2", c.o.Me+" is shutting down")
		}
		c.wire.Close()
		return
	}
	defer s.open.Remove(c, s.answerers.Dismiss)
	stop := context.AfterFunc(ctx, c.CutOff)
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

// Shutdown ends all sessions and refuses new ones. A session that waits for a
// command gets 421 and is closed at once; one that receives or queues a message
// answers that first. When ctx ends the rest is cut off, and the error says how
// many sessions that were.
func (s *Server) Shutdown(ctx context.Context) error { return s.open.Shutdown(ctx) }

// Panics returns how many panics were caught since the start. Anything but 0 is
// a defect.
func (s *Server) Panics() int64 { return s.panics.Load() }
