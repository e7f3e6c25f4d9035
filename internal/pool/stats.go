package pool

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
)

// Stats counts since the start (Dials, Reuses, Retries) and tells the present
// (Open, Idle, Waiting).
type Stats struct {
	Dials   int // connections tried, also in vain
	Reuses  int // transactions on kept connections
	Retries int // repetitions after a kept connection proved dead, or was refused on
	Refused int // times that nothing was tried because of the back-off of an address or of credentials

	Open    int // connections, with those being made or said goodbye to
	Idle    int // of them, unused
	Waiting int // Sends that wait for a connection
}

// Stats returns the counters.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// HostStat describes the connections of one key. It has no credentials.
type HostStat struct {
	Host     string // the server's name; "": none was given
	Addr     string // address or socket; "" where one of several serves
	Port     int    // where Addr is ""
	Protocol mail.Protocol
	TLS      smtpclient.TLSPolicy
	AuthUser string
	Open     int // as in Stats
	Idle     int
	Waiting  int
}

// Hosts returns the keys that have a connection or a Send waiting for one,
// in order of Host and Addr.
func (p *Pool) Hosts() []HostStat {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]HostStat, 0, len(p.hosts))
	for k, h := range p.hosts {
		all = append(all, HostStat{
			Host: k.host, Addr: k.addr, Port: int(k.port), Protocol: k.protocol, TLS: k.tls, AuthUser: k.authUser,
			Open: h.open, Idle: len(h.idle), Waiting: len(h.waiters),
		})
	}
	slices.SortFunc(all, func(a, b HostStat) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Port, b.Port),
			cmp.Compare(a.AuthUser, b.AuthUser), cmp.Compare(a.TLS, b.TLS))
	})
	return all
}

// AddrStat describes an address that could not be reached lately.
type AddrStat struct {
	Addr     string     // address or socket
	Bind     netip.Addr // as in smtpclient.Options
	Failures int        // in a row
	Until    time.Time  // left alone until then
	Last     string     // the last failure
}

// Unreachable returns the addresses that failed at the last connection, in order.
func (p *Pool) Unreachable() []AddrStat {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []AddrStat
	for s, r := range p.sites {
		if r.failures > 0 {
			all = append(all, AddrStat{Addr: s.addr, Bind: s.bind, Failures: r.failures, Until: r.until, Last: r.last.Error()})
		}
	}
	slices.SortFunc(all, func(a, b AddrStat) int { return cmp.Or(cmp.Compare(a.Addr, b.Addr), a.Bind.Compare(b.Bind)) })
	return all
}
