package hook

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"time"

	"tarishi/internal/lease"
	"tarishi/internal/mail"
	"tarishi/internal/result"
)

// Connection is the state of one inbound connection. It belongs to the session;
// handlers see it through a ConnectionView.
type Connection struct {
	ID      string // upper-case UUIDv4
	Remote  Remote
	Local   netip.AddrPort // ours, or the proxy's that the client has reached
	Proxy   Proxy          // zero: the client has come by itself
	Me      string         // our hostname: config/me
	Start   time.Time
	Notes   mail.Notes    // lives as long as the connection; never nil
	Results *result.Store // never nil

	Hello Hello
	TLS   TLS

	// Relaying allows mail to any domain for the whole connection. Inside a
	// transaction use Transaction.Relaying, which starts as this.
	Relaying bool
	// OfferTLS makes EHLO announce STARTTLS; plugin tls sets it at connect_init.
	OfferTLS bool
	// XClient is what may be said by XCLIENT; plugin xclient sets it at connect_init and, for a
	// client that was handed on, at connect.
	XClient XClient
	// Capabilities are lines that plugins add to the reply to EHLO, Auth is their
	// means to verify credentials. Both are made anew at each EHLO. The session
	// decides when credentials may come.
	Capabilities []string
	Auth         []Authenticator
	// AuthUser is set after a successful AUTH.
	AuthUser string
	AuthPass string // the client's own, for forwarding; never logged, never stored
	AuthMech string // "PLAIN" or "LOGIN"; "XCLIENT": a trusted peer says so, and has no password

	// HasArrived reports whether the client has sent something that was not read
	// yet; nil: it cannot be known.
	HasArrived func() bool

	Transactions int // begun so far
	Messages     Counts
	Rcpts        Counts
	Errors       int
	Bytes        int64 // message bytes received
}

// Remote is the client. Host is the name in its PTR record, which may be anybody's
// name, or Haraka's "NXDOMAIN", "DNSERROR" or "Unknown".
type Remote struct {
	Addr    netip.AddrPort
	Host    string
	Private bool // loopback, link-local, unique local, RFC 1918, documentation nets
	Local   bool // loopback, link-local, or an address of this host
}

// Proxy is what has handed the connection of a client on, and how: Type is "haproxy" for the
// PROXY protocol, "xclient" for XCLIENT. Addr is its own address.
type Proxy struct {
	Addr netip.AddrPort
	Type string
}

// XClient is what a peer may say about its connection by XCLIENT.
type XClient int

// Each of them allows what the one before it does.
const (
	XClientUnknown XClient = iota // XCLIENT is no command here
	XClientRefused                // it is, for others
	XClientAddress                // whose connection it is
	XClientLogin                  // and which user has authenticated there
)

// Hello is the client's greeting: Verb "HELO" or "EHLO" and its argument.
type Hello struct{ Verb, Host string }

// TLS describes the connection's encryption.
type TLS struct {
	Enabled  bool
	Version  string // "TLSv1.3"
	Cipher   string // IANA name
	Verified bool   // the client's certificate verified

	// Of clients that were asked for a certificate.
	VerifyError string       // why it did not verify, or that none was shown
	Certificate *Certificate // nil: none was shown. It is not to be changed
}

// Certificate is one that a client has shown, and has the key of.
type Certificate struct {
	Subject, Issuer string   // distinguished names (RFC 2253)
	Names           []string // the common name, and the DNS names and mail addresses that it is for
	Fingerprint     string   // SHA-256, in lower-case hexadecimal
	NotAfter        time.Time
}

// Counts is how many of something were accepted, deferred and refused.
type Counts struct{ Accepted, Deferred, Rejected int }

// View returns what handlers see of c, which may be nil.
func (c *Connection) View() ConnectionView { return ConnectionView{state: c} }

// ConnectionView is what a handler sees of one inbound connection. When the handler's
// time is over its methods return zero values and change nothing.
type ConnectionView struct {
	gate  *lease.Gate
	state *Connection
}

// IsZero reports whether the handler is asked about no connection.
func (v ConnectionView) IsZero() bool { return v.state == nil }

// ID is the connection's, an upper-case UUIDv4.
func (v ConnectionView) ID() string {
	return lease.Look(v.gate, v.state, func(c *Connection) string { return c.ID })
}

// Remote is the client.
func (v ConnectionView) Remote() Remote {
	return lease.Look(v.gate, v.state, func(c *Connection) Remote { return c.Remote })
}

// SetRemote replaces the description of the client, for a plugin that knows better.
func (v ConnectionView) SetRemote(r Remote) {
	lease.Touch(v.gate, v.state, func(c *Connection) { c.Remote = r })
}

// Local is our own address and port.
func (v ConnectionView) Local() netip.AddrPort {
	return lease.Look(v.gate, v.state, func(c *Connection) netip.AddrPort { return c.Local })
}

// Proxy is what has handed the connection on, zero if nothing has.
func (v ConnectionView) Proxy() Proxy {
	return lease.Look(v.gate, v.state, func(c *Connection) Proxy { return c.Proxy })
}

// Me is our host name.
func (v ConnectionView) Me() string {
	return lease.Look(v.gate, v.state, func(c *Connection) string { return c.Me })
}

// Start is when the connection was accepted.
func (v ConnectionView) Start() time.Time {
	return lease.Look(v.gate, v.state, func(c *Connection) time.Time { return c.Start })
}

// SpeaksEarly reports whether the client has sent something by now. Before the banner
// it must not (RFC 5321 section 4.3.1).
func (v ConnectionView) SpeaksEarly() bool {
	return lease.Look(v.gate, v.state, func(c *Connection) bool { return c.HasArrived != nil && c.HasArrived() })
}

// Hello is the client's greeting.
func (v ConnectionView) Hello() Hello {
	return lease.Look(v.gate, v.state, func(c *Connection) Hello { return c.Hello })
}

// TLS describes the encryption.
func (v ConnectionView) TLS() TLS {
	return lease.Look(v.gate, v.state, func(c *Connection) TLS { return c.TLS })
}

// Relaying reports whether mail to any domain is allowed on the whole connection.
func (v ConnectionView) Relaying() bool {
	return lease.Look(v.gate, v.state, func(c *Connection) bool { return c.Relaying })
}

// SetRelaying allows mail to any domain, or does not. Inside a transaction that of
// the TransactionView counts.
func (v ConnectionView) SetRelaying(allowed bool) {
	lease.Touch(v.gate, v.state, func(c *Connection) { c.Relaying = allowed })
}

// SetOfferTLS makes EHLO announce STARTTLS, or not.
func (v ConnectionView) SetOfferTLS(offered bool) {
	lease.Touch(v.gate, v.state, func(c *Connection) { c.OfferTLS = offered })
}

// XClient is what the peer may say by XCLIENT.
func (v ConnectionView) XClient() XClient {
	return lease.Look(v.gate, v.state, func(c *Connection) XClient { return c.XClient })
}

// SetXClient says what may be said by XCLIENT. It is for the points connect_init and connect.
func (v ConnectionView) SetXClient(x XClient) {
	lease.Touch(v.gate, v.state, func(c *Connection) { c.XClient = x })
}

// OfferAuth adds a means to verify credentials. It is for the point capabilities.
func (v ConnectionView) OfferAuth(a Authenticator) {
	lease.Touch(v.gate, v.state, func(c *Connection) { c.Auth = append(c.Auth, a) })
}

// maxCapability is the longest line in a reply to EHLO, in octets, without its code and
// its line end (RFC 5321 section 4.5.3.1.5).
const maxCapability = 512 - len("250-\r\n")

// ErrCapability is the error of a line that cannot stand in a reply to EHLO.
var ErrCapability = errors.New("hook: no line of a reply to EHLO (RFC 5321 section 4.1.1.1)")

// AddCapability adds a line to the reply to EHLO: a keyword, and perhaps parameters behind
// blanks. It is for the point capabilities. The session writes the lines of the extensions
// that it knows itself.
func (v ConnectionView) AddCapability(line string) error {
	// The client reads what stands here as protocol: only what RFC 5321 allows.
	keyword, _, _ := strings.Cut(line, " ")
	isOdd := func(c rune) bool {
		return c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z')
	}
	isHidden := func(c rune) bool { return c < ' ' || c > '~' }
	if keyword == "" || keyword[0] == '-' || strings.ContainsFunc(keyword, isOdd) || strings.ContainsFunc(line, isHidden) || len(line) > maxCapability {
		return ErrCapability
	}
	lease.Touch(v.gate, v.state, func(c *Connection) { c.Capabilities = append(c.Capabilities, line) })
	return nil
}

// Authenticated returns the client's user name, its password and the mechanism, after
// a successful AUTH. The password must neither be logged nor stored.
func (v ConnectionView) Authenticated() Credentials {
	return lease.Look(v.gate, v.state, func(c *Connection) Credentials { return Credentials{c.AuthUser, c.AuthPass, c.AuthMech} })
}

// Tally counts what has happened on the connection so far.
func (v ConnectionView) Tally() Tally {
	return lease.Look(v.gate, v.state, func(c *Connection) Tally {
		return Tally{c.Transactions, c.Messages, c.Rcpts, c.Errors, c.Bytes}
	})
}

// Notes live as long as the connection.
func (v ConnectionView) Notes() lease.Notes {
	if v.state == nil {
		return lease.Notes{}
	}
	return lease.ViewNotes(v.gate, &v.state.Notes)
}

// Results are what plugins found out about the connection.
func (v ConnectionView) Results() result.View {
	return lease.Look(v.gate, v.state, func(c *Connection) result.View { return result.NewView(v.gate, c.Results, c.ID) })
}

// Credentials are what a client has authenticated with; Mechanism is "PLAIN" or
// "LOGIN", or "XCLIENT" with no password, where a trusted peer vouches for the user.
type Credentials struct{ User, Password, Mechanism string }

// Tally is what has happened on a connection.
type Tally struct {
	Transactions int // begun
	Messages     Counts
	Rcpts        Counts
	Errors       int
	Bytes        int64 // of messages received
}

// Authenticator verifies credentials. Mechanisms is a subset of PLAIN and
// LOGIN. Authenticate returns false for wrong credentials; an error is
// temporary (454).
type Authenticator interface {
	Mechanisms() []string
	Authenticate(ctx context.Context, c ConnectionView, user, pass string) (bool, error)
}
