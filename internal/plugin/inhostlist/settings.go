package inhostlist

import (
	"fmt"
	"regexp"
	"slices"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
)

// Settings is host_list and the files that go with it.
type Settings struct {
	Domains   []string // canonical
	Patterns  []string // each one compiles, anchored and case-insensitive as compile says
	AntiSpoof bool
}

// Tables declares the files.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: "host_list",
			Doc:  "Domains for which mail is accepted: exact, in any case.",
			Line: func(_ *ini.Reader, text string, _ int) error {
				// A line that no address can have as its domain can never match one.
				if a, err := mail.ParseAddress("postmaster@" + text); err != nil || a.Domain != text {
					return fmt.Errorf("%s is no domain", grammar.Quote(text))
				}
				if d := mail.CanonicalDomain(text); !slices.Contains(s.Domains, d) {
					s.Domains = append(s.Domains, d)
				}
				return nil
			},
			Lines: func() []string { return s.Domains },
		},
		{
			File: "host_list_regex",
			Doc: `More such domains, as regular expressions: the whole domain must match, in any case. The syntax is RE2's, which
				has no look-around and no back references.`,
			Line: func(r *ini.Reader, text string, no int) error {
				// A bad line stops the start: without it mail for our domains would be
				// refused.
				pattern, err := compile(text)
				if err != nil {
					return err
				}
				checkPattern(r, pattern, text, no)
				s.Patterns = append(s.Patterns, text)
				return nil
			},
			Lines: func() []string { return s.Patterns },
		},
		{
			File: "host_list.anti_spoof",
			Doc:  "Whether senders in these domains are refused from clients that may not relay. Any word but 0 means yes.",
			Line: func(r *ini.Reader, text string, no int) error {
				// Haraka reads the first line alone.
				if first := r.Lines("host_list.anti_spoof")[0]; first.No != no {
					return nil
				}
				s.AntiSpoof = text != "0"
				if text != "0" && ini.IsFalse(text) {
					r.Add(ini.Problem{File: ini.Place("host_list.anti_spoof"), Line: no, Text: "any word but 0 means yes, this one too", Warning: true})
				}
				return nil
			},
			Lines: func() []string {
				if s.AntiSpoof {
					return []string{"1"}
				}
				return []string{"0"}
			},
		},
	}
}

// compile compiles one line of host_list_regex: the whole domain must match, in any
// case. The syntax is RE2's, which has no look-around and no back references.
func compile(line string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(line); err != nil { // unwrapped, for a message about the line itself
		return nil, err
	}
	return regexp.Compile("(?i)^(?:" + line + ")$")
}

// checkPattern warns of an expression that takes foreign domains for ours: one that
// matches names nobody here can have meant.
func checkPattern(r *ini.Reader, pattern *regexp.Regexp, line string, no int) {
	// Two names that nobody means, of different forms: one alone might match by chance.
	for _, foreign := range []string{"nobody-means-this.test", "q7.x-9.invalid"} {
		if !pattern.MatchString(foreign) {
			return
		}
	}
	r.Add(ini.Problem{
		File: ini.Place("host_list_regex"), Line: no, Warning: true,
		Text: grammar.Quote(line) + " matches every domain: recipients anywhere are accepted from every client, and relayed if a server takes them: an open relay",
	})
}
