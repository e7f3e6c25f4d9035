package dnstest

import (
	"net"
	"time"

	"github.com/miekg/dns"
)

// serve answers one query.
func (s *Server) serve(w dns.ResponseWriter, q *dns.Msg) {
	if len(q.Question) != 1 {
		s.reply(w, q, new(dns.Msg).SetRcode(q, FormErr))
		return
	}
	name, qtype := canonical(q.Question[0].Name), q.Question[0].Qtype

	// The entry is copied under the lock, since a test may change it while this query waits.
	s.mu.Lock()
	s.counts[key{name, qtype}]++
	s.total++
	var e entry
	if p := s.names[name]; p != nil {
		e = *p
	}
	rcode, failed := e.fail[qtype]
	if !failed {
		rcode, failed = e.fail[dns.TypeANY]
	}
	m := new(dns.Msg)
	if !failed && e.handler == nil {
		s.answer(m, q)
	}
	s.mu.Unlock()

	// A delayed answer must not outlive the server.
	if e.delay > 0 {
		timer := time.NewTimer(e.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.closing:
			return
		}
	}

	// What a test asked for wins over the records, in this order: its own handler, silence, a
	// failure.
	switch {
	case e.handler != nil:
		e.handler(w, q)
		return
	case failed && rcode == Drop:
		if isTCP(w) {
			w.Close()
		}
		return
	case failed:
		m.SetRcode(q, rcode)
	case e.truncate && !isTCP(w):
		m.Answer, m.Ns, m.Truncated = nil, nil, true
	}
	s.reply(w, q, m)
}

func isTCP(w dns.ResponseWriter) bool {
	_, ok := w.RemoteAddr().(*net.TCPAddr)
	return ok
}

// reply writes m, cut to what the client takes over UDP.
func (s *Server) reply(w dns.ResponseWriter, q, m *dns.Msg) {
	m.RecursionAvailable = true
	size := dns.MinMsgSize
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(1232, false)
		size = int(opt.UDPSize())
	}
	if isTCP(w) {
		size = dns.MaxMsgSize
	}

	// Answers are cut as a real server cuts them, so that clients have to come back over TCP.
	m.Truncate(size)
	w.WriteMsg(m)
}

// answer fills m from the records. The caller holds s.mu.
func (s *Server) answer(m, q *dns.Msg) {
	m.SetReply(q)
	name, qtype := canonical(q.Question[0].Name), q.Question[0].Qtype
	opt := q.IsEdns0()
	m.AuthenticatedData = q.AuthenticatedData || opt != nil && opt.Do()

	// Aliases are followed as a recursive server does, up to a bound that also ends loops. The
	// answer is secure only if every name on the way is.
	for range maxChain {
		m.AuthenticatedData = m.AuthenticatedData && s.secure[name]
		e, owner := s.names[name], ""
		if e == nil || len(e.records) == 0 {
			if e, owner = s.fallback, name; e == nil {
				m.Rcode = NXDomain
				break
			}
		}
		if rrs := e.records[qtype]; len(rrs) > 0 {
			for _, rr := range rrs {
				if owner != "" {
					rr = dns.Copy(rr)
					rr.Header().Name = owner
				}
				m.Answer = append(m.Answer, rr)
			}
			return
		}
		alias := e.records[dns.TypeCNAME]
		if len(alias) == 0 {
			break
		}
		m.Answer = append(m.Answer, alias...)
		name = canonical(alias[0].(*dns.CNAME).Target)
		if len(m.Answer) == maxChain {
			return // a loop: no end, no SOA
		}
	}

	// Without records, the SOA tells the client for how long that may be remembered (RFC 2308).
	m.Ns = []dns.RR{&dns.SOA{
		Hdr:    dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: s.negativeTTL},
		Ns:     "ns.invalid.",
		Mbox:   "hostmaster.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400,
		Minttl: s.negativeTTL,
	}}
}
