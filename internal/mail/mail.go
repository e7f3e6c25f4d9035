// Package mail holds the nouns that every other package speaks in (RFC 5321,
// RFC 5598): Address, Envelope, Recipient, Header, Content, NextHop, ID. It
// does no I/O and knows no protocol.
//
// A mail object is an Envelope and a Content. Content is RFC 5322 bytes with
// CRLF line ends, not dot-stuffed, and never changes once it exists; a changed
// header makes a new Content that shares the body.
package mail

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"tarishi/internal/grant"
)

// ID names one transaction and the message that came of it: an upper-case
// UUIDv4 of the connection, a dot, and the transaction's number on it, as in
// Haraka. It is safe as a file name: only letters, digits, '-' and '.'.
type ID string

// NewConnectionID returns a fresh connection id: an upper-case UUIDv4.
func NewConnectionID() string { return strings.ToUpper(uuid.NewString()) }

// NewID returns the id of transaction n (from 1) of a connection.
func NewID(connection string, n int) ID { return ID(fmt.Sprintf("%s.%d", connection, n)) }

// Valid reports whether id is not empty, at most 64 octets and safe as a file
// name.
func (id ID) Valid() bool {
	if id == "" || len(id) > 64 || id[0] == '.' {
		return false
	}

	// IDs become names of files and parts of replies, so only characters that are harmless in both
	// pass.
	for i := 0; i < len(id); i++ {
		if c := id[i]; !isLetDig(c) && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// Notify is a set of the NOTIFY keywords of RFC 3461 section 4.1. Zero means
// that the parameter was absent: failures, and delays where configured, are
// reported.
type Notify uint8

// The keywords of NOTIFY. NotifyNever excludes the others.
const (
	NotifySuccess Notify = 1 << iota
	NotifyFailure
	NotifyDelay
	NotifyNever
)

// Recipient is one forward-path with its DSN parameters (RFC 3461 section 4).
type Recipient struct {
	Address Address `json:"address"`
	Notify  Notify  `json:"notify,omitempty"`
	ORCPT   string  `json:"orcpt,omitempty"` // "rfc822;user@domain", or of another type, decoded; "": absent
}

// IsAddressType reports whether s can be the type of an ORCPT or of a recipient in
// a DSN: an atom (RFC 3461 section 4.2, RFC 3464 section 2.1.2) of at most 64
// octets, without what xtext would have to encode.
func IsAddressType(s string) bool {
	// The characters are those of an atom without + and =, which xtext would have to encode.
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isLetDig(c) && strings.IndexByte("!#$%&'*-/?^_`{|}~", c) < 0 {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// WantsFailure reports whether a DSN is due when the recipient fails.
func (r Recipient) WantsFailure() bool { return r.Notify == 0 || r.Notify&NotifyFailure != 0 }

// Envelope is what MAIL and RCPT said, and what our side adds to it.
type Envelope struct {
	ID          ID          `json:"id"`
	From        Address     `json:"from"` // null: <>
	Recipients  []Recipient `json:"recipients"`
	Received    time.Time   `json:"received"`              // when MAIL was accepted
	Body        string      `json:"body,omitempty"`        // "", "7BIT" or "8BITMIME" (RFC 6152)
	UTF8        bool        `json:"utf8,omitempty"`        // SMTPUTF8 (RFC 6531)
	RequireTLS  bool        `json:"requiretls,omitempty"`  // REQUIRETLS (RFC 8689)
	TLSOptional bool        `json:"tlsoptional,omitempty"` // TLS-Required: No (RFC 8689), without REQUIRETLS
	Return      string      `json:"ret,omitempty"`         // "", "FULL" or "HDRS" (RFC 3461 4.3)
	EnvelopeID  string      `json:"envid,omitempty"`       // decoded ENVID (RFC 3461 4.4)
	Notes       Notes       `json:"notes,omitempty"`       // the transaction's notes; JSON values
	Origin      *Origin     `json:"origin,omitempty"`      // the client; nil: not known, or we made the message
}

// Origin is the client that a message came from, as XFORWARD and XCLIENT tell
// it to a next hop. Values are raw; the sending code encodes them.
type Origin struct {
	Addr     netip.Addr `json:"addr"`
	Port     int        `json:"port,omitempty"`
	Name     string     `json:"name,omitempty"` // verified host name; "": unknown
	Helo     string     `json:"helo,omitempty"`
	Protocol string     `json:"protocol,omitempty"` // SMTP, ESMTP, LMTP
	Login    string     `json:"login,omitempty"`    // user name; "": not authenticated
}

// Protocol is what a next hop speaks.
type Protocol uint8

// The protocols of a next hop.
const (
	SMTP Protocol = iota
	LMTP
)

// String returns "SMTP" or "LMTP".
func (p Protocol) String() string {
	if p == LMTP {
		return "LMTP"
	}
	return "SMTP"
}

// NextHop says where a message goes and how: one MX, smart host or backend.
type NextHop struct {
	Host     string   // hostname or IP address; "" with Path
	Port     int      // 0: the protocol's default (25, or 24 for LMTP)
	Path     string   // Unix socket, instead of Host and Port
	Protocol Protocol // SMTP or LMTP
	Priority int      // MX preference: lower is tried first

	ImplicitTLS bool       // TLS from the first byte
	Bind        netip.Addr // local address; zero: the system chooses
	Helo        string     // EHLO name; "": our own

	TLS     TLSLevel // zero: the configuration's
	Backend bool     // a host of smtp_forward.ini: the [tls] section of that file applies

	// AuthType is a mechanism in lower case, several with blanks between,
	// "any", or "", which with an AuthUser means any. The first one that the server
	// offers is used. AuthRequired: no mail without.
	AuthType     string
	AuthUser     string
	AuthPass     string
	AuthGrant    grant.Handle // of "xoauth2" and "oauthbearer"; zero: AuthPass is the access token
	AuthRequired bool
	AuthInsecure bool // credentials may go in clear to public addresses too

	Forwards ForwardsOrigin // how Envelope.Origin is passed to the next hop

	Limits Limits // zero: the configuration's
}

// Limits bound the connections to a next hop. All of them hold if one is set.
type Limits struct {
	Connections int           // at the same time
	Messages    int           // on one connection
	Age         time.Duration // of a connection that is used again
	Idle        time.Duration // how long one is kept unused; 0: not at all
	Connect     time.Duration // for a new connection, all addresses together
	Command     time.Duration // for a reply
	Submission  time.Duration // for the reply to the final dot
}

// TLSLevel says how a connection to a next hop is secured.
type TLSLevel uint8

// The levels. Each asks for more than the one before, but that TLSEncrypt does not
// look at the certificate.
const (
	TLSDefault TLSLevel = iota // nothing is said
	TLSNone
	TLSMay       // if it is offered, without a look at the certificate
	TLSMayVerify // if it is offered, and then the certificate is valid for the host
	TLSEncrypt   // never in clear, without a look at the certificate
	TLSVerify    // never in clear, and the certificate is valid for the host
)

// String returns the level as outbound.ini spells it, "default" for TLSDefault and "may-verify" for
// TLSMayVerify, which it has no word for.
func (l TLSLevel) String() string {
	if int(l) < len(tlsLevels) {
		return tlsLevels[l]
	}
	return fmt.Sprintf("TLSLevel(%d)", l)
}

var tlsLevels = [...]string{"default", "none", "may", "may-verify", "encrypt", "verify"}

// ForwardsOrigin is the command of Postfix's, if any, that passes the origin of a
// message to a next hop that offers it.
type ForwardsOrigin uint8

// The ways to tell.
const (
	ForwardsNothing ForwardsOrigin = iota
	XForward                       // for the next hop's log
	XClient                        // the next hop acts as if the client had connected to it
)

// String returns host:port or the socket's path, never a credential.
func (h NextHop) String() string {
	if h.Path != "" {
		return h.Path
	}

	// An IPv6 address needs brackets before a port; netip writes them.
	port := h.TCPPort()
	if a, err := netip.ParseAddr(h.Host); err == nil {
		return netip.AddrPortFrom(a, uint16(port)).String()
	}
	return h.Host + ":" + strconv.Itoa(port)
}

// TCPPort is Port, or else the protocol's default.
func (h NextHop) TCPPort() int {
	if h.Port == 0 {
		return h.DefaultPort()
	}
	return h.Port
}

// DefaultPort is 25 for SMTP and 24 for LMTP, as in Haraka.
func (h NextHop) DefaultPort() int {
	if h.Protocol == LMTP {
		return 24
	}
	return 25
}
