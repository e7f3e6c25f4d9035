package isresolvable

import (
	"regexp"
	"slices"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/pattern"
)

// Settings is mail_from.is_resolvable.ini.
type Settings struct {
	AllowIP bool
	Bogus   *regexp.Regexp // matches IPv4 addresses that do not count
	Timeout time.Duration  // of one look-up
	NoMX    string         // one of the words below; others reject for good

	bogus string // as written
}

// The words of no_mx.
const (
	reject      = "deny"
	neverReject = "no"
	deferSender = "defer"
	deferToo    = "false"
)

const (
	file         = "mail_from.is_resolvable.ini"
	usualTimeout = 5000 // ms
)

// Tables declares the keys of mail_from.is_resolvable.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: "What the plugin mail_from.is_resolvable asks of the domain of a sender.",
		Rows: []ini.Row{
			{
				Key: "allow_mx_ip", Kind: ini.Bool(&s.AllowIP), Default: "false",
				Doc: "Whether a domain may be its own mail server, without MX records, or have an address in the place of a name there.",
			},
			{
				Key: "re_bogus_ip", Default: `^(?:0\.0\.0\.0|255\.255\.255\.255|127\.)`,
				Kind: ini.Scalar("a regular expression", func(text string) error {
					expression, err := pattern.Part(text)
					if err == nil {
						s.Bogus, s.bogus = expression, text
					}
					return err
				}, func() string { return s.bogus }),
				Doc: "IPv4 addresses of mail servers that do not count.",
			},
			{
				Key: "timeout_ms", Kind: milliseconds(&s.Timeout), Default: "5000",
				Doc: "How long one look-up may take, in milliseconds. There are two: one for the servers, one for their addresses.",
			},
			{
				Section: "reject", Key: "no_mx", Kind: ini.Text(&s.NoMX), Default: reject,
				Doc: "What becomes of a sender whose domain has no usable mail server: deny refuses it, defer for now, no accepts it.",
			},
		},
		Finish: s.finish,
	}}
}

// milliseconds is a number of them; 0 is the usual timeout.
func milliseconds(p *time.Duration) ini.Kind {
	var n int
	number := ini.Int(&n, 0, 600_000)
	k := number.WithText(func() []string {
		n = int(p.Milliseconds())
		return number.Text()
	})
	return ini.Joined(k.Words(), func(values []string) error {
		err := number.Set(values)
		// Haraka takes a zero for a key that is not there.
		if n == 0 {
			n = usualTimeout
		}
		*p = time.Duration(n) * time.Millisecond
		return err
	}, k.Text)
}

// finish warns of words that mean something else than they say.
func (s *Settings) finish(r *ini.Reader) {
	// Some sites have denysoft here, a word of other plugins, which defers nothing.
	k := r.File(file).Section("reject").Key("no_mx")
	if k == nil || slices.Contains([]string{reject, neverReject, deferSender, deferToo}, s.NoMX) {
		return
	}
	r.Add(ini.Problem{
		File: ini.Place(file), Line: k.Line, Section: "reject", Key: k.Name, Warning: true,
		Text: grammar.Quote(s.NoMX) + " is taken for deny: senders are refused for good. The words are deny, defer and no",
	})
}
