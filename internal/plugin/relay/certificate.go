package relay

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

const certFile = "relay_cert_allow"

// Certificates says whose clients may relay by the certificate that they show.
type Certificates struct {
	Fingerprints []string // SHA-256, lower-case hexadecimal: with the key to it nothing else matters
	Names        []string // in lower case, of certificates that verify
}

// table declares relay_cert_allow.
func (c *Certificates) table() *ini.Table {
	return &ini.Table{
		File: certFile, Since: "0.3.0", Haraka: ini.None,
		Doc: `Certificates whose clients may send to any domain, where tls.ini asks for them (requestCert): SHA-256
			fingerprints, or names of certificates that verify, as they stand in them (common name, DNS name or mail
			address). A comment may follow an entry.`,
		Line: func(_ *ini.Reader, text string, _ int) error {
			text, _, _ = strings.Cut(text, "#")
			return c.add(strings.ToLower(strings.TrimFunc(text, grammar.IsBlank)))
		},
		Lines: func() []string { return slices.Concat(c.Fingerprints, c.Names) },
	}
}

// add adds an entry in lower case.
func (c *Certificates) add(text string) error {
	digits := strings.ReplaceAll(text, ":", "")
	sum, err := hex.DecodeString(digits)
	switch {
	case err == nil && len(sum) == 32:
		c.Fingerprints = append(c.Fingerprints, digits)
	case err == nil && len(sum) >= 16 || strings.ContainsAny(text, ":*"):
		// An MD5 or SHA-1 fingerprint would match nothing, and nor would a pattern.
		return fmt.Errorf("%s is neither a SHA-256 fingerprint (64 digits) nor a name", grammar.Quote(text))
	default:
		c.Names = append(c.Names, text)
	}
	return nil
}

// Check warns where nobody is asked for a certificate. It is called where the plugin is
// listed.
func (s *Settings) Check(r *ini.Reader) {
	c := s.Certs
	if len(c.Fingerprints) == 0 && len(c.Names) == 0 {
		return
	}
	main := r.File("tls.ini").Section("main")
	asks := func(key string, set func([]string) bool) bool {
		k := main.Key(key)
		return k != nil && set(k.Values)
	}
	if !asks("requestCert", ini.SwitchedOn) && !asks("rejectUnauthorized", ini.SwitchedOn) && !asks("requireAuthorized", ini.Anything) {
		r.Add(ini.Problem{File: ini.Place(certFile), Text: "lets nobody relay: requestCert of config/tls.ini asks clients for their certificates", Warning: true})
	}
}

// allows reports whether a client may relay by what it has shown.
func (c *Certificates) allows(t hook.TLS) bool {
	shown := t.Certificate
	if shown == nil {
		return false
	}
	isAllowed := func(name string) bool { return slices.Contains(c.Names, strings.ToLower(name)) }
	return slices.Contains(c.Fingerprints, shown.Fingerprint) || t.Verified && slices.ContainsFunc(shown.Names, isAllowed)
}

// matchCertificate lets clients relay by their certificate. It has come by the greeting, and on
// ports that begin with TLS earlier.
func (c *Certificates) matchCertificate(_ context.Context, e *hook.Event) hook.Verdict {
	if !e.Conn.Relaying() && c.allows(e.Conn.TLS()) {
		e.Conn.SetRelaying(true)
		e.Conn.Results().Pass(Name, "certificate")
	}
	return hook.Proceed()
}
