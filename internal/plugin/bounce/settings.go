package bounce

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/json"
	"fmt"
	"hash"
	"slices"
	"strings"

	"tarishi/internal/ini"
)

// Settings is bounce.ini, bounce_bad_rcpt and bounce_whitelist.json.
type Settings struct {
	MaxAgeDays    int
	Algorithm     string // one of algorithms
	Secret        string
	Check         Checks
	Reject        Rejections
	SkipRemaining bool

	BadRecipients map[string]bool     // lower case
	Whitelist     map[string][]string // addresses, or * and a domain, by recipient; lower case

	list, json []string // the files as they are written
}

// Checks are those that are made.
type Checks struct{ SingleRecipient, EmptyReturnPath, SPF, HashValidation, HashDate bool }

// Rejections are the checks that a report has to pass.
type Rejections struct {
	Checks
	BadRcpt, AllBounces bool
}

// algorithms are the hash functions that there are, by OpenSSL's names.
var algorithms = map[string]func() hash.Hash{
	"sha1": sha1.New, "sha224": sha256.New224, "sha256": sha256.New, "sha384": sha512.New384, "sha512": sha512.New,
	"sha512-224": sha512.New512_224, "sha512-256": sha512.New512_256,
	"sha3-224": func() hash.Hash { return sha3.New224() }, "sha3-256": func() hash.Hash { return sha3.New256() },
	"sha3-384": func() hash.Hash { return sha3.New384() }, "sha3-512": func() hash.Hash { return sha3.New512() },
}

const (
	file          = "bounce.ini"
	listFile      = "bounce_bad_rcpt"
	whitelistFile = "bounce_whitelist.json"
	shortest      = 32 // characters of a secret
)

// Tables declares the keys of bounce.ini, and the lists.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: file, Since: "0.3.0",
			Doc: "What the plugin bounce asks of mail with the null sender: reports about mail that could not be delivered.",
			Rows: slices.Concat(
				ini.Within("validation", s.validationRows()...), ini.Within("check", s.checkRows()...),
				ini.Within("reject", s.rejectRows()...), ini.Within("skip", ini.Row{
					Key: "remaining_plugins", Kind: ini.Bool(&s.SkipRemaining), Default: "false",
					Doc: "Whether a report with a valid mark is accepted without the later plugins at data_post.",
				}),
			),
			Sections: map[string]string{
				"validation": "Marks in outgoing mail, by which reports about it are recognized.", "check": "The checks that are made.",
				"reject": "Those that a report has to pass. They are made, then, whatever stands in check.",
			},
			Finish: s.finish,
		},
		{
			File: listFile, Since: "0.3.0",
			Doc: "Recipients that never send mail, so that there is nothing to be reported to them. Addresses are exact, in any case.",
			Line: func(_ *ini.Reader, text string, _ int) error {
				s.BadRecipients[strings.ToLower(text)] = true
				s.list = append(s.list, text)
				return nil
			},
			Lines: func() []string { return s.list },
			Begin: func(*ini.Reader) { s.BadRecipients, s.list = map[string]bool{}, nil },
		},
		{
			File: whitelistFile, Since: "0.3.0",
			Doc: `Reports without a mark that are let in, as JSON: {"recipient": ["author", "*@domain"]}, where the author stands in
				From of the report.`,
			Template: &s.json, Finish: s.readWhitelist,
		},
	}
}

func (s *Settings) validationRows() []ini.Row {
	return []ini.Row{
		{Key: "max_hash_age_days", Kind: ini.Int(&s.MaxAgeDays, 1, 10000), Default: "6", Doc: "How many days after its Date mail may come back."},
		{Key: "hash_algorithm", Kind: ini.Choice(&s.Algorithm, ini.SortedKeys(algorithms)...), Default: "sha256", Doc: "How marks are made."},
		{
			Key: "secret", Kind: ini.Secret(&s.Secret),
			Doc: "What marks are made with, at least 32 characters; the same for all servers of a site. 'openssl rand -base64 32' makes one.",
		},
	}
}

func (s *Settings) checkRows() []ini.Row {
	row := func(key string, p *bool, preset, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: preset, Doc: doc}
	}
	return []ini.Row{
		row("single_recipient", &s.Check.SingleRecipient, "true", "A report has one recipient."),
		row("empty_return_path", &s.Check.EmptyReturnPath, "false", "It has no Return-Path, or an empty one."),
		row("bounce_spf", &s.Check.SPF, "true", "SPF of the recipient's domain allows a host that the returned message has passed."),
		row("hash_validation", &s.Check.HashValidation, "false", "Outgoing mail is marked, and the returned message has the mark. Needs a secret."),
		row("hash_date", &s.Check.HashDate, "true", "The mark is not too old."),
	}
}

func (s *Settings) rejectRows() []ini.Row {
	row := func(key string, p *bool, preset, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: preset, Doc: doc}
	}
	all := row("all_bounces", &s.Reject.AllBounces, "false", "Refuse every report: nobody here learns that mail was not delivered.")
	all.Was = []string{file + ":check:reject_all"}
	return []ini.Row{
		row("single_recipient", &s.Reject.SingleRecipient, "true", "Refuse reports to several recipients."),
		row("empty_return_path", &s.Reject.EmptyReturnPath, "false", "Refuse reports with Return-Path."),
		row("bounce_spf", &s.Reject.SPF, "false", "Refuse reports about messages that cannot have come from here."),
		row("bad_rcpt", &s.Reject.BadRcpt, "true", "Refuse the recipients in bounce_bad_rcpt."),
		all,
		row("hash_validation", &s.Reject.HashValidation, "false", "Refuse reports without a mark, or with a wrong one."),
		row("hash_date", &s.Reject.HashDate, "false", "Refuse reports with an old mark."),
	}
}

// finish switches the checks on that reject, and looks at the secret.
func (s *Settings) finish(r *ini.Reader) {
	// A check that rejects and is not made would reject nothing.
	s.Check.SingleRecipient = s.Check.SingleRecipient || s.Reject.SingleRecipient
	s.Check.EmptyReturnPath = s.Check.EmptyReturnPath || s.Reject.EmptyReturnPath
	s.Check.SPF = s.Check.SPF || s.Reject.SPF
	s.Check.HashValidation = s.Check.HashValidation || s.Reject.HashValidation
	s.Check.HashDate = s.Check.HashDate || s.Reject.HashDate
	if !s.Check.HashValidation || len(s.Secret) >= shortest {
		return
	}

	// Haraka goes on without the marks; here what protects is not silently left out.
	p := ini.Problem{
		File: ini.Place(file), Section: "validation", Key: "secret",
		Text: fmt.Sprintf("hash_validation needs a secret of at least %d characters: 'openssl rand -base64 32' makes one", shortest),
	}
	if k := r.File(file).Section("validation").Key("secret"); k != nil {
		p.Line = k.Line
	}
	r.Add(p)
	s.Check.HashValidation = false
}

// readWhitelist reads bounce_whitelist.json.
func (s *Settings) readWhitelist(r *ini.Reader) {
	s.Whitelist = map[string][]string{}
	if len(s.json) == 0 {
		return
	}
	var written map[string][]string
	if err := json.Unmarshal([]byte(strings.Join(s.json, "\n")), &written); err != nil {
		r.Add(ini.Problem{File: ini.Place(whitelistFile), Text: `is not of the form {"recipient": ["author", "*@domain"]}: ` + err.Error()})
		return
	}
	// Addresses are compared in lower case.
	for to, authors := range written {
		for _, author := range authors {
			to := strings.ToLower(to)
			s.Whitelist[to] = append(s.Whitelist[to], strings.ToLower(author))
		}
	}
}
