package dmarc

import (
	"fmt"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
)

// Settings is dmarc.ini.
type Settings struct {
	Enforce bool
	Timeout time.Duration
	Sealers []string // domains, in their canonical form
}

// Tables declares the keys of dmarc.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "dmarc.ini", Since: "0.3.0",
		Doc: `DMARC (RFC 9989): whether the domain in From stands behind a message, by the results of the plugins spf and dkim, which are to
			stand in front of dmarc in config/plugins.`,
		Rows: []ini.Row{
			{
				Key: "enforce", Kind: ini.Bool(&s.Enforce), Default: "false", Haraka: ini.None,
				Doc: `Do what the domain wants with messages that fail: refuse them with 550, or give them the note quarantine; and defer with 451
					those whose policy cannot be looked up now. false: only record it. Mail that was forwarded or came through a mailing
					list may fail although it is genuine: read the results for a while first.`,
			},
			{
				Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "15", Haraka: ini.None,
				Doc: "How long all look-ups for a message may take. It must be less than plugin_timeout.",
			},
			{
				Key: "sealers", Haraka: ini.None, Example: "lists.example.com",
				Kind: ini.Each(&s.Sealers, "domains", parseDomain, func(d string) string { return d }),
				Doc: `Domains that are believed when they say, with a seal of theirs (ARC, RFC 8617), that a message passed when they had it: of mailing
					lists and forwarders that change messages. Nothing is done then with one that fails here. Repeat the key for more.`,
			},
		},
	}}
}

// parseDomain reads one of sealers.
func parseDomain(s string) (string, error) {
	if !mail.IsHostName(s) {
		return "", fmt.Errorf("%s is no domain", grammar.Quote(s))
	}
	return mail.CanonicalDomain(s), nil
}
