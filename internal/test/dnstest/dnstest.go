// Package dnstest is a DNS server on loopback for tests and load runs. It
// speaks UDP and TCP on one port and answers from records that may change
// while it runs; a name without records is NXDOMAIN.
//
// Names compare without regard to case, with or without a trailing dot, and are
// used as given: no IDNA. Negative answers carry a SOA record. Answers made only
// of names that were declared Secure have the AD bit for queries that ask for it
// (RFC 6840 section 5.7), as from a validating resolver; a failed validation there
// is ServFail. The methods that add records panic on an address that does not parse.
package dnstest

import (
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// Outcomes for Fail. All but Drop are the response codes of RFC 1035.
const (
	Drop     = -1 // no answer at all
	FormErr  = dns.RcodeFormatError
	ServFail = dns.RcodeServerFailure
	NXDomain = dns.RcodeNameError
	NotImp   = dns.RcodeNotImplemented
	Refused  = dns.RcodeRefused
)

// maxChain is how many CNAMEs one answer follows.
const maxChain = 16

// Server answers on one loopback port. All methods may be called at any time
// from any goroutine.
type Server struct {
	addr     string
	udp, tcp *dns.Server
	closing  chan struct{}
	once     sync.Once
	running  sync.WaitGroup

	mu          sync.Mutex
	names       map[string]*entry
	secure      map[string]bool
	fallback    *entry // SetDefault; nil: NXDOMAIN
	ttl         uint32
	negativeTTL uint32
	counts      map[key]int
	total       int
}

type key struct {
	name  string
	qtype uint16
}

// entry is all that is known of one name.
type entry struct {
	records  map[uint16][]dns.RR
	fail     map[uint16]int // by type; dns.TypeANY: every type
	truncate bool
	delay    time.Duration
	handler  dns.HandlerFunc
}

// New starts a server that stops with the test.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// Start starts a server on a port of 127.0.0.1 that is free. It runs until Close.
func Start() (*Server, error) {
	var failed error
	for range 50 {
		s, err := StartAt("127.0.0.1:0")
		if err == nil {
			return s, nil
		}
		failed = err // the port may be free for TCP alone
	}
	return nil, failed
}

// StartAt is Start with an address of the caller's choice.
func StartAt(addr string) (*Server, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dnstest: %w", err)
	}
	pc, err := net.ListenPacket("udp", l.Addr().String())
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("dnstest: %w", err)
	}
	s := &Server{
		addr:        pc.LocalAddr().String(),
		closing:     make(chan struct{}),
		names:       map[string]*entry{},
		secure:      map[string]bool{},
		ttl:         60,
		negativeTTL: 60,
		counts:      map[key]int{},
	}
	s.udp = &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(s.serve), UDPSize: 4096}
	s.tcp = &dns.Server{Listener: l, Handler: dns.HandlerFunc(s.serve), MaxTCPQueries: -1}
	for _, d := range []*dns.Server{s.udp, s.tcp} {
		started := make(chan struct{})
		d.NotifyStartedFunc = func() { close(started) }
		s.running.Go(func() { d.ActivateAndServe() })
		<-started
	}
	return s, nil
}

// Close stops the server and returns when its goroutines have ended. Further
// calls do nothing.
func (s *Server) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		err = s.udp.Shutdown()
		if e := s.tcp.Shutdown(); err == nil {
			err = e
		}
		s.running.Wait()
	})
	return err
}

// Addr returns "127.0.0.1:port", or what StartAt was given.
func (s *Server) Addr() string { return s.addr }

// MX adds a mail exchanger. host "" or "." is the null MX (RFC 7505).
func (s *Server) MX(domain string, preference int, host string) {
	s.add(domain, dns.TypeMX, &dns.MX{Preference: uint16(preference), Mx: dns.Fqdn(host)})
}

// A adds IPv4 addresses.
func (s *Server) A(host string, ips ...string) {
	for _, ip := range ips {
		s.add(host, dns.TypeA, &dns.A{A: netip.MustParseAddr(ip).AsSlice()})
	}
}

// AAAA adds IPv6 addresses, which may be IPv4-mapped.
func (s *Server) AAAA(host string, ips ...string) {
	for _, ip := range ips {
		b := netip.MustParseAddr(ip).As16()
		s.add(host, dns.TypeAAAA, &dns.AAAA{AAAA: b[:]})
	}
}

// PTR adds names of an address.
func (s *Server) PTR(ip string, names ...string) {
	reverse, err := dns.ReverseAddr(ip)
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		s.add(reverse, dns.TypePTR, &dns.PTR{Ptr: dns.Fqdn(name)})
	}
}

// TXT adds one record per text, each of any bytes; a text above 255 octets
// becomes several strings of one record.
func (s *Server) TXT(name string, texts ...string) {
	for _, text := range texts {
		rr := &dns.TXT{}
		for chunk := range slices.Chunk([]byte(text), 255) {
			rr.Txt = append(rr.Txt, txtEscaper.Replace(string(chunk)))
		}
		if text == "" {
			rr.Txt = []string{""}
		}
		s.add(name, dns.TypeTXT, rr)
	}
}

// TLSA adds a record of RFC 6698 to a name such as "_25._tcp.mx.example".
func (s *Server) TLSA(name string, usage, selector, matching uint8, data []byte) {
	s.add(name, dns.TypeTLSA, &dns.TLSA{Usage: usage, Selector: selector, MatchingType: matching, Certificate: hex.EncodeToString(data)})
}

// Secure says that the answers for these names validate.
func (s *Server) Secure(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range names {
		s.secure[canonical(name)] = true
	}
}

var txtEscaper = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// CNAME makes name an alias. Chains that loop are possible: an answer follows
// at most 16 links.
func (s *Server) CNAME(name, target string) {
	s.add(name, dns.TypeCNAME, &dns.CNAME{Target: dns.Fqdn(target)})
}

// Fail makes every query for name end with a response code or Drop.
func (s *Server) Fail(name string, rcode int) { s.FailType(name, "ANY", rcode) }

// FailType is Fail for the queries of one type, such as "AAAA".
func (s *Server) FailType(name, qtype string, rcode int) {
	s.change(name, func(e *entry) { e.fail[typeOf(qtype)] = rcode })
}

// Truncate makes answers for name over UDP empty, with the TC bit.
func (s *Server) Truncate(name string) { s.change(name, func(e *entry) { e.truncate = true }) }

// Delay holds answers for name back.
func (s *Server) Delay(name string, d time.Duration) {
	s.change(name, func(e *entry) { e.delay = d })
}

// Handle gives the queries for name to h, which may answer anything.
func (s *Server) Handle(name string, h dns.HandlerFunc) {
	s.change(name, func(e *entry) { e.handler = h })
}

// Remove forgets everything about name but its counts.
func (s *Server) Remove(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, canonical(name))
	delete(s.secure, canonical(name))
}

// SetDefault answers for every name that is not set: its MX is host with
// preference 10 (none when host is ""), its addresses are ips.
func (s *Server) SetDefault(host string, ips ...string) {
	e := newEntry()
	if host != "" {
		e.records[dns.TypeMX] = []dns.RR{&dns.MX{Preference: 10, Mx: dns.Fqdn(host)}}
	}
	for _, ip := range ips {
		a := netip.MustParseAddr(ip)
		if a.Is4() {
			e.records[dns.TypeA] = append(e.records[dns.TypeA], &dns.A{A: a.AsSlice()})
		} else {
			e.records[dns.TypeAAAA] = append(e.records[dns.TypeAAAA], &dns.AAAA{AAAA: a.AsSlice()})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for qtype, rrs := range e.records {
		for _, rr := range rrs {
			*rr.Header() = dns.RR_Header{Rrtype: qtype, Class: dns.ClassINET, Ttl: s.ttl}
		}
	}
	s.fallback = e
}

// SetTTL is the TTL, in seconds, of records added from now on, and of negative
// answers. Both begin at 60.
func (s *Server) SetTTL(positive, negative uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ttl, s.negativeTTL = positive, negative
}

// Count returns how many queries came for a name and a type such as "MX",
// answered or not.
func (s *Server) Count(name, qtype string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.counts[key{canonical(name), typeOf(qtype)}]
}

// Queries returns how many queries came in all.
func (s *Server) Queries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

func (s *Server) add(name string, qtype uint16, rr dns.RR) {
	s.change(name, func(e *entry) {
		*rr.Header() = dns.RR_Header{Name: canonical(name), Rrtype: qtype, Class: dns.ClassINET, Ttl: s.ttl}
		e.records[qtype] = append(slices.Clone(e.records[qtype]), rr)
	})
}

func (s *Server) change(name string, f func(*entry)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.names[canonical(name)]
	if e == nil {
		e = newEntry()
		s.names[canonical(name)] = e
	}
	f(e)
}

func newEntry() *entry {
	return &entry{records: map[uint16][]dns.RR{}, fail: map[uint16]int{}}
}

func canonical(name string) string { return dns.CanonicalName(name) }

func typeOf(name string) uint16 {
	t, ok := dns.StringToType[strings.ToUpper(name)]
	if !ok {
		panic("dnstest: unknown type " + name)
	}
	return t
}
