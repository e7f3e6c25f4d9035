package earlytalker

import (
	"net/netip"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/hostport"
)

// Settings is early_talker.ini.
type Settings struct {
	Pause     time.Duration // 0: the banner is not kept back
	Reject    bool
	Whitelist []netip.Prefix
}

const (
	file      = "early_talker.ini"
	whitelist = "ip_whitelist"
)

// Tables declares the keys of early_talker.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: "How long the plugin early_talker keeps the banner back, and from whom.",
		Rows: []ini.Row{
			{
				Key: "pause", Kind: ini.Duration(&s.Pause, 0), Default: "5",
				Doc: "How long after its connection a client gets the banner. 0: at once, and nothing is checked.",
			},
			{Key: "reject", Kind: ini.Bool(&s.Reject), Default: "true", Doc: "Whether clients that speak before the banner are refused."},
		},
		Free: []ini.Free{{
			Section: whitelist, Example: "192.0.2.1\n2001:db8::/32",
			Doc: `Addresses and networks of clients that get the banner at once, one on each line. So do private addresses, and
				clients that may relay.`,
			Print: func() []string { return hostport.FormatPrefixes(s.Whitelist) },
		}},
		Begin:  func(*ini.Reader) { s.Whitelist = nil },
		Finish: s.finish,
	}}
}

// finish reads the list of addresses.
func (s *Settings) finish(r *ini.Reader) {
	for _, k := range r.File(file).Section(whitelist).Keys {
		// Each line is a key without a value.
		p, err := hostport.ParsePrefix(k.Name)
		if err != nil {
			r.Add(ini.Problem{File: ini.Place(file), Line: k.Line, Section: whitelist, Key: k.Name, Text: err.Error()})
			continue
		}
		s.Whitelist = append(s.Whitelist, p)
	}
}
