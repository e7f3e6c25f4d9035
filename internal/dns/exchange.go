package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	udpSize      = 1232 // what survives without fragments nearly everywhere
	readSize     = 4096 // for servers that send more nevertheless
	maxExchanges = 1024 // sockets of one Resolver at a time

	askLast = 30 * time.Second // for so long a server that is silent comes after the others

	// After so many time-outs without an answer between them it is the server that is
	// silent, and no domain: as many as two questions have with Settings.Tries unset.
	reportAfter = 4
)

var (
	errLame      = errors.New("lame: no answer, no authority, no recursion")
	errMalformed = errors.New("malformed answer")
	errTruncated = errors.New("truncated answer over TCP")
)

// query asks the servers in turn, as often as configured, until one gives an
// answer from which something follows: success or NXDOMAIN.
func (r *Resolver) query(ctx context.Context, q question) (*dns.Msg, error) {
	var last error
	for range r.tries {
		for _, server := range r.order() {
			m, err := r.ask(ctx, server, q)
			if err == nil {
				return m, nil
			}
			last = fmt.Errorf("%s: %w", server, err)
			if ctx.Err() != nil {
				return nil, last
			}
		}
	}
	return nil, last
}

// order returns the servers as they are to be asked: one that did not answer
// lately comes last, except in one query now and then that finds out whether it
// answers again. Without that each lookup would wait for it in vain.
func (r *Resolver) order() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.silent) == 0 {
		return r.servers
	}
	now := r.now()
	var first, last []string
	for _, s := range r.servers {
		until, silent := r.silent[s]
		switch {
		case !silent:
			first = append(first, s)
		case now.Before(until):
			last = append(last, s)
		default:
			r.silent[s] = now.Add(askLast)
			first = append(first, s)
		}
	}
	return append(first, last...)
}

// datagram is an exchange over UDP. It tells which servers are silent: TCP may be
// closed where UDP is answered. A query that was given up says nothing.
func (r *Resolver) datagram(ctx context.Context, server string, query *dns.Msg) (*dns.Msg, error) {
	began := r.now()
	m, err := r.exchange(ctx, "udp", server, query)
	if err == nil || ctx.Err() == nil {
		r.heard(server, began, err)
	}
	return m, err
}

// heard notes what came of a query that began then. Time-outs and failures of the
// network are silence, unless another query was answered since: then it is the name
// that takes long, as those of dead zones do, and not the server.
func (r *Resolver) heard(server string, began time.Time, err error) {
	r.mu.Lock()
	now, news := r.now(), false
	var failure net.Error
	switch {
	case !errors.As(err, &failure):
		news, err = r.failures[server] >= reportAfter, nil
		r.answered[server] = now
		delete(r.silent, server)
		delete(r.failures, server)
	case !r.answered[server].After(began):
		r.silent[server] = now.Add(askLast)
		r.failures[server]++
		news = r.failures[server] == reportAfter
	}
	watch := r.watch
	r.mu.Unlock()
	if news {
		watch(server, err)
	}
}

// Watch has f called when a server is found not to answer any more, with the reason, and
// with nil when it answers again. f must not wait for the Resolver.
func (r *Resolver) Watch(f func(server string, err error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watch = f
}

// ask gets an answer from one server: over UDP with EDNS, without EDNS if the
// server does not know it (RFC 6891 section 7), over TCP if it is truncated.
func (r *Resolver) ask(ctx context.Context, server string, q question) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(q.name, q.qtype)
	query.SetEdns0(udpSize, r.dnssec)
	query.AuthenticatedData = r.dnssec
	m, err := r.datagram(ctx, server, query)
	if err == nil && (m.Rcode == dns.RcodeFormatError || m.Rcode == dns.RcodeNotImplemented || m.Rcode == dns.RcodeBadVers) {
		query = new(dns.Msg).SetQuestion(q.name, q.qtype)
		query.AuthenticatedData = r.dnssec
		m, err = r.datagram(ctx, server, query)
	}
	if err == nil && m.Truncated {
		if m, err = r.exchange(ctx, "tcp", server, query); err == nil && m.Truncated {
			err = errTruncated
		}
	}
	if err != nil {
		return nil, err
	}
	switch m.Rcode {
	case dns.RcodeSuccess:
		return m, lame(m)
	case dns.RcodeNameError:
		return m, nil
	}
	if name, ok := dns.RcodeToString[m.Rcode]; ok {
		return nil, errors.New(name)
	}
	return nil, fmt.Errorf("response code %d", m.Rcode)
}

// lame says whether an empty answer comes from a server that knows nothing of
// the name: without recursion and authority, or a referral (RFC 2308 section
// 2.2). That is not NODATA.
func lame(m *dns.Msg) error {
	if len(m.Answer) > 0 || soa(m) != nil {
		return nil
	}
	if !m.RecursionAvailable && !m.Authoritative {
		return errLame
	}
	for _, rr := range m.Ns {
		if rr.Header().Rrtype == dns.TypeNS {
			return errLame
		}
	}
	return nil
}

// exchange sends one query from a fresh socket and waits for its answer. Over
// UDP, what answers some other question is passed over.
func (r *Resolver) exchange(ctx context.Context, network, server string, query *dns.Msg) (*dns.Msg, error) {
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := &dns.Conn{Conn: nc, UDPSize: readSize}
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	for {
		b, err := conn.ReadMsgHeader(nil)
		if err != nil && (network == "tcp" || !errors.Is(err, dns.ErrShortRead)) {
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			return nil, err
		}
		if len(b) >= 2 && binary.BigEndian.Uint16(b) == query.Id {
			m, err := parse(b)
			if err != nil || answers(m, query) {
				return m, err
			}
		}
		if network == "tcp" {
			return nil, errMalformed
		}
	}
}

// parse unpacks a message whose sections are as long as its header says; the
// library lets a message that ends early pass as one with fewer records.
func parse(b []byte) (*dns.Msg, error) {
	m := new(dns.Msg)
	err := m.Unpack(b)
	if m.Truncated {
		return m, nil // wherever it was cut: it is asked for again
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	for i, n := range []int{len(m.Question), len(m.Answer), len(m.Ns), len(m.Extra)} {
		if int(binary.BigEndian.Uint16(b[4+2*i:])) != n {
			return nil, errMalformed
		}
	}
	return m, nil
}

// answers reports whether m answers query. Servers may leave the question out
// of an error and of a message that is cut, from which nothing follows.
func answers(m, query *dns.Msg) bool {
	if !m.Response || m.Opcode != dns.OpcodeQuery {
		return false
	}
	if len(m.Question) == 0 {
		return m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError
	}
	q, own := m.Question[0], query.Question[0]
	return len(m.Question) == 1 && q.Qtype == own.Qtype && q.Qclass == own.Qclass && strings.EqualFold(q.Name, own.Name)
}
