package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
)

// Settings is dns.ini: which servers are asked, and how.
type Settings struct {
	Servers []string      // "ip:port" or "ip" (port 53), asked in this order; empty: those of ResolvConf
	Timeout time.Duration // of one query to one server; 0: 5 s
	Tries   int           // rounds over the servers; 0: 2

	// DNSSEC says that the servers validate, and that nobody between them and
	// us can forge their answers. Otherwise nothing is ever secure.
	DNSSEC bool

	ResolvConf string // no key; "": /etc/resolv.conf
	Hosts      string // no key: the hosts file that Host reads; "": /etc/hosts
}

// Equal reports whether two settings are the same: a Resolver of the one is as good for
// the other, and knows answers already.
func (s *Settings) Equal(o *Settings) bool {
	return slices.Equal(s.Servers, o.Servers) && s.Timeout == o.Timeout && s.Tries == o.Tries && s.DNSSEC == o.DNSSEC &&
		s.ResolvConf == o.ResolvConf && s.Hosts == o.Hosts
}

// Tables declares the keys of dns.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "dns.ini",
		Doc:  "Name servers.",
		Rows: []ini.Row{
			{
				Key: "servers", Kind: ini.Each(&s.Servers, "IP addresses, each with a port or with 53", parseServer, func(s string) string { return s }),
				Example: "127.0.0.1:53", Haraka: ini.None,
				Doc: `ip or ip:port; repeat the key for more. Without it, those of the system. They are asked in this order;
					one that does not answer comes last for a while.`,
			},
			{
				Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Millisecond), Default: "5", Haraka: ini.None,
				Doc: "How long one server is waited for.",
			},
			{
				Key: "tries", Kind: ini.Int(&s.Tries, 1, 100), Default: "2", Haraka: ini.None,
				Doc: "How often each question is put.",
			},
			{
				Key: "dnssec", Kind: ini.Bool(&s.DNSSEC), Default: "false", Haraka: ini.None,
				Doc: `Whether these servers validate DNSSEC and what they say of it is believed (the AD bit). It is what DANE
					needs. Set it only when all of them validate and nobody between them and this host can forge their
					answers: a validating resolver on this host, servers[]=127.0.0.1, is best.`,
			},
		},
		Finish: s.finish,
	}}
}

// finish warns when dnssec=true trusts the servers of resolv.conf.
func (s *Settings) finish(r *ini.Reader) {
	if k := r.File("dns.ini").Section("main").Key("dnssec"); k != nil && s.DNSSEC && len(s.Servers) == 0 {
		r.Add(ini.Problem{
			File: ini.Place("dns.ini"), Line: k.Line, Key: k.Name, Warning: true,
			Text: "believes whichever servers /etc/resolv.conf names: set servers to a validating resolver that can be trusted",
		})
	}
}

// parseServer reads one of servers, with port 53 if it names none.
func parseServer(s string) (string, error) {
	host, port, err := hostport.Split(s, 53)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(host); err != nil || port == 0 {
		return "", fmt.Errorf("%s is no ip:port", grammar.Quote(s))
	}
	return hostport.Join(host, port), nil
}
