package dkim

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Settings is dkim.ini, and the keys beside it.
type Settings struct {
	Sign    bool
	Signing dkim.Signing
	// ByEnvelope has the domain of the reverse-path sign, and that of From for the null one.
	ByEnvelope bool
	Domain     string // that of the key in dkim.private.key
	Selector   string
	Keys       dkim.Keys
	Fallback   *dkim.Key // for domains that have no keys; nil: there is none

	Verify     bool
	Timeout    time.Duration
	Skew       time.Duration
	Signatures int // of a message that are looked at
}

const (
	file         = "dkim.ini"
	folder       = "dkim"
	fallbackFile = "dkim.private.key"

	usualHeaders = "From,Sender,Reply-To,Subject,Date,Message-ID,To,Cc,MIME-Version,Content-Type,Content-Transfer-Encoding,List-Unsubscribe,List-Unsubscribe-Post"
	usualSealed  = "From,Reply-To,Subject,Date,Message-ID,To,Cc"
)

// Tables declares the keys of dkim.ini.
func (s *Settings) Tables() []*ini.Table {
	body := &s.Signing.Body
	return []*ini.Table{{
		File: file, Since: "0.3.0", Reads: []string{fallbackFile},
		Doc: `Signatures of the plugin dkim (RFC 6376). The keys are in config/dkim/DOMAIN: private, a key in PEM, and selector, the name below
			which its public half is in the DNS. Further keys of a domain are in folders below, such as config/dkim/DOMAIN/ed25519.`,
		Rows: append(
			ini.Within("sign", s.signRows()...),
			ini.Row{
				Section: "canon", Key: "body", Default: "simple",
				Kind: ini.Scalar("simple or relaxed", func(text string) (err error) {
					*body, err = canon.ParseAlgorithm(strings.ToLower(text))
					return err
				}, func() string { return body.String() }),
				Doc: "How the body is canonicalized: relaxed lets blanks be changed on the way. The header section is always relaxed.",
			},
			ini.Row{Section: "verify", Key: "enabled", Kind: ini.Bool(&s.Verify), Default: "true", Doc: "Verify the signatures of messages that come in."},
			ini.Row{
				Section: "verify", Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "15",
				Doc: "How long the keys of a message may take to look up, together.",
			},
			ini.Row{
				Section: "verify", Key: "allowed_time_skew", Kind: ini.Duration(&s.Skew, 0), Default: "60",
				Doc: "How far the clock of a signer may be ahead of ours, or behind it.",
			},
			ini.Row{
				Section: "verify", Key: "signatures", Kind: ini.Int(&s.Signatures, 1, 50), Default: "8", Haraka: ini.None,
				Doc: "How many signatures of a message are looked at, from the top.",
			},
			ini.Row{Section: "verify", Key: "sigerror_log_level", Note: "has no effect: what is wrong with a signature is in the plugin's line of the log"},
		),
		Sections: map[string]string{
			"sign":   "Signing mail of clients that may relay, of our own, and our reports (DSN).",
			"canon":  "What may be changed on the way of a signed message.",
			"verify": "Verifying mail that comes in.",
		},
		Begin:  func(*ini.Reader) { s.Signing.Header = canon.Relaxed },
		Finish: s.readKeys,
	}}
}

var errDomainOf = errors.New(`neither "from" nor "envelope"`)

func (s *Settings) signRows() []ini.Row {
	return []ini.Row{
		{Key: "enabled", Kind: ini.Bool(&s.Sign), Default: "false", Doc: "Sign mail that goes out."},
		{
			Key: "domain_of", Default: "from", Haraka: ini.None,
			Kind: ini.Scalar("from or envelope", func(text string) error {
				// Two words, so that a third one can be told from a misspelt one.
				switch word := strings.ToLower(text); word {
				case "from", "envelope":
					s.ByEnvelope = word == "envelope"
					return nil
				}
				return errDomainOf
			}, func() string {
				if s.ByEnvelope {
					return "envelope"
				}
				return "from"
			}),
			Doc: `Whose domain signs: from is that of the field From, which DMARC asks for (of Sender, if From has several addresses); envelope
				is that of the sender in the envelope, where there is one.`,
		},
		{
			Key: "headers", Kind: names(&s.Signing.Headers), Default: usualHeaders,
			Doc: "The fields that are signed, if they are there. From is signed anyway.",
		},
		{
			Key: "oversign", Kind: names(&s.Signing.Sealed), Default: usualSealed, Haraka: ini.None,
			Doc: `Those that nobody may add another one of without breaking the signature, also where there is none: a second From or
				Subject would be shown in the place of the signed one.`,
		},
		{
			Key: "domain", Kind: ini.Text(&s.Domain), Example: "example.com",
			Doc: "The domain that signs with the key in config/dkim.private.key for all domains without a folder. It helps with DMARC only if it is From's.",
		},
		{Key: "selector", Kind: ini.Text(&s.Selector), Example: "mail", Doc: "The selector of that key."},
	}
}

// names is a list of field names between commas, semicolons or colons.
func names(list *[]string) ini.Kind {
	return ini.Joined("names of fields, with commas between them", func(values []string) error {
		var all []string
		// Haraka's list has commas, that of a signature colons.
		for _, name := range strings.FieldsFunc(strings.Join(values, ","), func(c rune) bool { return strings.ContainsRune(",;: \t", c) }) {
			if strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
				return fmt.Errorf("%s is no name of a field", grammar.Quote(name))
			}
			all = append(all, name)
		}
		*list = all
		return nil
	}, func() []string { return []string{strings.Join(*list, ",")} })
}

// readKeys reads the keys, if there is anything to be signed with them.
func (s *Settings) readKeys(r *ini.Reader) {
	if !s.Sign {
		return
	}
	problem := func(text string) { r.Add(ini.Problem{File: ini.Place(file), Section: "sign", Text: text}) }
	// Mail that should be signed and is not would be noticed by its receivers alone.
	keys, faults := dkim.LoadKeys(r.FS(), folder)
	for _, err := range faults {
		problem("a key cannot be used: " + err.Error())
	}
	s.Keys = keys
	text, fallback := r.Read(fallbackFile)
	if fallback {
		private, err := dkim.ParseKey(text)
		switch {
		case err != nil:
			problem(ini.Place(fallbackFile) + ": " + err.Error())
		case s.Domain == "" || dkim.CheckSelector(s.Selector) != nil:
			problem(ini.Place(fallbackFile) + " needs domain and selector: nothing says where its public half is in the DNS")
		default:
			s.Fallback = &dkim.Key{Selector: s.Selector, Private: private}
		}
	}
	if len(keys) == 0 && !fallback && len(faults) == 0 {
		r.Add(ini.Problem{File: ini.Place(file), Section: "sign", Key: "enabled", Warning: true, Text: "nothing is signed: there is no key in config/dkim"})
	}
	s.warnOpen(r)
}

// warnOpen warns of private keys that every user of the host can read.
func (s *Settings) warnOpen(r *ini.Reader) {
	// A walk follows no links: what is elsewhere has its own owner.
	_ = fs.WalkDir(r.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.IsDir() && name != "." && name != folder && !strings.HasPrefix(name, folder+"/"):
			return fs.SkipDir
		case name != fallbackFile && !(path.Base(name) == "private" && strings.HasPrefix(name, folder+"/")):
			return nil
		}
		if info, err := fs.Stat(r.FS(), name); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0 {
			r.Add(ini.Problem{File: ini.Place(name), Warning: true, Text: "can be read by everybody on this host: a private key is for the daemon alone"})
		}
		return nil
	})
}
