package dnslist

import (
	"tarishi/internal/ini"
)

// The types of lists, with Haraka's words.
const (
	Block = "block" // the client is not wanted
	Allow = "allow" // it is known as good
	Karma = "karma" // 127.0.0.1 is good, 127.0.0.2 is bad, any other answer a remark
)

// List is one list in the DNS.
type List struct {
	Zone             string
	Type             string // Block, Allow or Karma
	Reject           bool   // a listing refuses the client
	IPv6             string // "true": it is tested with an IPv6 address too; "false": IPv6 clients are not looked up
	LoopbackRejected bool   // 127.0.0.1 is listed on purpose, against RFC 5782
	Texts            map[string]string

	OKHelo, OKMail bool // of list.dnswl.org: what is on any allow list passes helo, or mail
	Enabled        bool // of ips.backscatterer.org
}

// rows are the keys of its section.
func (l *List) rows() []ini.Row {
	off := func(key string, p *bool, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "false", Example: "true", Doc: doc}
	}
	rows := []ini.Row{
		{
			Key: "type", Kind: ini.Choice(&l.Type, Block, Allow, Karma), Default: Block, Example: Allow,
			Doc: `block: the clients on it are not wanted. allow: they are known as good. karma: 127.0.0.1 is good, 127.0.0.2 is bad, any
				other answer is a remark.`,
		},
		{Key: "reject", Kind: ini.Bool(&l.Reject), Default: "true", Example: "false", Doc: "Refuse clients that are listed. false: it is only recorded."},
		{
			Key: "ipv6", Kind: optional(&l.IPv6), Example: "false",
			Doc: "false: clients with IPv6 addresses are not looked up. true: the list is tested with such an address too.",
		},
		off("loopback_is_rejected", &l.LoopbackRejected, "The list has 127.0.0.1 on purpose, and is not tested for it."),
	}
	switch l.Zone {
	case zoneDNSWL:
		rows = append(rows,
			off("ok_helo", &l.OKHelo, "Clients on an allow list pass helo and ehlo without the later plugins."),
			off("ok_mail", &l.OKMail, "Clients on an allow list pass mail without the later plugins."))
	case zoneBackscatter:
		rows = append(rows, off("enable", &l.Enabled, "Look up clients that send reports, and refuse those that are listed."))
	}
	for _, addr := range ini.SortedKeys(l.Texts) {
		rows = append(rows, l.textRow(addr))
	}
	return rows
}

// optional is true, false or not set.
func optional(p *string) ini.Kind {
	var on bool
	k := ini.Bool(&on)
	return k.WithReader(func(text string) error {
		err := k.Set([]string{text})
		if err == nil {
			*p = k.Text()[0]
		}
		return err
	}).WithText(func() []string { return []string{*p} })
}

// textRow is the key of the remark on an answer.
func (l *List) textRow(addr string) ini.Row {
	return ini.Row{Key: addr, Kind: ini.Scalar("text", func(text string) error {
		l.Texts[addr] = text
		return nil
	}, func() string { return l.Texts[addr] })}
}

// usualZones are the lists that are asked unless the site names others: Haraka's.
func usualZones() []string {
	return []string{
		"b.barracudacentral.org", "truncate.gbudb.net", "psbl.surriel.com", "bl.spamcop.net", "dnsbl-1.uceprotect.net", "zen.spamhaus.org",
		"dnsbl.justspam.org", zoneDNSWL, "hostkarma.junkemailfilter.com",
	}
}

// newList returns a list with what is known of it: the settings that Haraka ships.
func newList(zone string) *List {
	l := &List{Zone: zone, Type: Block, Reject: true, Texts: map[string]string{}}
	switch zone {
	case "zen.spamhaus.org":
		l.IPv6 = "false"
		l.Texts = map[string]string{
			"127.0.0.2": "SBL", "127.0.0.3": "CSS", "127.0.0.4": "XBL", "127.0.0.5": "XBL", "127.0.0.6": "XBL", "127.0.0.7": "XBL",
			"127.0.0.10": "PBL", "127.0.0.11": "PBL",
		}
	case "b.barracudacentral.org":
		l.IPv6 = "false"
	case "bl.spamcop.net":
		l.IPv6 = "true"
	case zoneDNSWL:
		l.Type = Allow
	case "hostkarma.junkemailfilter.com":
		l.Type, l.IPv6, l.LoopbackRejected = Karma, "true", true
		l.Texts = map[string]string{
			"127.0.0.1": "whitelist", "127.0.0.2": "blacklist", "127.0.0.3": "yellowlist", "127.0.0.4": "brownlist", "127.0.0.5": "NOBL",
			"127.0.1.1": "USES_QUIT", "127.0.1.2": "NO_QUIT", "127.0.1.3": "MIXED_QUIT",
			"127.0.2.1": "DAYS_2", "127.0.2.2": "DAYS_10", "127.0.2.3": "DAYS_11",
		}
	}
	return l
}
