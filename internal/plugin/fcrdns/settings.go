package fcrdns

import (
	"slices"
	"time"

	"tarishi/internal/ini"
)

// Settings is fcrdns.ini.
type Settings struct {
	Timeout time.Duration // of all look-ups together
	Reject  Rejections
}

// Rejections are the faults for which clients are refused.
type Rejections struct{ NoRDNS, NoFCrDNS, InvalidTLD, GenericRDNS bool }

const file = "fcrdns.ini"

// Tables declares the keys of fcrdns.ini.
func (s *Settings) Tables() []*ini.Table {
	off := func(key string, p *bool, doc string) ini.Row {
		return ini.Row{Key: key, Kind: ini.Bool(p), Default: "false", Doc: doc}
	}
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: "What the plugin fcrdns asks of the names of clients in the DNS.",
		Rows: slices.Concat(
			[]ini.Row{{
				Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "29",
				Doc: "How long the DNS is waited for.",
			}},
			ini.Within("reject",
				off("no_rdns", &s.Reject.NoRDNS, "Refuse clients whose address has no name."),
				off("no_fcrdns", &s.Reject.NoFCrDNS, "Refuse clients none of whose names has the address."),
				off("invalid_tld", &s.Reject.InvalidTLD, "Refuse clients with a name below no top-level domain that there is."),
				off("generic_rdns", &s.Reject.GenericRDNS, "Refuse clients whose name holds their address, as those of customers' lines do."),
			),
		),
		Sections: map[string]string{"reject": "The faults for which clients are refused. Each of them refuses some valid mail."},
	}}
}
