package xclient

import (
	"net/netip"
	"slices"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/ini/hostport"
)

// Settings is xclient.hosts.
type Settings struct {
	Hosts []netip.Prefix
}

// Tables declares the list.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "xclient.hosts", Since: "0.3.0",
		Doc: `Peers that may say by XCLIENT whose connection they hand on, and with LOGIN= who has logged in there and may
			therefore send to any domain: addresses and networks. 127.0.0.1 and ::1 may in any case say the former.`,
		Line: func(_ *ini.Reader, text string, _ int) error {
			p, err := hostport.ParsePrefix(text)
			if err == nil {
				s.Hosts = append(s.Hosts, p)
			}
			return err
		},
		Lines: func() []string { return hostport.FormatPrefixes(s.Hosts) },
	}}
}

// loopback are the hosts that Haraka trusts without being told to.
var loopback = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}

// trust returns what a peer may say.
func (s *Settings) trust(addr netip.Addr) hook.XClient {
	addr = addr.Unmap().WithZone("")
	switch {
	case slices.ContainsFunc(s.Hosts, func(p netip.Prefix) bool { return p.Contains(addr) }):
		return hook.XClientLogin
	case slices.Contains(loopback, addr):
		return hook.XClientAddress
	}
	return hook.XClientRefused
}
