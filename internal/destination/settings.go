package destination

import (
	"slices"
	"time"

	"tarishi/internal/ini"
)

// File is where the settings stand.
const File = "outbound.ini"

// Settings is outbound.ini, and what smtp.ini says of this host's address outside.
type Settings struct {
	Disabled           bool
	ConcurrencyMax     int
	EnableTLS          bool
	AlwaysSplit        bool
	ReceivedHeader     string // "disabled": none
	ConnectTimeout     time.Duration
	PoolTimeout        time.Duration // idle life of a connection; 0: no reuse
	PoolConcurrencyMax int           // connections to one host
	LocalMXOK          bool
	InetPrefer         string // default, v4, v6
	NextMXOnDeferral   bool   // recipients that an MX defers are offered to the next one
	MaxTempFailures    int
	TempFailIntervals  []time.Duration // never nil; empty: no retries
	Port               int
	MaxLifetime        time.Duration

	DelayWarning time.Duration // after which the sender gets one; negative: never
	DSNWait      time.Duration // for other failures of the same message; 0: none
	DSNRate      Rate          // reports of failures to one sender, further ones are collected; zero: no bound
	DSNReturn    string        // without RET: hdrs, full
	Jitter       int           // percent by which a wait may be longer or shorter
	// Destinations are the sections, by canonical domain, "*." and one, "mx:"
	// and a host or "*." and one, or "default". For joins them.
	Destinations map[string]*Rules

	IPv6 bool // addresses of that family are used

	EnvelopeTimeout time.Duration // of an attempt up to DATA
	MinRate         int64         // bytes a second of content; 0: no limit

	PublicIP string // "": not known
}

// Tables declares the keys of outbound.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: "smtp.ini",
			Rows: []ini.Row{{
				Key: "public_ip", Kind: ini.Address(&s.PublicIP), Example: "192.0.2.25",
				Doc: `The address under which this host is known outside, when a translation of addresses hides it. Mail is
					never delivered to it over the network.`,
			}},
		},
		{
			File: File,
			Doc:  "The queue: delivery to the MX of each recipient's domain.",
			Rows: s.rows(),
			Many: &ini.Many{
				Title: "Sections for destinations",
				Doc: `What follows holds for some destinations only. A section is named after a domain, [*.example.com] for all
					below one, [mx:mx.example.com] or [mx:*.example.com] for domains by their MX, or [default] for all. A key
					is taken from the first section that has it, in this order, and from above if none has.`,
				Example: "[mx:*.example.net]", Rows: (&section{}).rows(), Sections: s.parts,
			},

			// Keys of Haraka's smtp_forward.ini, which people look for here too.
			Other: map[string]string{
				"targets": "host", "attempt_starttls": "tls=may or tls=none, in a section",
				"tls_client": "the section [outbound] of tls.ini", "auth": "auth_type, auth_user and auth_pass, in a section",
				"debug": "level of log.ini, for the whole server", "require_tls": "tls=encrypt or tls=verify, in a section",
			},
			Begin:  func(*ini.Reader) { s.Destinations = map[string]*Rules{} },
			Finish: s.finish,
		},
	}
}

// rows are the keys of the main section.
func (s *Settings) rows() []ini.Row {
	return slices.Concat(s.attemptRows(), s.hostRows(), s.queueRows())
}

// attemptRows say how one attempt goes, and how long its parts may take.
func (s *Settings) attemptRows() []ini.Row {
	return []ini.Row{
		{
			Key: "disabled", Kind: ini.Bool(&s.Disabled), Default: "false", Was: []string{"outbound.disabled"}, Either: true,
			Doc: `true: messages are taken and kept, but not delivered. A change of this key takes effect within seconds, without
				a restart. A file outbound.disabled with true in it, Haraka's old place, does the same.`,
		},
		{
			Key: "concurrency_max", Kind: ini.AtLeast(&s.ConcurrencyMax, 1), Default: "100", Was: []string{"outbound.concurrency_max"},
			Doc: `Deliveries at one time. Those that wait for a slow server may go on beside them, see "Slow destinations" in
				docs/outbound.md.`,
		},
		{
			Key: "enable_tls", Kind: ini.Bool(&s.EnableTLS), Default: "true", Was: []string{"outbound.enable_tls"},
			Doc: "Use STARTTLS where the server offers it, see tls.ini [outbound].",
		},
		{
			Key: "always_split", Kind: ini.Bool(&s.AlwaysSplit), Default: "false", Was: []string{"outbound.always_split"},
			Doc: "true: every recipient gets a transaction of its own. false: the recipients of one domain share one.",
		},
		{
			Key: "received_header", Kind: ini.Text(&s.ReceivedHeader), Default: "Tarishi outbound", Was: []string{"outbound.received_header"},
			Doc: "Text of a Received field put on queued mail. disabled: no such field.",
		},
		{
			Key: "connect_timeout", Kind: ini.Duration(&s.ConnectTimeout, time.Second), Default: "30",
			Doc: "How long it may take to reach one address.",
		},
		{
			Key: "envelope_timeout", Since: "0.2.0", Kind: ini.Duration(&s.EnvelopeTimeout, time.Second), Default: "600", Haraka: ini.None,
			Doc: `How long all of an attempt up to DATA may take: DNS, connections, greetings, TLS, AUTH, MAIL and RCPT of all
				hosts that are tried, and a second more for each further recipient. Each step has its own, shorter limit too.`,
		},
		{
			Key: "min_rate", Since: "0.2.0", Kind: ini.AtLeast(&s.MinRate, 0), Default: "2048", Haraka: ini.None,
			Doc: `Slowest transfer of a message to a server, in bytes a second on average, after the first three minutes. 0: no
				limit. For the reply to the message a server has ten minutes.`,
		},
		{
			Key: "pool_timeout", Kind: ini.Duration(&s.PoolTimeout, 0), Default: "50",
			Doc: "How long an idle connection is kept for the next message. 0: connections are not reused.",
		},
		{
			Key: "pool_concurrency_max", Kind: ini.AtLeast(&s.PoolConcurrencyMax, 1), Default: "10",
			Doc: "Connections to one server at one time.",
		},
	}
}

// hostRows say which hosts, and which of their addresses, an attempt may go to.
func (s *Settings) hostRows() []ini.Row {
	return []ini.Row{
		{
			Key: "local_mx_ok", Kind: ini.Bool(&s.LocalMXOK), Default: "false",
			Doc: "true: mail may be delivered to an MX that is this host.",
		},
		{
			Key: "inet_prefer", Kind: ini.Choice(&s.InetPrefer, "default", "v4", "v6"), Default: "default",
			Doc: "Which addresses of a server are tried first: v4, v6 or default.",
		},
		{
			Key: "next_mx_on_deferral", Since: "0.2.0", Kind: ini.Bool(&s.NextMXOnDeferral), Default: "true", Haraka: ini.None,
			Doc: `true: recipients that an MX answers with a 4yz are offered to the next MX in the same attempt. false: they wait
				for the next attempt.`,
		},
		{
			Key: "ipv6_enabled", Kind: ini.Bool(&s.IPv6), Default: "true", Was: []string{"outbound.ipv6_enabled"},
			Doc: "Whether IPv6 addresses of mail hosts are used at all.",
		},
		{Key: "port", Kind: ini.Port(&s.Port), Default: "25", Haraka: ini.None, Doc: "The port of other servers."},
	}
}

// queueRows say how long and how often mail is tried, and what its sender gets to
// know.
func (s *Settings) queueRows() []ini.Row {
	return []ini.Row{
		{
			Key: "maxTempFailures", Kind: ini.Int(&s.MaxTempFailures, 1, 1000), Default: "13", Was: []string{"outbound.maxTempFailures"},
			Doc: `The deferral of that number is the last. It sets the waits between attempts: 64 seconds, then twice the one
				before.`,
		},
		{
			Key: "temp_fail_intervals", Kind: intervals(&s.TempFailIntervals), Example: "1m*2,5m,15m,1h*3,4h*5,1d*3",
			Was: []string{"outbound.temp_fail_intervals"},
			Doc: "Or the waits one by one: numbers with s, m, h or d, *count repeats one; none: no second attempt.",
		},
		{
			Key: "max_lifetime", Kind: ini.Duration(&s.MaxLifetime, time.Second), Default: "432000", Haraka: ini.None,
			Doc: "A message that could not be delivered for so long is given up.",
		},
		{
			Key: "delay_warning", Kind: delayWarning(&s.DelayWarning), Default: "4h", Haraka: ini.None,
			Doc: "A sender is told once when mail has not been delivered for so long. none: never.",
		},
		{
			Key: "dsn_wait", Since: "0.2.0", Kind: ini.Duration(&s.DSNWait, 0), Default: "10s", Haraka: ini.None,
			Doc: `When recipients of one message fail at about the same time the sender gets one report: it waits so long for
				others of them, if any are under way, and six times that at most while more of them fail. 0: a report for
				each destination.`,
		},
		{
			Key: "dsn_rate", Since: "0.2.0", Kind: rateOrNone(&s.DSNRate), Default: "100/h", Haraka: ini.None,
			Doc: `Reports of failures to one sender per s, m, h or d. What fails beyond that is reported when the time is over,
				in one report that names every recipient. none: no bound.`,
		},
		{
			Key: "dsn_return", Since: "0.2.0", Kind: ini.Choice(&s.DSNReturn, "hdrs", "full"), Default: "hdrs", Haraka: ini.None,
			Doc: `What a report of a failure returns if the sender did not say (RET): hdrs, the header of the message, or full,
				all of it.`,
		},
		{
			Key: "jitter", Kind: percent(&s.Jitter), Default: "20%", Haraka: ini.None,
			Doc: `By how much a wait between attempts may be shorter or longer, so that mail that was deferred together does not
				come back together.`,
		},
	}
}

// backOff returns the default waits before each retry when the maxFailures-th
// deferral is the last: 64 s, then twice the one before.
func backOff(maxFailures int) []time.Duration {
	waits := make([]time.Duration, max(maxFailures-1, 0))
	for i := range waits {
		waits[i] = time.Second << min(i+6, 32)
	}
	return waits
}
