package hook

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"tarishi/internal/mail"
)

// Connection is what plugins see of one inbound connection.
type Connection struct {
	ID      string // upper-case UUIDv4
	Remote  Remote
	Local   netip.AddrPort
	Me      string // our hostname: config/me
	Start   time.Time
	Notes   mail.Notes // lives as long as the connection; never nil
	Results *Results   // never nil

	Hello Hello
	TLS   TLS

	// Relaying allows mail to any domain for the whole connection. Inside a
	// transaction use Transaction.Relaying, which starts as this.
	Relaying bool
	// OfferTLS makes EHLO announce STARTTLS; plugin tls sets it at connect_init.
	OfferTLS bool
	// Auth is who can verify credentials on this connection; plugins append at
	// capabilities. Whether any may come, in clear or not, the session decides.
	// AuthUser is set after a successful AUTH.
	Auth     []Authenticator
	AuthUser string
	AuthPass string // the client's own, for forwarding; never logged, never stored
	AuthMech string // "PLAIN" or "LOGIN"

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

// Hello is the client's greeting: Verb "HELO" or "EHLO" and its argument.
type Hello struct{ Verb, Host string }

// TLS describes the connection's encryption.
type TLS struct {
	Enabled  bool
	Version  string // "TLSv1.3"
	Cipher   string // IANA name
	Verified bool   // the client's certificate verified
}

// Counts is how many of something were accepted, deferred and refused.
type Counts struct{ Accepted, Deferred, Rejected int }

// Authenticator verifies credentials. Mechanisms is a subset of PLAIN and
// LOGIN. Authenticate returns false for wrong credentials; an error is
// temporary (454).
type Authenticator interface {
	Mechanisms() []string
	Authenticate(ctx context.Context, c *Connection, user, pass string) (bool, error)
}

// Transaction is what plugins see of one mail transaction, from MAIL to reset.
type Transaction struct {
	mail.Envelope // ID, From, Recipients (accepted ones), Received, Notes (never nil), …

	Relaying bool     // allow mail to any domain; starts as the connection's
	Results  *Results // never nil

	// Header and Content exist from data_post on. Content is the message as it
	// was received with our Received field in front; what plugins change in
	// Header is applied when the message is queued or forwarded: see Final.
	Header  *mail.Header
	Content mail.Content
	// HeaderSize is how many bytes of Content belong to the header section.
	HeaderSize int64

	Size  int64 // bytes of message data as received
	Rcpts Counts
}

// Final returns the message with the changed header, or Content itself when no
// plugin changed it.
func (t *Transaction) Final() mail.Content {
	if t.Header == nil || !t.Header.Changed() {
		return t.Content
	}
	return mail.WithHead(t.Header.Bytes(), t.Content, t.HeaderSize)
}

// SkipsPlugin reports whether notes.skip_plugins names the plugin.
func (t *Transaction) SkipsPlugin(name string) bool {
	switch list := t.Notes["skip_plugins"].(type) {
	case []string:
		for _, s := range list {
			if s == name {
				return true
			}
		}
	case []any:
		for _, s := range list {
			if s == name {
				return true
			}
		}
	}
	return false
}

// Delivery is what outbound hooks see: one message to one destination. Haraka
// calls it hmail, and its Envelope todo: Received is queue_time, Envelope.Notes
// todo.notes, Attempts num_failures.
type Delivery struct {
	mail.Envelope        // Recipients: only those of this delivery; see Notes for its own
	Domain        string // the destination: lower case, A-labels
	// Attempts are those that ended in a deferral: earlier ones, and at deferred, or
	// at bounce after a deferral too many, the one that the hook is about.
	Attempts int
	// Notes are for plugins. They, ForceTLS and what is changed in the Envelope's
	// Notes last until the delivery is done with: the queue keeps them with each
	// deferral, as JSON, so a number is a float64 after a restart. What is no JSON,
	// or more than 64 KiB of it, lasts until the daemon stops. Never nil.
	Notes   mail.Notes
	Content mail.Content // the message
	// Path returns the name of a file that holds the message, to be read only
	// and only while the hook runs. Asking for it may cost a write to the disk.
	Path func() (string, error)
	// ForceTLS, set at send_email or get_mx, has this attempt refuse to go on
	// without TLS, and all later ones.
	ForceTLS *atomic.Bool
	MX       []mail.NextHop // bounce, deferred: where it was tried
}

// Filename is the name of the message's file, without its folder.
func (d *Delivery) Filename() string { return string(d.ID) + ".eml" }

// Results is what plugins found out, by plugin, for other plugins to read: the
// lists pass, fail, msg, err and skip, and named values.
type Results struct{ by map[string]*Result }

// Result is one plugin's findings.
type Result struct {
	Pass, Fail, Msg, Err, Skip []string
	Values                     map[string]any
}

// NewResults returns an empty store.
func NewResults() *Results { return &Results{by: map[string]*Result{}} }

// For returns the findings of a plugin to read and to add to; it makes them at
// the first call.
func (r *Results) For(plugin string) *Result {
	res := r.by[plugin]
	if res == nil {
		res = &Result{Values: map[string]any{}}
		r.by[plugin] = res
	}
	return res
}

// Has reports whether the plugin has any findings.
func (r *Results) Has(plugin string) bool { return r.by[plugin] != nil }
