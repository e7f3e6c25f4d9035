package listener

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
)

// Settings is what smtp.ini and connection.ini say of listening.
type Settings struct {
	Addrs          []string // "ip:port", "[v6]:port", "host:port", ":port"
	SMTPSPort      int      // addresses with this port speak TLS from the first byte; 0: none
	MaxConnections int      // in all; 0: only what the descriptor table allows
	MaxPerIP       int      // from one IPv4 address, or the /64 of an IPv6 address; 0: no limit

	// Proxies begin each connection with a PROXY header, if PROXY is on.
	Proxies []netip.Prefix
	PROXY   bool
}

const (
	smtpFile       = "smtp.ini"
	connectionFile = "connection.ini"
	proxyFile      = "haproxy_hosts"
)

// isProxy reports whether connections from an address begin with a PROXY header.
func (s *Settings) isProxy(ip netip.Addr) bool {
	if len(s.Proxies) == 0 || !s.PROXY {
		return false
	}
	ip = ip.WithZone("")
	return slices.ContainsFunc(s.Proxies, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// Tables declares the keys of both files.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		{
			File: smtpFile,
			Doc: `The server: where it listens and how it stops.

				In all ini files: comments stand on lines of their own, quotes are part of a value, booleans are true or
				false (also yes/no, on/off, 1/0). A duration is a number of seconds, or has units: 90, 30s, 5m, 1h30m, 5d.`,
			Rows: []ini.Row{
				{
					Key: "listen", Kind: ini.Listen(&s.Addrs, 25), Default: "127.0.0.1:2525", Example: "[::]:25,[::]:587",
					Doc: `Addresses to listen on, separated by commas: ip, ip:port, [ipv6]:port, a host name, or a port alone for
						every address. Without a port: 25. 0.0.0.0 is every IPv4 address; [::] is every address of both
						families, or every IPv6 address where an IPv4 address with the same port is listed too. On ports 587
						and 465 only clients that may relay can send: who logged in, or is in relay_acl_allow. The example
						takes mail from the world.`,
				},
				{
					Key: "smtps_port", Kind: ini.Port(&s.SMTPSPort), Default: "465",
					Doc: "Listeners on this port begin with TLS at once (submissions, RFC 8314).",
				},
				{Key: "port"}, // read by finish, as listen_host is
				{Key: "listen_host"},
			},
			Finish: s.finish,
		},
		{
			File:   connectionFile,
			Doc:    "What a client may do on a connection, and what it is told.",
			Rows:   append(s.limitRows(), s.proxyRows()...),
			Finish: s.checkProxies,
		},
	}
}

// limitRows bound how many connections there are.
func (s *Settings) limitRows() []ini.Row {
	return ini.Within("max",
		ini.Row{
			Key: "connections", Kind: ini.AtLeast(&s.MaxConnections, 1), Default: "10000", Haraka: ini.None,
			Doc: "Connections at one time, in all.",
		},
		ini.Row{
			Key: "connections_per_ip", Kind: ini.AtLeast(&s.MaxPerIP, 0), Default: "1000", Haraka: ini.None,
			Doc: "Connections at one time from one address. The addresses of an IPv6 /64 count as one. 0: no limit.",
		},
	)
}

// proxyRows name the proxies in front of this server.
func (s *Settings) proxyRows() []ini.Row {
	return ini.Within("haproxy",
		ini.Row{
			Key: "enabled", Kind: ini.Bool(&s.PROXY), Default: "true", Since: "0.3.0",
			Doc: "false: the hosts below are clients like any other.",
		},
		ini.Row{
			Key: "hosts", Kind: prefixes(&s.Proxies), Example: "192.0.2.30", Was: []string{proxyFile}, Since: "0.3.0",
			Doc: `Proxies and load balancers in front of this server, addresses or networks; repeat the key for more. Each of
				their connections begins with a header of the PROXY protocol (HAProxy's, version 1 or 2), within 30 s, before
				the banner and before TLS, on every port. It names the client, whose address counts in all that follows:
				limits, lists, plugins, log, trace fields. Nobody else may send one.`,
		},
	)
}

// prefixes is any number of addresses and networks.
func prefixes(p *[]netip.Prefix) ini.Kind {
	return ini.Each(p, "addresses or networks", hostport.ParsePrefix, func(p netip.Prefix) string {
		return hostport.FormatPrefixes([]netip.Prefix{p})[0]
	})
}

// checkProxies warns of networks that no site's proxies fill: their hosts can name any client,
// also one that may relay.
func (s *Settings) checkProxies(r *ini.Reader) {
	k := r.File(connectionFile).Section("haproxy").Key("hosts")
	if k == nil || !s.PROXY {
		return
	}
	for _, p := range s.Proxies {
		if p.Bits() < 8 {
			r.Add(ini.Problem{
				File: ini.Place(connectionFile), Line: k.Line, Section: "haproxy", Key: k.Name, Warning: true,
				Text: p.String() + " lets hosts all over the world say that they are any client, and one that may relay",
			})
		}
	}
}

// finish reads port and listen_host of old: one more address, in front of the
// others.
func (s *Settings) finish(r *ini.Reader) {
	// Both keys are Haraka's of old; a site that moves here may have nothing else.
	main := r.File(smtpFile).Section("main")
	host, port := main.Key("listen_host"), main.Key("port")
	problem := func(k *grammar.Key, text string, warning bool) {
		r.Add(ini.Problem{File: ini.Place(smtpFile), Line: k.Line, Key: k.Name, Text: text, Warning: warning})
	}
	if port == nil {
		if host != nil {
			problem(host, "has no effect without port: use listen", true)
		}
		return
	}

	// The port alone means every address.
	value := strings.Join(port.Values, "")
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil {
		problem(port, grammar.Quote(value)+" is no port", false)
		return
	}
	addr := fmt.Sprintf("[::]:%d", n)
	if host != nil && len(host.Values) == 1 && host.Values[0] != "" {
		name, _, err := hostport.Split(host.Values[0], 0)
		if err != nil {
			problem(host, err.Error(), false)
			return
		}
		addr = hostport.Join(name, int(n))
	}
	// Haraka has no default address beside the one of port.
	if main.Key("listen") == nil {
		s.Addrs = nil
	}
	s.Addrs = append([]string{addr}, s.Addrs...)
	problem(port, "is the old form of listen="+addr+", still read", true)
}

// ListensOn reports whether a connection to host and port certainly ends here.
func (s *Settings) ListensOn(host string, port int) bool {
	local := host == "localhost"
	if a, err := netip.ParseAddr(host); err == nil {
		local = a.IsLoopback()
	}
	return slices.ContainsFunc(s.Addrs, func(addr string) bool {
		return addr == hostport.Join(host, port) || local && (addr == hostport.Join("::", port) || addr == hostport.Join("0.0.0.0", port))
	})
}
