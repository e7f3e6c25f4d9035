package spf

import (
	"time"

	"tarishi/internal/ini"
)

// Settings is spf.ini.
type Settings struct {
	Timeout time.Duration
	// Context is which address is checked for mail of clients that may relay.
	Context                 string
	SkipRelaying, SkipUsers bool
	Strangers, Relaying     answers
}

// answers says which results refuse a sender.
type answers struct {
	Hello, Mail identity
	OpenSPF     bool // texts of openspf.org
}

// identity is what to do about the results of one identity.
type identity struct{ None, SoftFail, Fail, PermError, TempError bool }

const file = "spf.ini"

// The words for Context.
const (
	fromSender = "sender"
	fromMyself = "myself"
)

// Tables declares the keys of spf.ini.
func (s *Settings) Tables() []*ini.Table {
	rows := []ini.Row{
		{
			Key: "lookup_timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "20",
			Doc: "How long all look-ups of one check may take. What is not known by then is a temperror. It must be less than plugin_timeout.",
		},
		{Key: "dns_timeout", Note: "has no effect: timeout of dns.ini bounds each query"},
		{
			Section: "relay", Key: "context", Kind: ini.Choice(&s.Context, fromSender, fromMyself), Default: fromSender,
			Doc: `What is checked about clients that may relay: sender, whether they may use the domain; myself, whether this host may, as other
				servers will ask: with the address at which the client has reached us, if it may not itself.`,
		},
		{Section: "skip", Key: "relaying", Kind: ini.Bool(&s.SkipRelaying), Default: "false", Doc: "Clients that may relay."},
		{Section: "skip", Key: "auth", Kind: ini.Bool(&s.SkipUsers), Default: "false", Doc: "Clients that have authenticated."},
	}
	for _, of := range []struct {
		section string
		answers *answers
	}{{"", &s.Strangers}, {"_relay", &s.Relaying}} {
		rows = append(rows, of.answers.rows(of.section)...)
	}
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: `Which results of SPF (RFC 7208) refuse a sender. That of HELO counts for mail with the null sender only. Begin with nothing, and read
			the results in Authentication-Results and in the log.`,
		Rows: rows,
		Sections: map[string]string{
			"relay": "Clients that may relay.", "skip": "Clients that are not checked.",
			"deny": "Results that refuse the sender with 550.", "defer": "Results that defer the sender with 451.",
			"deny_relay": "The same for clients that may relay.", "defer_relay": "The same for clients that may relay.",
		},
	}}
}

// rows declares the switches for one kind of clients.
func (a *answers) rows(of string) []ini.Row {
	deny, soft := "deny"+of, "defer"+of
	var rows []ini.Row
	for _, id := range []struct {
		name, of string
		results  *identity
	}{{"helo", "the name in HELO", &a.Hello}, {"mfrom", "the sender's domain", &a.Mail}} {
		rows = append(
			rows,
			ini.Row{Section: deny, Key: id.name + "_none", Kind: ini.Bool(&id.results.None), Default: "false", Doc: "There is no policy for " + id.of + "."},
			ini.Row{Section: deny, Key: id.name + "_softfail", Kind: ini.Bool(&id.results.SoftFail), Default: "false", Doc: "The client probably may not use " + id.of + " (~all)."},
			ini.Row{Section: deny, Key: id.name + "_fail", Kind: ini.Bool(&id.results.Fail), Default: "false", Doc: "The client may not use " + id.of + " (-all)."},
			ini.Row{Section: deny, Key: id.name + "_permerror", Kind: ini.Bool(&id.results.PermError), Default: "false", Doc: "The policy for " + id.of + " is wrong."},
			ini.Row{Section: soft, Key: id.name + "_temperror", Kind: ini.Bool(&id.results.TempError), Default: "false", Doc: "The policy for " + id.of + " cannot be looked up now."},
		)
	}
	return append(rows, ini.Row{
		Section: deny, Key: "openspf_text", Kind: ini.Bool(&a.OpenSPF), Default: "false",
		Doc: "Refuse with the address of a page of openspf.org that explained the result. The site is gone.",
	})
}
