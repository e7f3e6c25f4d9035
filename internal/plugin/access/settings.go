package access

import (
	"slices"

	"tarishi/internal/ini"
)

// Settings is access.ini and the lists.
type Settings struct {
	Check      Checks
	AcceptRcpt bool
	Denial     Denials

	Clients, Senders, Recipients lists
	Domains                      domains
}

// Checks are those that are made.
type Checks struct{ Any, Conn, Mail, Rcpt bool }

// Denials are the texts of refusals.
type Denials struct{ Conn, Mail, Rcpt string }

const (
	file       = "access.ini"
	clientFile = "connect.rdns_access."
	senderFile = "mail_from.access."
	rcptFile   = "rcpt_to.access."
)

// Tables declares the keys of access.ini, and the lists.
func (s *Settings) Tables() []*ini.Table {
	// The rows of a section differ in little.
	on := func(key string, p *bool, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "true", Doc: doc}
	}
	denial := func(key string, p *string, preset, who, old string) ini.Row {
		return ini.Row{
			Key: key, Kind: ini.Text(p), Default: preset, Was: []string{old + "ini:general:deny_msg"},
			Doc: "What the refusal says, behind " + who + ".",
		}
	}
	rows := slices.Concat(
		ini.Within("check",
			on("any", &s.Check.Any, "access.domains, wherever a domain is named."),
			on("conn", &s.Check.Conn, "The lists of clients, by address and by name in the DNS."),
			on("mail", &s.Check.Mail, "The lists of senders."),
			on("rcpt", &s.Check.Rcpt, "The lists of recipients."),
		),
		ini.Within("rcpt", ini.Row{
			Key: "accept", Kind: ini.Bool(&s.AcceptRcpt), Default: "false",
			Doc: "Whether a recipient in rcpt_to.access.whitelist is accepted, with no other plugin asked. It must be in a domain that has somewhere to go.",
		}),
		ini.Within("deny_msg",
			denial("conn", &s.Denial.Conn, "You are not allowed to connect", "the client's name and address", clientFile),
			denial("mail", &s.Denial.Mail, "That sender cannot send mail here", "the sender", senderFile),
			denial("rcpt", &s.Denial.Rcpt, "That recipient is not allowed", "the recipient", rcptFile),
		),
	)
	// Each list is two files, with the names that Haraka has for them.
	const white, black = "whitelist", "blacklist"
	return slices.Concat(
		[]*ini.Table{
			{
				File: file, Since: "0.3.0", Doc: "What the plugin access looks at. Its lists are files of their own.", Rows: rows,
				Sections: map[string]string{"check": "The lists that count.", "deny_msg": "The texts of refusals."},
			},
			s.Domains.table(),
		},
		s.Clients.White.tables(clientFile+white, "Clients that are let in, by address or name in the DNS."),
		s.Clients.Black.tables(clientFile+black, "Clients that are refused, by address or name in the DNS."),
		s.Senders.White.tables(senderFile+white, "Senders that are let in."),
		s.Senders.Black.tables(senderFile+black, "Senders that are refused."),
		s.Recipients.White.tables(rcptFile+white, "Recipients that are let in."),
		s.Recipients.Black.tables(rcptFile+black, "Recipients that are refused."),
	)
}
