package receive

import (
	"net/netip"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpd/syntax"
)

// Trace is what our Received field says (RFC 5321 section 4.4).
type Trace struct {
	Hello         string     // the argument of HELO or EHLO
	Name          string     // of the client, as the DNS has it
	Addr          netip.Addr // of the client
	By, Software  string     // ours
	With          string     // the protocol (RFC 3848)
	ID            mail.ID
	From          mail.Address
	Cipher        string // of TLS; "": in clear
	Client        string // whose certificate was shown; "": nobody's
	Verified      bool   // and it has verified
	Authenticated bool
	Time          time.Time
}

// Field returns the field with its line ends. Nothing that a client or a resolver
// said can add a line to it.
func (t Trace) Field() string {
	tls, auth := "", ""
	if t.Cipher != "" {
		tls = "\r\n\ttls " + syntax.Word(t.Cipher)
	}
	if t.Client != "" {
		verify := "FAIL"
		if t.Verified {
			verify = "OK"
		}
		tls += " (client=" + syntax.Word(t.Client) + " verify=" + verify + ")"
	}
	if t.Authenticated {
		auth = " (authenticated bits=0)"
	}
	return "Received: from " + syntax.Word(t.Hello) + " (" + syntax.Word(t.Name) + " " + mail.AddressLiteral(t.Addr) + ")" +
		"\r\n\tby " + t.By + " (" + t.Software + ") with " + t.With + " id " + string(t.ID) +
		"\r\n\tenvelope-from " + t.From.Path() + tls + auth + ";" +
		"\r\n\t" + t.Time.Format("Mon, 02 Jan 2006 15:04:05 -0700") + "\r\n"
}
