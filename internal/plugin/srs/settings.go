package srs

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"hash"
	"slices"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
	"tarishi/internal/srs"
)

// Settings is srs.ini and srs.secrets.
type Settings struct {
	Domain    string // lower case, A-labels
	Algorithm string // one of algorithms
	Length    int
	Shortest  int
	MaxAge    int
	Separator string
	Local     []string // domains
	Relayed   []string // domains
	Secrets   []string
}

const (
	file       = "srs.ini"
	secretFile = "srs.secrets"
	shortest   = 8 // characters of a secret
)

// algorithms are the hash functions, by OpenSSL's names.
var algorithms = map[string]func() hash.Hash{"sha1": sha1.New, "sha256": sha256.New}

// Tables declares the keys of srs.ini, and the secrets.
func (s *Settings) Tables() []*ini.Table {
	rows := []ini.Row{
		{
			Key: "domain", Kind: s.domain(), Example: "srs.example.com", Haraka: ini.None,
			Doc: "The domain of the addresses that are made: one whose mail comes to this server, and whose SPF record names it. Without it nothing is rewritten.",
		},
		{
			Key: "hash_length", Kind: ini.Int(&s.Length, 4, srs.MostHash), Default: "8", Haraka: ini.None,
			Doc: "How many characters of a hash an address has. postsrsd has 4.",
		},
		{
			Key: "hash_minimum", Kind: ini.Int(&s.Shortest, 4, srs.MostHash), Default: "8", Haraka: ini.None,
			Doc: "How many suffice in an address that comes back. Where postsrsd has made addresses before: 4, for as long as max_age says.",
		},
		{Key: "hash_algorithm", Kind: ini.Choice(&s.Algorithm, ini.SortedKeys(algorithms)...), Default: "sha1", Haraka: ini.None, Doc: "postsrsd has sha1."},
		{
			Key: "max_age", Kind: ini.Int(&s.MaxAge, 1, 365), Default: "21", Haraka: ini.None,
			Doc: "For how many days an address is good.",
		},
		{
			Key: "separator", Kind: ini.Choice(&s.Separator, "=", "-", "+"), Default: "=", Haraka: ini.None,
			Doc: "What stands behind SRS0 and SRS1. All three are understood.",
		},
		{
			Key: "local_domains", Kind: domains(&s.Local), Haraka: ini.None,
			Doc: `Domains of this site, several as local_domains[]=, a line for each: senders in them are not rewritten, nor is mail
				to them. Those for which recipients are accepted, and of smtp_forward.ini, are known already.`,
		},
		{
			Key: "relayed_domains", Kind: domains(&s.Relayed), Haraka: ini.None,
			Doc: `Domains whose mail is forwarded to servers that are not of this site, several as relayed_domains[]=, a line for each.
				Each has a section in smtp_forward.ini with queue=outbound.`,
		},
	}
	return []*ini.Table{
		{File: file, Since: "0.3.0", Doc: "The Sender Rewriting Scheme of the plugin srs: how senders of forwarded mail are written.", Rows: rows, Finish: s.finish},
		{
			File: secretFile, Since: "0.3.0", Secret: true,
			Doc: `What the addresses of the plugin srs are signed with, one secret on each line: the first one signs, all are good for what
				comes back. It is the file of postsrsd. 'openssl rand -base64 18' makes one.`,
			Line: func(_ *ini.Reader, text string, _ int) error {
				if len(text) < shortest {
					return fmt.Errorf("a secret has at least %d characters", shortest)
				}
				s.Secrets = append(s.Secrets, text)
				return nil
			},
			Lines: func() []string { return slices.Repeat([]string{ini.Masked}, len(s.Secrets)) },
			Begin: func(*ini.Reader) { s.Secrets = nil },
		},
	}
}

// domain is the kind of a domain.
func (s *Settings) domain() ini.Kind {
	return ini.Scalar("a domain", func(text string) error {
		if text == "" {
			return nil
		}
		canonical, err := parseDomain(text)
		s.Domain = canonical
		return err
	}, func() string { return s.Domain })
}

// domains is the kind of a list of them.
func domains(p *[]string) ini.Kind {
	return ini.Each(p, "domains", parseDomain, func(s string) string { return s })
}

// parseDomain reads the name of a domain.
func parseDomain(text string) (string, error) {
	if !mail.IsHostName(text) {
		return "", fmt.Errorf("%s is no domain", grammar.Quote(text))
	}
	return mail.CanonicalDomain(text), nil
}

// finish looks at what no single key says.
func (s *Settings) finish(r *ini.Reader) {
	if s.Shortest > s.Length {
		r.Add(ini.Problem{File: ini.Place(file), Section: "main", Key: "hash_minimum", Text: fmt.Sprintf("is more than hash_length, which is %d: nothing would come back", s.Length)})
		s.Shortest = s.Length
	}
	for _, domain := range s.Relayed {
		if slices.Contains(s.Local, domain) {
			r.Add(ini.Problem{File: ini.Place(file), Section: "main", Key: "relayed_domains", Text: domain + " is one of local_domains too"})
		}
	}
}
