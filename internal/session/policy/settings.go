// Package policy is what this server asks of its clients and says to them: the settings of
// connection.ini, and the rules and texts that follow from them alone.
package policy

import (
	"cmp"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/smtpd"
)

const (
	defaultMaxLine    = 2048
	defaultInactivity = 5 * time.Minute
	defaultHelo       = "Tarishi is at your service."
	defaultClose      = "closing connection. Have a jolly good day."
)

// Settings is what connection.ini and smtp.ini say of a session.
type Settings struct {
	StrictRFC1869 bool // FROM:<…> and TO:<…> without blanks, from clients that may not relay
	StrictDomains bool // no underscores in the domains of addresses
	Postel        bool // addresses up to mail.MaxPathRelaxed
	SMTPUTF8      bool // announce and accept RFC 6531
	AuthInsecure  bool // offer AUTH also to public addresses without TLS

	AddReceived      bool
	CleanAuthResults bool // rename Authentication-Results that clients send
	ShowVersion      bool
	MaxReceived      int // Received fields, ours included, before a message is taken for a loop; 0: none

	MaxBytes        int64 // of a message, announced with SIZE; 0: none
	MaxLine         int   // of a command with its line end, octets; 0: 2048; at most 16 KiB
	MaxRecipients   int   // of a transaction; 0: none
	MaxRefusals     int   // replies 5yz in a session since a message was accepted; 0: no limit
	MaxAuthFailures int   // wrong passwords from one IPv4 address or IPv6 /64 before it has to wait; 0: no limit
	MinRate         int64 // of content, bytes a second; 0: none
	// TransactionTimeout is how long after MAIL the client may still be waited for
	// until its message is whole; 0: no limit.
	TransactionTimeout time.Duration
	// Memory is how many bytes all sessions together may hold of mail that is
	// arriving, beside the first 16 KiB of each message; 0: no limit.
	Memory            int64
	InactivityTimeout time.Duration // for a whole command, and between bytes of content; 0: 5 min

	Greeting    []string // lines of the banner; nil: the built-in
	Helo        string   // end of the EHLO and HELO reply
	Close       string   // text of the reply to QUIT
	BannerChars int      // of the connection's id in the banner
	DenyChars   int      // of the id before each line of a refusal; 1: all of it
}

// Complete gives sizes, times and texts that are not set their defaults.
func (s *Settings) Complete() {
	if s.MaxLine <= 0 {
		s.MaxLine = defaultMaxLine
	}
	s.MaxLine = min(s.MaxLine, smtpd.LargestLine)
	if s.InactivityTimeout <= 0 {
		s.InactivityTimeout = defaultInactivity
	}
	s.Helo, s.Close = cmp.Or(s.Helo, defaultHelo), cmp.Or(s.Close, defaultClose)
}

// Tables declares the keys of both files.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: "smtp.ini",
			Rows: []ini.Row{{
				Key: "inactivity_timeout", Kind: ini.Duration(&s.InactivityTimeout, time.Second), Default: "300",
				Doc: "A client that sends nothing for so long is answered 421 and disconnected.",
			}},
		},
		{
			File: "connection.ini",
			Rows: append(append(s.protocolRows(), s.limitRows()...), s.textRows()...),
		},
	}
}

// protocolRows say how strictly the protocol is spoken.
func (s *Settings) protocolRows() []ini.Row {
	return append([]ini.Row{
		{
			Key: "strict_rfc1869", Kind: ini.Bool(&s.StrictRFC1869), Default: "false", Was: []string{"smtp.ini::strict_rfc1869", "strict_rfc1869"},
			Doc: `true: MAIL FROM:<a@b> and RCPT TO:<a@b> must be written exactly so, without a blank after the colon and with
				the brackets.`,
		},
		{
			Key: "strict_domains", Since: "0.2.0", Kind: ini.Bool(&s.StrictDomains), Default: "false", Haraka: ini.None,
			Doc: `true: addresses with an underscore in their domain are refused. Containers and old hosts send with such
				names.`,
		},
		{
			Key: "postel", Kind: ini.Bool(&s.Postel), Default: "false",
			Doc: "true: addresses longer than RFC 5321 allows are accepted.",
		},
		{
			Key: "smtputf8", Kind: ini.Bool(&s.SMTPUTF8), Default: "true", Was: []string{"smtp.ini::smtputf8", "smtputf8"},
			Doc: "Offer SMTPUTF8 (RFC 6531): addresses outside ASCII.",
		},
		{
			Key: "auth_insecure", Kind: ini.Bool(&s.AuthInsecure), Default: "false", Haraka: ini.None,
			Doc: `true: offer AUTH also without TLS to clients from public addresses, whose passwords then cross the net in
				clear.`,
		},
	}, ini.Within("headers", []ini.Row{
		{
			Key: "add_received", Kind: ini.Bool(&s.AddReceived), Default: "true", Was: []string{"smtp.ini:headers:add_received"},
			Doc: "Put a Received field on top of every message.",
		},
		{
			Key: "clean_auth_results", Kind: ini.Bool(&s.CleanAuthResults), Default: "true", Was: []string{"smtp.ini:headers:clean_auth_results"},
			Doc: `Rename Authentication-Results fields that come from outside, so that nobody takes them for ours. false: only
				those with our own name or with none.`,
		},
		{
			Key: "show_version", Kind: ini.Bool(&s.ShowVersion), Default: "true", Was: []string{"smtp.ini:headers:show_version"},
			Doc: "Tell the version in the banner and in Received fields.",
		},
		{
			Key: "max_received", Kind: ini.AtLeast(&s.MaxReceived, 1), Default: "100", Was: []string{"smtp.ini:headers:max_received", "max_received_count"},
			Doc: "A message with more Received fields than this goes in a circle and is refused.",
		},
		{Key: "max_lines", Note: "has no effect: every header line is kept"},
	}...)...)
}

// limitRows bound what a client can make us do.
func (s *Settings) limitRows() []ini.Row {
	return ini.Within("max", []ini.Row{
		{
			Key: "bytes", Kind: ini.Bytes(&s.MaxBytes, 0), Default: "26214400", Was: []string{"databytes"},
			Doc: "Largest message, in bytes, as the SIZE extension says it. 0: no limit.",
		},
		{
			// 512 bytes, Haraka's limit, is less than the parameters of the
			// extensions that are advertised may need (RFC 3461, RFC 4954).
			Key: "line_length", Kind: ini.Int(&s.MaxLine, 512, smtpd.LargestLine), Default: "2048", Was: []string{"max_line_length"},
			Doc: `Longest command line in bytes. The parameters of MAIL, RCPT and AUTH need more than the 512 of RFC 5321. At
				most 16384.`,
		},
		{
			Key: "recipients", Kind: ini.Int(&s.MaxRecipients, 1, 1<<20), Default: "1000", Haraka: ini.None,
			Doc: "Recipients of one transaction.",
		},
		{
			Key: "refusals", Since: "0.2.0", Kind: ini.AtLeast(&s.MaxRefusals, 0), Default: "100", Haraka: ini.None,
			Doc: `Refusals (5yz) in a session without a message that was accepted: the next one closes it, with 421. 0: no
				limit.`,
		},
		{
			Key: "auth_failures", Since: "0.2.0", Kind: ini.AtLeast(&s.MaxAuthFailures, 0), Default: "10", Haraka: ini.None,
			Doc: `Wrong passwords from one address; those of an IPv6 /64 count as one. After so many, AUTH from there is
				answered 421: for half a minute at first, and twice as long after each further one, up to an hour. Every ten
				minutes one is forgotten. 0: no limit, for instance where a webmail logs in for everybody.`,
		},
		{
			Key: "min_rate", Kind: ini.AtLeast(&s.MinRate, 0), Default: "100", Haraka: ini.None,
			Doc: `Slowest transfer of a message, in bytes a second on average over 30 s of waiting for it, in DATA and in and
				between the chunks of BDAT. 0: no limit.`,
		},
		{
			Key: "transaction_time", Since: "0.2.0", Kind: ini.Duration(&s.TransactionTimeout, 0), Default: "1h", Haraka: ini.None,
			Doc: "How long a client may be waited for from MAIL until its message is whole. 0: no limit.",
		},
		{
			Key: "memory", Since: "0.2.0", Kind: ini.Bytes(&s.Memory, 0), Default: "8388608", Haraka: ini.None,
			Doc: `Memory for mail that is still arriving, in bytes, of all connections together and beside the first 16 KiB of
				each message. When half of it is in use the bodies of slow messages go to files below queue/, when all is
				those of all messages. A header section or a list of recipients beyond 16 KiB has to be in memory: for it the
				slowest clients are disconnected (421), or it is refused (452). 0: no limit.`,
		},
		{Key: "mime_parts", Note: "has no effect: bodies are not taken apart"},
		{Key: "data_line_length", Note: "has no effect: message lines of any length pass unchanged"},
	}...)
}

// textRows are what clients get to read.
func (s *Settings) textRows() []ini.Row {
	return append(ini.Within("message", []ini.Row{
		{
			Key: "greeting", Kind: ini.Texts(&s.Greeting), Example: "Mail for example.com only.", Was: []string{"smtpgreeting"},
			Doc: "Lines of the banner instead of the usual one, behind our name; repeat the key for more lines.",
		},
		{
			Key: "helo", Kind: ini.Text(&s.Helo), Default: "Tarishi is at your service.", Was: []string{"ehlo_hello_message"},
			Doc: "The end of the reply to HELO and EHLO.",
		},
		{
			Key: "close", Kind: ini.Text(&s.Close), Default: "closing connection. Have a jolly good day.", Was: []string{"connection_close_message"},
			Doc: "The end of the reply to QUIT.",
		},
	}...), ini.Within("uuid", []ini.Row{
		{
			Key: "banner_chars", Kind: chars(&s.BannerChars), Default: "6", Was: []string{"banner_includes_uuid"},
			Doc: "So many characters of the connection's id stand in the banner. 0: none.",
		},
		{
			Key: "deny_chars", Kind: chars(&s.DenyChars), Default: "0", Was: []string{"deny_includes_uuid"},
			Doc: "So many stand before each line of a refusal. 0: none, 1: the whole id.",
		},
	}...)...)
}

// chars is a count of characters, or a boolean: true is all of them.
func chars(p *int) ini.Kind {
	// Haraka had a boolean here once, and 1 is a number of characters as well.
	count := ini.AtLeast(p, 0)
	return count.WithReader(func(s string) error {
		switch {
		case s != "1" && ini.IsTrue(s):
			*p = wholeID
			return nil
		case ini.IsFalse(s):
			*p = 0
			return nil
		}
		return count.Set([]string{s})
	})
}

// wholeID is more than the characters that any connection's id has.
const wholeID = 40
