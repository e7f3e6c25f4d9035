// Package smtpclient is our side of one SMTP or LMTP connection (RFC 5321,
// RFC 2033): Dial connects and prepares it (Connect and Open are its halves), Send carries one transaction, as
// often as wanted.
//
// Promises of every Send:
//
//   - Each recipient gets the reply that is its own. Only a well-formed 5yz reply
//     to MAIL, RCPT, DATA or the message (at its end, or before that and in place
//     of it) is permanent, and faults known before anything is sent: a message
//     larger than the server's SIZE, an address that the server cannot take.
//     Everything else is a *Failure, which is temporary.
//   - The final dot is sent only behind the whole content, and a content that
//     cannot be read to its end is never ended by one.
//   - Replies are matched to commands in order; what does not fit, comes unasked
//     or is no reply ends the connection.
//   - Every wait has a deadline (RFC 5321 section 4.5.3.2), content goes at
//     Options.MinRate or faster, and the caller's context ends all of it. A Recall
//     ends what comes before the content.
//   - Credentials are sent only where Options allow it, and mail is never sent
//     without the authentication or the TLS that Options require.
//
// A content with octets beyond ASCII goes as it is to a server without 8BITMIME
// too, as most of today's senders have it: what a conversion would break, such
// as signatures, is worse than what such servers do. A content of 1 MiB or more
// goes by BDAT where CHUNKING is offered (RFC 3030).
//
// Errors of Dial and Send are *Failure. A Client is used by one goroutine at a
// time and starts none that outlives a call.
//
// What needs no state of the conversation is in packages below: wire (lines, replies,
// content), command (what a server's extensions make of an envelope) and auth. The
// conversation itself is one state machine with steps that share a connection, so that this
// package may have 1,750 lines, and not 1,500 as others.
package smtpclient

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient/command"
	"tarishi/internal/smtpclient/wire"
)

// TLSPolicy says whether a connection is encrypted.
type TLSPolicy uint8

// The policies. TLSVerify and TLSMayVerify ask for a valid certificate. With
// TLSMay and TLSMayVerify a server that does not offer STARTTLS is spoken to in
// clear, with TLSMay also one that refuses it; a handshake that fails, or a server
// that hangs up at STARTTLS, ends the connection (Failure.Handshake).
const (
	TLSNone TLSPolicy = iota
	TLSMay
	TLSMayVerify
	TLSEncrypt
	TLSVerify
)

// verifies reports whether a certificate must be valid.
func (p TLSPolicy) verifies() bool { return p == TLSVerify || p == TLSMayVerify }

// Options say where and how to connect.
type Options struct {
	Network  string // "tcp" or "unix"; "": "tcp"
	Addr     string // "ip:port", or the path of a socket
	Host     string // the server's name, for certificates and SNI; "": Addr's
	Protocol mail.Protocol

	ImplicitTLS bool // TLS from the first byte
	TLS         TLSPolicy
	TLSConfig   *tls.Config // nil: TLS 1.2 or later; its ServerName, if set, replaces Host
	// Verify, if set, is asked about every handshake in place of Go's own check of
	// the certificate; an error fails the handshake. Only with TLSVerify and
	// TLSMayVerify does a nil count as a verified peer. Two functions with the same VerifyKey are
	// taken for the same; without a key the connection is not shared.
	Verify    func(tls.ConnectionState) error
	VerifyKey string

	Bind netip.Addr // local address; zero: the system chooses
	Helo string     // argument of EHLO; "": the connection's own address

	// Forwards says whether, and how, a server that offers it learns
	// Envelope.Origin.
	Forwards mail.ForwardsOrigin

	// AuthType is "plain", "login", "cram-md5", "external" (the client
	// certificate; AuthUser is the identity to act as, if not the certificate's
	// own), "xoauth2", "oauthbearer" (with an access token: AuthPass, or one of
	// Tokens), several of them with blanks between (the first that the server offers),
	// "any" (one of the first three, as TLS makes it safe), or "" for no
	// authentication, which with an AuthUser means "any". Credentials go in
	// clear, and over TLS that is neither verified nor required by the policy,
	// only to loopback and private addresses, unless AuthInsecure.
	AuthType, AuthUser, AuthPass string
	Tokens                       TokenSource
	AuthInsecure                 bool
	// AuthRequired makes it a failure if there are no credentials, or if the
	// server offers no mechanism for them, which else are no hindrance.
	AuthRequired bool

	// Zero means the default, in brackets.
	ConnectTimeout    time.Duration // [30 s]
	GreetingTimeout   time.Duration // with ImplicitTLS, of the handshake too [CommandTimeout, or else 5 min]
	CommandTimeout    time.Duration // each reply but those below [5 min]
	DataTimeout       time.Duration // reply to DATA [2 min]
	BlockTimeout      time.Duration // each block of content [3 min]
	SubmissionTimeout time.Duration // reply to the final dot [10 min]

	// MinRate is how many bytes of content a second the server must take on the
	// average, beyond a first BlockTimeout [2048]; negative: any.
	MinRate int64
}

func (o *Options) setDefaults() {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.ConnectTimeout, 30*time.Second)
	set(&o.CommandTimeout, 5*time.Minute)
	set(&o.GreetingTimeout, o.CommandTimeout)
	set(&o.DataTimeout, 2*time.Minute)
	set(&o.BlockTimeout, 3*time.Minute)
	set(&o.SubmissionTimeout, 10*time.Minute)
	if o.MinRate == 0 {
		o.MinRate = 2048
	}

	// What the caller left out follows from the address; a host's name may end in the dot
	// of the root.
	if o.Network == "" {
		o.Network = "tcp"
	}
	if o.Host == "" && o.Network != "unix" {
		o.Host, _, _ = net.SplitHostPort(o.Addr)
	}
	o.Host = strings.TrimSuffix(o.Host, ".")
	if o.AuthType = strings.ToLower(o.AuthType); o.AuthType == "" && o.AuthUser != "" {
		o.AuthType = "any"
	}
}

// Client is one connection, ready for a transaction.
type Client struct {
	o     Options
	conn  *wire.Conn
	ext   command.Extensions
	esmtp bool
	tls   string // "none", or version and cipher
	sure  bool   // the peer is verified
	auth  bool

	origin string // the attributes of the last XCLIENT, as they were sent
	bound  bool   // the server takes no other XCLIENT

	unwelcome sender // of the first transaction, if its MAIL was refused

	transactions int
	dirty        bool // the last transaction was not finished: RSET first
}

// Dial connects to o.Addr and makes the connection ready: greeting, EHLO (HELO
// after a 5yz), STARTTLS, AUTH. The error is a *Failure.
func Dial(ctx context.Context, o Options) (*Client, error) {
	raw, err := Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	return Open(ctx, raw, o)
}

// Connect is the first half of Dial: it connects to o.Addr within
// o.ConnectTimeout. The error is a *Failure of StageConnect.
func Connect(ctx context.Context, o Options) (net.Conn, error) {
	o.setDefaults()
	d := net.Dialer{Timeout: o.ConnectTimeout}
	if o.Bind.IsValid() && o.Network != "unix" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(o.Bind, 0))
	}
	raw, err := d.DialContext(ctx, o.Network, o.Addr)
	if err != nil {
		return nil, &Failure{Stage: StageConnect, Err: err, Fresh: true, Addr: o.Addr, aborted: ctx.Err() != nil}
	}
	return raw, nil
}

// Open is the second half of Dial: it makes a new connection ready, or closes
// it. The error is a *Failure.
func Open(ctx context.Context, raw net.Conn, o Options) (*Client, error) {
	o.setDefaults()
	c := &Client{o: o, tls: "none", conn: wire.NewConn(raw, wire.NewSecrets(o.AuthUser, o.AuthPass))}
	if strings.ContainsFunc(o.Helo, notHelo) {
		return nil, c.failure(StageHello, nil, errors.New("invalid EHLO name"))
	}
	if o.Helo == "" {
		c.o.Helo = c.conn.OwnLiteral()
	}
	c.conn.Bind(ctx)
	f := c.prepare()
	c.conn.Unbind()
	if f == nil && c.conn.Closed() {
		f = c.connectionLost(StageHello, ctx.Err())
	}
	if f != nil {
		c.Close()
		return nil, f
	}
	return c, nil
}

func notHelo(r rune) bool { return r <= ' ' || r == 0x7f }

// command sends one line and reads the reply to it into c.res.
func (c *Client) command(s Stage, words ...string) *Failure {
	if f := c.unasked(s); f != nil {
		return f
	}
	for i, w := range words {
		if i > 0 {
			c.conn.Out = append(c.conn.Out, ' ')
		}
		c.conn.Out = append(c.conn.Out, w...)
	}
	c.conn.Out = append(c.conn.Out, "\r\n"...)
	if err := c.conn.Flush(c.o.CommandTimeout); err != nil {
		return c.connectionLost(s, err)
	}
	if err := c.conn.Await(c.o.CommandTimeout); err != nil {
		return c.connectionLost(s, err)
	}
	return nil
}

// unasked fails if something arrived while no reply was due. A 421 is how a
// server says that it closes an idle connection.
func (c *Client) unasked(s Stage) *Failure {
	if c.conn.Buffered() == 0 {
		return nil
	}
	c.conn.AwaitBy(time.Second)
	if err := c.conn.Read(); err == nil && c.conn.Last.Code == 421 {
		return c.refused(s)
	}
	return c.connectionLost(s, wire.Garbled("reply before the command"))
}

// Reusable reports whether another transaction can be sent: the connection was
// neither lost nor shut by a 421, and replies match commands. If the last
// transaction stopped half-way the next Send begins with RSET.
func (c *Client) Reusable() bool { return !c.conn.Closed() && c.conn.Buffered() == 0 }

// MaxMessages is how many transactions the server takes on one connection, as far as it says so; 0: it
// does not.
func (c *Client) MaxMessages() int { return c.ext.MailMax }

// endTransaction sends RSET if the last transaction stopped half-way.
func (c *Client) endTransaction() *Failure {
	if !c.dirty {
		return nil
	}
	if f := c.command(StageReset, "RSET"); f != nil {
		return f
	}
	if c.conn.Last.Class() != 2 {
		return c.refused(StageReset)
	}
	c.dirty = false
	return nil
}

func (c *Client) aborted(s Stage, err error) *Failure {
	f := c.report(s, nil, err)
	f.lost, f.aborted = true, true
	return f
}

// Quit says goodbye, waits up to two seconds for the answer and closes.
func (c *Client) Quit() { c.conn.Quit() }

// Close closes the connection at once. It may be called more than once.
func (c *Client) Close() error {
	c.conn.Close()
	return nil
}
