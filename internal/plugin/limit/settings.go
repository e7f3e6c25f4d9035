package limit

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/redis"
)

// Settings is limit.ini.
type Settings struct {
	Tarpit time.Duration // how long a refusal waits
	Redis  redis.Section

	Concurrency  maximum
	Recipients   maximum
	MaxRelaying  int64 // of recipients, for clients that may relay; 0: as for others
	Unrecognized maximum
	Errors       maximum

	RateConn, RateRcptHost, RateRcptSender, RateRcptUser, RateRcpt, RateRcptNull rates

	Outbound     destinations
	RateOutbound rates
}

// maximum is how many of something there may be.
type maximum struct {
	Enabled bool
	Max     int64 // 0: any number
	Past    history
}

// history is what replaces a limit for clients that another plugin knows something of.
type history struct {
	Enabled         bool
	Plugin          string
	Good, Bad, None rate // the Limit of a maximum; not set: the usual one
}

// destinations are the limits of deliveries that run at a time, by domain.
type destinations struct {
	Enabled bool
	Delay   time.Duration
	limits  map[string]int64
}

// The names of the ini file and of its sections. Those of rates are also what the keys of
// their counts begin with, and the values in the results.
const (
	file         = "limit.ini"
	concurrency  = "concurrency"
	recipients   = "recipients"
	unrecognized = "unrecognized_commands"
	faults       = "errors"
	rateConn     = "rate_conn"
	rateHost     = "rate_rcpt_host"
	rateSender   = "rate_rcpt_sender"
	rateUser     = "rate_rcpt_user"
	rateRcpt     = "rate_rcpt"
	rateNull     = "rate_rcpt_null"
	outbound     = "outbound"
	rateOutbound = "rate_outbound"
)

// rateSections are the sections of rates with what may stand in them.
func (s *Settings) rateSections() []rateSection {
	const byHost = "the beginning of an address, or a name in the DNS"
	const byAddress = "an address, or a domain"
	return []rateSection{
		{rateConn, &s.RateConn, "5", true, "192.0.2=20\nexample.com=100/10m", "Connections of a client. A key is " + byHost + "."},
		{rateHost, &s.RateRcptHost, "50/5m", true, "2001:db8=0", "Recipients of a client, looked at when it connects. A key is " + byHost + "."},
		{rateSender, &s.RateRcptSender, "50/5m", false, "list@example.com=1000/1h\nexample.com=200/5m", "Recipients of a sender. A key is " + byAddress + "."},
		{rateUser, &s.RateRcptUser, "50/5m", false, "newsletter=5000/1d", "Recipients of a user. A key is a user's name, or the domain in it."},
		{rateRcpt, &s.RateRcpt, "50/5m", false, "example.com=1000/1m", "Messages to a recipient. A key is " + byAddress + "."},
		{rateNull, &s.RateRcptNull, "1", false, "postmaster@example.com=10", "Messages from the null sender to a recipient: reports. A key is " + byAddress + "."},
		{rateOutbound, &s.RateOutbound, "", false, "gmail.com=10/1m", "Deliveries to a domain. A key is a domain; it holds for those below it."},
	}
}

// rateSection is one of them.
type rateSection struct {
	name    string
	rates   *rates
	preset  string
	byHost  bool
	example string
	doc     string
}

// Tables declares the keys of limit.ini.
func (s *Settings) Tables() []*ini.Table {
	most := func(p *int64, preset, example, doc string) ini.Row {
		return ini.Row{Key: "max", Kind: ini.AtLeast(p, 0), Default: preset, Example: example, Doc: doc + " 0: any number."}
	}
	t := &ini.Table{
		File: file, Since: "0.3.0",
		Doc: `What the plugin limit counts, and how much it allows. Each section is off until it says enabled=true. A rate is a
			number, or a number and a time: 5, 50/5m, 1000/1d; without a time it is for a minute.`,
		Sections: map[string]string{
			"redis":      "The Redis server that the counts are shared in, if redis.ini or a key here names one.",
			concurrency:  "Connections of one address at a time.",
			recipients:   "Recipients of one connection, the refused ones too.",
			unrecognized: "Commands of one connection that the server does not know.",
			faults:       "Errors of syntax and sequence on one connection.",
			outbound:     "Deliveries to one domain at a time. A line for each domain: example.com=10.",
		},
		Begin: func(*ini.Reader) { s.forgetKeys() }, Finish: s.finish,
	}
	t.Rows = slices.Concat(
		[]ini.Row{{Key: "tarpit_delay", Kind: ini.Duration(&s.Tarpit, 0), Default: "3", Doc: "How long a refusal waits. 0: not at all."}},
		s.Redis.Rows("redis", "4", file),
		ini.Within(concurrency, enabled(&s.Concurrency.Enabled), most(&s.Concurrency.Max, "3", "", "How many.")),
		s.Concurrency.Past.rows(concurrency, "10", "1", "2"),
		ini.Within(
			recipients, enabled(&s.Recipients.Enabled), most(&s.Recipients.Max, "", "20", "How many."),
			ini.Row{Key: "max_relaying", Kind: ini.AtLeast(&s.MaxRelaying, 0), Example: "100", Doc: "How many for clients that may relay."},
		),
		s.Recipients.Past.rows(recipients, "50", "1", "5"),
		ini.Within(unrecognized, enabled(&s.Unrecognized.Enabled), most(&s.Unrecognized.Max, "10", "", "How many. The server itself closes at the eleventh.")),
		ini.Within(faults, enabled(&s.Errors.Enabled), most(&s.Errors.Max, "10", "", "How many.")),
	)

	// Sections whose keys are names of clients, senders, recipients and domains.
	for _, one := range s.rateSections() {
		t.Sections[one.name] = one.doc
		t.Rows = append(t.Rows, one.rows()...)
		t.Free = append(t.Free, ini.Free{Section: one.name, Example: one.example, Print: one.rates.print})
		switch one.name {
		case rateConn:
			t.Rows = append(t.Rows, s.RateConn.Past.rows(rateConn, "15/1m", "1/15m", "1/5m")...)
		case rateHost:
			t.Rows = append(t.Rows, s.RateRcptHost.Past.rows(rateHost, "", "", "")...)
		}
	}
	t.Rows = append(t.Rows, ini.Within(outbound, enabled(&s.Outbound.Enabled), ini.Row{
		Key: "delay", Kind: ini.Duration(&s.Outbound.Delay, time.Second), Default: "30", Doc: "When a delivery that is too much is tried again.",
	})...)
	t.Free = append(t.Free, ini.Free{Section: outbound, Example: "example.com=10", Print: s.Outbound.print})
	return []*ini.Table{t}
}

func enabled(p *bool) ini.Row {
	return ini.Row{Key: "enabled", Kind: ini.Bool(p), Default: "false", Doc: "Whether this counts."}
}

// rows are the keys of a section of rates that are no names.
func (s rateSection) rows() []ini.Row {
	rows := []ini.Row{
		enabled(&s.rates.Enabled),
		{Key: "default", Kind: rateKind(&s.rates.Default), Default: s.preset, Doc: "The rate where no key says another."},
	}
	if s.preset == "" {
		rows[1].Example = "500/1h"
	}
	if s.name == rateUser {
		rows[0].Haraka, rows[1].Haraka = ini.None, ini.None
	}
	return ini.Within(s.name, rows...)
}

// rows are those of the section that replaces the limit of another one.
func (h *history) rows(section, good, bad, none string) []ini.Row {
	kind := func(key string, p *rate, preset, doc string) ini.Row {
		row := ini.Row{Key: key, Kind: rateKind(p), Default: preset, Doc: "The limit for clients " + doc + "."}
		if preset == "" {
			row.Example = "50/5m"
		}
		return row
	}
	return ini.Within(
		section+"_history",
		ini.Row{Key: "enabled", Kind: ini.Bool(&h.Enabled), Default: "false", Doc: "Whether what is known of a client replaces the limit of [" + section + "]."},
		ini.Row{Key: "plugin", Kind: ini.Text(&h.Plugin), Default: "karma", Doc: "The plugin that knows something of clients: its result history is more than 0, less, or 0."},
		kind("good", &h.Good, good, "with a good history"), kind("bad", &h.Bad, bad, "with a bad one"), kind("none", &h.None, none, "with neither"),
	)
}

// forgetKeys makes the keys of all sections those that are built in.
func (s *Settings) forgetKeys() {
	for _, one := range s.rateSections() {
		one.rates.keys = map[string]rate{}
		if one.byHost {
			one.rates.keys["127"] = rate{Window: defaultWindow, text: "0"} // this host, as in Haraka
		}
	}
	s.Outbound.limits = map[string]int64{}
}

// finish reads the names in sections.
func (s *Settings) finish(r *ini.Reader) {
	known := map[string]bool{"enabled": true, "default": true, "delay": true}
	each := func(section string, set func(key, value string) error) {
		for _, k := range r.File(file).Section(section).Keys {
			if known[k.Name] {
				continue
			}
			value := ""
			if len(k.Values) == 1 {
				value = k.Values[0]
			}
			if err := set(strings.ToLower(k.Name), value); err != nil {
				r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: section, Key: k.Name, Text: err.Error()})
			}
		}
	}

	for _, one := range s.rateSections() {
		each(one.name, func(key, value string) error {
			found, err := parseRate(value)
			if one.byHost && err == nil {
				key, err = hostKey(key)
			}
			if err == nil {
				one.rates.keys[key] = found
			}
			return err
		})
	}
	each(outbound, func(key, value string) error {
		var n int64
		err := ini.AtLeast(&n, 0).Set([]string{value})
		if err == nil {
			s.Outbound.limits[key] = n
		}
		return err
	})
}

// hostKey returns the key of a client as it is looked up.
func hostKey(key string) (string, error) {
	if addr, err := netip.ParseAddr(key); err == nil {
		return writeAddr(addr.Unmap()), nil
	}
	if strings.Contains(key, "/") {
		return "", &networkError{key}
	}
	return key, nil
}

// networkError is a network where the beginning of an address is meant.
type networkError struct{ key string }

func (e *networkError) Error() string {
	return grammar.Quote(e.key) + ` is never looked up: a network is written as the beginning of its addresses, "192.0.2" or "2001:db8"`
}

// print writes the keys of a section of rates.
func (r *rates) print() []string {
	lines := make([]string, 0, len(r.keys))
	for _, key := range ini.SortedKeys(r.keys) {
		lines = append(lines, key+"="+r.keys[key].text)
	}
	return lines
}

func (d *destinations) print() []string {
	lines := make([]string, 0, len(d.limits))
	for _, domain := range ini.SortedKeys(d.limits) {
		lines = append(lines, domain+"="+strconv.FormatInt(d.limits[domain], 10))
	}
	return lines
}
