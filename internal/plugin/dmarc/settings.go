package dmarc

import (
	"time"

	"tarishi/internal/ini"
)

// Settings is dmarc.ini.
type Settings struct {
	Enforce bool
	Timeout time.Duration
}

// Tables declares the keys of dmarc.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "dmarc.ini",
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
		},
	}}
}
