package session

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/session/policy"
)

// hooks is a Chain of one handler a point that remembers what ran.
type hooks struct {
	mu  sync.Mutex
	on  map[hook.Point]func(*hook.Event) hook.Verdict
	ran []hook.Point
}

func (h *hooks) Wait(context.Context) {}

func (h *hooks) Has(hook.Point) bool { return true }

func (h *hooks) Run(_ context.Context, p hook.Point, e *hook.Event) hook.Verdict {
	h.mu.Lock()
	h.ran = append(h.ran, p)
	f := h.on[p]
	h.mu.Unlock()
	if f == nil {
		return hook.Proceed()
	}
	return f(e)
}

func (h *hooks) set(p hook.Point, f func(*hook.Event) hook.Verdict) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on[p] = f
}

func (h *hooks) answer(p hook.Point, v hook.Verdict) {
	h.set(p, func(*hook.Event) hook.Verdict { return v })
}

func (h *hooks) count(p hook.Point) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, r := range h.ran {
		if r == p {
			n++
		}
	}
	return n
}

func (h *hooks) trail() []hook.Point {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.ran)
}

// body is a Body in memory.
type body struct {
	in    *intake
	b     bytes.Buffer
	err   error
	spilt bool
}

func (b *body) Write(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	if b.in.drop {
		return len(p), nil
	}
	return b.b.Write(p)
}

func (b *body) Content() (mail.Content, error) { return mail.Memory{b.b.Bytes()}, nil }

func (b *body) Held() int64 {
	if b.spilt {
		return 0
	}
	return int64(b.b.Len())
}

func (b *body) Spill() error {
	if b.in.spillErr != nil {
		return b.in.spillErr
	}
	b.spilt = true
	return nil
}

func (b *body) Discard() {
	b.in.mu.Lock()
	defer b.in.mu.Unlock()
	delete(b.in.bodies, b)
}

// taken is what an intake took.
type taken struct {
	tx   hook.Transaction
	raw  string
	head string // the header section by HeaderSize
}

// intake accepts everything, unless told otherwise.
type intake struct {
	mu       sync.Mutex
	got      []taken
	bodies   map[*body]bool // not discarded yet
	drop     bool           // keep nothing
	writeErr error
	spillErr error
	healthy  error
	room     int64 // bytes; 0: any
	accept   func(t *hook.Transaction) (*reply.Reply, bool)
}

func (in *intake) NewBody() Body {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := &body{in: in, err: in.writeErr}
	if in.bodies == nil {
		in.bodies = map[*body]bool{}
	}
	in.bodies[b] = true
	return b
}

func (in *intake) Room(size int64) error {
	if in.room > 0 && size > in.room {
		return reply.New(452, "4.3.1", "Insufficient system storage")
	}
	return in.healthy
}

func (in *intake) Accept(_ context.Context, _ *hook.Connection, t *hook.Transaction) (*reply.Reply, hook.Verdict) {
	if in.drop {
		return reply.New(250, "2.0.0", "Message Queued"), hook.Verdict{}
	}
	r, _ := t.Final().Open()
	raw, _ := io.ReadAll(r)
	if f := in.accept; f != nil {
		if r, dc := f(t); r != nil && dc {
			return r, hook.Verdict{Code: hook.DenyDisconnect}
		} else if r != nil {
			return r, hook.Verdict{}
		}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	whole, _ := t.Content.Open()
	content, _ := io.ReadAll(whole)
	in.got = append(in.got, taken{*t, string(raw), string(content[:t.HeaderSize])})
	return reply.New(250, "2.0.0", "Message Queued ("+string(t.ID)+")"), hook.Verdict{}
}

func (in *intake) messages() []taken {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.got)
}

func (in *intake) held() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return len(in.bodies)
}

// rig is a Server on a loopback socket with fakes around it.
type rig struct {
	t      testing.TB
	srv    *Server
	hooks  *hooks
	intake *intake
	addr   string
	pool   *x509.CertPool
	panics int64 // expected
}

type setting func(*Options)

var testCert = sync.OnceValues(func() (tls.Certificate, *x509.CertPool) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		// Whoever is first makes it, maybe where the clock stands at 2000.
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), DNSNames: []string{"mx.test"},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	leaf, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
})

// prepare makes a server. Every recipient is accepted, STARTTLS is offered.
func prepare(t testing.TB, set ...setting) *rig {
	t.Helper()
	cert, pool := testCert()
	r := &rig{t: t, pool: pool, intake: &intake{}, hooks: &hooks{on: map[hook.Point]func(*hook.Event) hook.Verdict{}}}
	r.hooks.answer(hook.OnRcpt, hook.Verdict{Code: hook.OK})
	r.hooks.set(hook.OnConnectInit, func(e *hook.Event) hook.Verdict {
		e.Conn.SetOfferTLS(true)
		return hook.Proceed()
	})
	o := Options{Version: "1.0", Conversation: Conversation{
		Settings:  policy.Settings{MaxBytes: 1 << 20, MaxReceived: 100, MaxRecipients: 5, InactivityTimeout: time.Minute, ShowVersion: true, AddReceived: true, CleanAuthResults: true, SMTPUTF8: true, BannerChars: 6},
		Me:        "mx.test",
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}},
		Chain:     r.hooks,
		Intake:    r.intake,
	}}
	for _, f := range set {
		f(&o)
	}
	r.srv = NewServer(o)
	r.srv.login.Delay = time.Millisecond
	return r
}

// use has the next connections take a changed Conversation.
func (r *rig) use(change func(*Conversation)) (drained <-chan struct{}) {
	next := r.srv.current.Now()
	change(&next)
	return r.srv.Use(next)
}

// newRig starts a server on a loopback socket.
func newRig(t *testing.T, implicitTLS bool, set ...setting) *rig {
	t.Helper()
	r := prepare(t, set...)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = l.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.srv.Serve(context.Background(), c, implicitTLS)
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
		r.finish()
	})
	return r
}

// finish ends all sessions and checks that nothing is left of them.
func (r *rig) finish() {
	t := r.t
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := r.srv.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if n := r.srv.Panics(); n != r.panics {
		t.Errorf("%d panics, want %d", n, r.panics)
	}
	if n := r.intake.held(); n != 0 {
		t.Errorf("%d bodies were never discarded", n)
	}
	if c, d := r.hooks.count(hook.OnConnectInit), r.hooks.count(hook.OnDisconnect); c != d {
		t.Errorf("%d connections, %d times disconnect", c, d)
	}
}

// pipe begins a session in memory.
func (r *rig) pipe() *client {
	ours, theirs := net.Pipe()
	go r.srv.Serve(context.Background(), theirs, false)
	return &client{r.t, ours, bufio.NewReader(ours)}
}

// client is the other end of a session.
type client struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
}

func (r *rig) dial() *client {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	return &client{r.t, c, bufio.NewReader(c)}
}

// hello dials and says EHLO.
func (r *rig) hello() *client {
	r.t.Helper()
	c := r.dial()
	c.want("220 mx.test ESMTP Tarishi/1.0 ready (")
	c.cmd("EHLO client.test", "250-mx.test Hello ")
	return c
}

func (c *client) startTLS(pool *x509.CertPool) {
	c.t.Helper()
	t := tls.Client(c.conn, &tls.Config{RootCAs: pool, ServerName: "mx.test"})
	if err := t.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	c.conn, c.r = t, bufio.NewReader(t)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, s); err != nil {
		c.t.Fatalf("send: %v", err)
	}
}

// read returns the next reply, its lines joined with "\n"; "" at the end.
func (c *client) read() string {
	c.t.Helper()
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			if line != "" || err != io.EOF && !strings.Contains(err.Error(), "reset") {
				c.t.Fatalf("read: %q %v", line, err)
			}
			return strings.Join(lines, "\n")
		}
		if !strings.HasSuffix(line, "\r\n") || len(line) < 6 {
			c.t.Fatalf("not a reply line: %q", line)
		}
		lines = append(lines, strings.TrimRight(line, "\r\n"))
		if line[3] == ' ' {
			return strings.Join(lines, "\n")
		}
	}
}

func (c *client) want(prefix string) string {
	c.t.Helper()
	got := c.read()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q…", got, prefix)
	}
	return got
}

func (c *client) cmd(line, prefix string) string {
	c.t.Helper()
	c.send(line + "\r\n")
	got := c.read()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("%q: got %q, want %q…", line, got, prefix)
	}
	return got
}

// closed checks that nothing more comes.
func (c *client) closed() {
	c.t.Helper()
	if got := c.read(); got != "" {
		c.t.Fatalf("got %q, want the end", got)
	}
}

// envelope opens a transaction with one recipient.
func (c *client) envelope() {
	c.t.Helper()
	c.cmd("MAIL FROM:<a@client.test>", "250 2.1.0 sender <a@client.test> OK")
	c.cmd("RCPT TO:<b@here.test>", "250 2.1.5 recipient <b@here.test> OK")
}

// message sends a whole one.
func (c *client) message(content, prefix string) string {
	c.t.Helper()
	c.envelope()
	c.cmd("DATA", "354 ")
	c.send(content)
	return c.want(prefix)
}

// pause is one step of a poll.
func pause() { time.Sleep(time.Millisecond) }
