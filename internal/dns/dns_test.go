package dns

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"tarishi/internal/test/dnstest"
)

// start returns a server and a Resolver that asks it.
func start(t *testing.T) (*dnstest.Server, *Resolver) {
	t.Helper()
	s := dnstest.New(t)
	return s, newResolver(t, Settings{Servers: []string{s.Addr()}, Timeout: time.Minute, Tries: 1})
}

func newResolver(t *testing.T, c Settings) *Resolver {
	t.Helper()
	r, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// kindOf names what err says: "ok", "NXDOMAIN", "NODATA", "temporary failure".
func kindOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %T %v is no *Error", err, err)
	}
	if IsNXDomain(err) != (e.Kind == NXDomain) || IsNoData(err) != (e.Kind == NoData) {
		t.Errorf("IsNXDomain, IsNoData disagree with %v", err)
	}
	return e.Kind.String()
}

func TestMX(t *testing.T) {
	s, r := start(t)
	s.MX("sorted.example", 30, "c.example")
	s.MX("sorted.example", 10, "A.Example")
	s.MX("sorted.example", 20, "b.example")
	s.MX("sorted.example", 40, "a.example")
	s.MX("null.example", 0, ".")
	s.MX("null-beside.example", 0, ".")
	s.MX("null-beside.example", 5, "mx.example")
	s.MX("literal.example", 5, "192.0.2.1")
	s.MX("literal.example", 7, "-bad.example")
	s.MX("literal.example", 10, "good.example")
	s.MX("unusable.example", 5, "a b.example")
	s.MX("unusable.example", 7, "0.0.0.0")
	s.MX("unusable.example", 8, "224.0.0.1")
	s.MX("unusable.example", 9, "[::]")
	s.MX("unusable.example", 10, "fe80::1%eth0")
	s.MX("addresses.example", 1, "192.0.2.1")
	s.MX("addresses.example", 2, "2001:DB8::1")
	s.MX("addresses.example", 3, "[192.0.2.2]")
	s.MX("addresses.example", 4, "[2001:db8::2]")
	s.MX("addresses.example", 5, "[IPv6:2001:db8:0::3]")
	s.MX("addresses.example", 6, "::ffff:192.0.2.3")
	s.MX("addresses.example", 7, "[192.0.2.1]")
	s.MX("xn--bcher-kva.example", 5, "mx.example")
	s.A("address-only.example", "192.0.2.1")
	s.CNAME("alias.example", "sorted.example")
	s.CNAME("dangling.example", "nowhere.example")
	s.CNAME("no-mx.example", "address-only.example")
	s.CNAME("loop1.example", "loop2.example")
	s.CNAME("loop2.example", "loop1.example")
	s.CNAME("self.example", "self.example")
	sorted := []MX{
		{Host: "a.example", Preference: 10, Domain: "sorted.example"},
		{Host: "b.example", Preference: 20, Domain: "sorted.example"},
		{Host: "c.example", Preference: 30, Domain: "sorted.example"},
	}
	tests := []struct {
		domain string
		want   []MX
		kind   string
	}{
		{"sorted.example", sorted, "ok"},
		{"SORTED.example.", sorted, "ok"},
		{"alias.example", sorted, "ok"},
		{"null.example", []MX{{Host: "", Preference: 0, Domain: "null.example"}}, "ok"},
		{"null-beside.example", []MX{{Host: "mx.example", Preference: 5, Domain: "null-beside.example"}}, "ok"},
		{"literal.example", []MX{
			{Host: "192.0.2.1", Preference: 5, Domain: "literal.example"}, {Host: "good.example", Preference: 10, Domain: "literal.example"},
		}, "ok"},
		{"addresses.example", []MX{
			{Host: "192.0.2.1", Preference: 1, Domain: "addresses.example"},
			{Host: "2001:db8::1", Preference: 2, Domain: "addresses.example"},
			{Host: "192.0.2.2", Preference: 3, Domain: "addresses.example"},
			{Host: "2001:db8::2", Preference: 4, Domain: "addresses.example"},
			{Host: "2001:db8::3", Preference: 5, Domain: "addresses.example"},
			{Host: "192.0.2.3", Preference: 6, Domain: "addresses.example"},
		}, "ok"},
		{"bücher.example", []MX{{Host: "mx.example", Preference: 5, Domain: "xn--bcher-kva.example"}}, "ok"},
		{"unusable.example", nil, "temporary failure"},
		{"address-only.example", nil, "NODATA"},
		{"no-mx.example", nil, "NODATA"},
		{"nothing.example", nil, "NXDOMAIN"},
		{"dangling.example", nil, "NXDOMAIN"},
		{"loop1.example", nil, "temporary failure"},
		{"self.example", nil, "temporary failure"},
		{"", nil, "NXDOMAIN"},
		{"a..example", nil, "NXDOMAIN"},
		{strings.Repeat("a", 64) + ".example", nil, "NXDOMAIN"},
		{strings.Repeat("abcdefg.", 32) + "example", nil, "NXDOMAIN"},
		{"[192.0.2.1]", nil, "temporary failure"},
		{"a b.example", nil, "temporary failure"},
		{`a\.example`, nil, "temporary failure"},
		{"a\x00.example", nil, "temporary failure"},
	}
	for _, tt := range tests {
		mx, err := r.MX(t.Context(), tt.domain)
		if kind := kindOf(t, err); kind != tt.kind || !slices.Equal(mx, tt.want) {
			t.Errorf("MX(%q) = %v, %v, want %v, %s", tt.domain, mx, err, tt.want, tt.kind)
		}
	}
}

func TestAddrs(t *testing.T) {
	s, r := start(t)
	s.A("both.example", "192.0.2.1", "192.0.2.2", "192.0.2.1")
	s.AAAA("both.example", "2001:db8::1")
	s.A("v4.example", "192.0.2.1")
	s.A("half.example", "192.0.2.1")
	s.FailType("half.example", "AAAA", dnstest.ServFail)
	s.TXT("none.example", "x")
	s.TXT("half-none.example", "x")
	s.FailType("half-none.example", "A", dnstest.Refused)
	s.AAAA("mapped.example", "::ffff:127.0.0.1")
	s.A("odd.example", "0.0.0.0", "224.0.0.1")
	s.AAAA("odd.example", "::")
	s.TXT("half-gone.example", "x")
	s.FailType("half-gone.example", "A", dnstest.NXDomain)
	tests := []struct{ host, want, kind string }{
		{"both.example", "2001:db8::1 192.0.2.1 192.0.2.2", "ok"},
		{"v4.example", "192.0.2.1", "ok"},
		{"half.example", "192.0.2.1", "ok"},
		{"mapped.example", "127.0.0.1", "ok"},
		{"odd.example", "", "temporary failure"},
		{"none.example", "", "NODATA"},
		{"half-none.example", "", "temporary failure"},
		{"half-gone.example", "", "NODATA"},
		{"nothing.example", "", "NXDOMAIN"},
	}
	for _, tt := range tests {
		addrs, err := r.Addrs(t.Context(), tt.host)
		slices.SortFunc(addrs, func(a, b netip.Addr) int { return cmp.Or(-cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b)) })
		if kind := kindOf(t, err); kind != tt.kind || join(addrs) != tt.want {
			t.Errorf("Addrs(%q) = %v, %v, want %v, %s", tt.host, addrs, err, tt.want, tt.kind)
		}
	}
}

// TestIPv4: only A records are asked for, and come in their order.
func TestIPv4(t *testing.T) {
	s, r := start(t)
	s.A("both.example", "127.0.0.4", "127.0.0.2")
	s.FailType("both.example", "AAAA", dnstest.ServFail)
	s.AAAA("v6.example", "2001:db8::1")
	for name, want := range map[string]string{"both.example": "127.0.0.4 127.0.0.2 ok", "v6.example": " NODATA", "none.example": " NXDOMAIN"} {
		addrs, err := r.IPv4(t.Context(), name)
		if got := join(addrs) + " " + kindOf(t, err); got != want || s.Count(name, "AAAA") > 0 {
			t.Errorf("IPv4(%q): %s, want %s; %d queries for AAAA", name, got, want, s.Count(name, "AAAA"))
		}
	}
}

func join(addrs []netip.Addr) string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.String())
	}
	return strings.Join(all, " ")
}

// TestSpread: an answer from the cache does not send everybody to its first
// address; that of a configured host does.
func TestSpread(t *testing.T) {
	s, r := start(t)
	s.A("several.example", "192.0.2.1", "192.0.2.2")
	s.AAAA("several.example", "2001:db8::1", "2001:db8::2")
	seen := map[string]bool{}
	for range 200 { // one of the four orders is missing once in 10^24 times
		addrs, err := r.Addrs(t.Context(), "several.example")
		if err != nil {
			t.Fatal(err)
		}
		seen[join(addrs)] = true
	}
	for _, v6 := range []string{"2001:db8::1 2001:db8::2", "2001:db8::2 2001:db8::1"} {
		for _, v4 := range []string{"192.0.2.1 192.0.2.2", "192.0.2.2 192.0.2.1"} {
			if order := v6 + " " + v4; !seen[order] || len(seen) != 4 {
				t.Errorf("never %s: %v", order, seen)
			}
		}
	}
	if n := s.Count("several.example", "A") + s.Count("several.example", "AAAA"); n != 2 {
		t.Errorf("%d queries", n)
	}
	for range 20 {
		if addrs, err := r.Host(t.Context(), "several.example"); join(addrs) != "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2" {
			t.Fatalf("Host: %v, %v", addrs, err)
		}
	}
}

func TestPTRAndTXT(t *testing.T) {
	s, r := start(t)
	s.PTR("192.0.2.1", "Host.Example")
	s.PTR("2001:db8::1", "six.example")
	s.PTR("192.0.2.2", "evil\\010host.example", "ok.example")
	s.PTR("192.0.2.3", "evil\\010host.example")
	raw := `quote " back\slash ` + "\x00\xff" + strings.Repeat("x", 600)
	s.TXT("txt.example", "v=spf1 -all", raw, "")
	for _, tt := range []struct{ ip, want, kind string }{
		{"192.0.2.1", "host.example", "ok"},
		{"::ffff:192.0.2.1", "host.example", "ok"},
		{"2001:db8::1", "six.example", "ok"},
		{"192.0.2.2", "ok.example", "ok"},
		{"192.0.2.3", "", "temporary failure"},
		{"192.0.2.9", "", "NXDOMAIN"},
	} {
		names, err := r.PTR(t.Context(), netip.MustParseAddr(tt.ip))
		if kind := kindOf(t, err); kind != tt.kind || strings.Join(names, " ") != tt.want {
			t.Errorf("PTR(%s) = %v, %v, want %v, %s", tt.ip, names, err, tt.want, tt.kind)
		}
	}
	if _, err := r.PTR(t.Context(), netip.Addr{}); kindOf(t, err) != "temporary failure" {
		t.Errorf("PTR of the zero address: %v", err)
	}
	if texts, known, err := r.KnownTXT("TXT.example"); known || texts != nil || err != nil {
		t.Errorf("KnownTXT before the first answer: %q, %v, %v", texts, known, err)
	}
	got, err := r.TXT(t.Context(), "txt.example")
	if texts, known, err := r.KnownTXT("TXT.example"); !known || err != nil || !slices.Equal(texts, got) {
		t.Errorf("KnownTXT = %q, %v, %v", texts, known, err)
	}
	_, _ = r.TXT(t.Context(), "none.example")
	if _, known, err := r.KnownTXT("none.example"); !known || kindOf(t, err) != "NXDOMAIN" {
		t.Errorf("KnownTXT of no name: %v, %v", known, err)
	}
	if _, known, err := r.KnownTXT("bad..name"); known || err != nil {
		t.Errorf("KnownTXT of a bad name: %v, %v", known, err)
	}
	if err != nil || !slices.Equal(got, []string{"v=spf1 -all", raw, ""}) {
		t.Errorf("TXT = %q, %v", got, err)
	}
}

func TestRcodes(t *testing.T) {
	s, r := start(t)
	for rcode, want := range map[int]string{
		dnstest.FormErr: "temporary failure", dnstest.ServFail: "temporary failure", dnstest.Refused: "temporary failure",
		dnstest.NotImp: "temporary failure", dnstest.NXDomain: "NXDOMAIN", dns.RcodeNotAuth: "temporary failure", 11: "temporary failure",
	} {
		name := fmt.Sprintf("rcode%d.example", rcode)
		s.MX(name, 1, "mx.example")
		s.Fail(name, rcode)
		if _, err := r.MX(t.Context(), name); kindOf(t, err) != want {
			t.Errorf("rcode %d: %v, want %s", rcode, err, want)
		}
	}
}

// TestAnswers gives answers that are wrong in one way each.
func TestAnswers(t *testing.T) {
	s, r := start(t)
	short := newResolver(t, Settings{Servers: []string{s.Addr()}, Timeout: 200 * time.Millisecond, Tries: 1})
	record := func(name, rdata string) dns.RR {
		rr, err := dns.NewRR(name + ". 60 IN " + rdata)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	tests := []struct {
		name string
		h    func(m *dns.Msg)
		want string
	}{
		{"good", func(m *dns.Msg) { m.Answer = []dns.RR{record("good.example", "MX 1 mx.example.")} }, "ok"},
		{"other-id", func(m *dns.Msg) { m.Id++ }, "temporary failure"},
		{"other-question", func(m *dns.Msg) { m.Question[0].Name = "x.example." }, "temporary failure"},
		{"other-type", func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA }, "temporary failure"},
		{"other-class", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "temporary failure"},
		{"no-question", func(m *dns.Msg) { m.Question = nil }, "temporary failure"},
		{"no-question-nx", func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeNameError }, "temporary failure"},
		{"no-question-fail", func(m *dns.Msg) { m.Question, m.Rcode = nil, dns.RcodeServerFailure }, "temporary failure"},
		{"query-bit", func(m *dns.Msg) { m.Response = false }, "temporary failure"},
		{"opcode", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "temporary failure"},
		{"other-owner", func(m *dns.Msg) { m.Answer = []dns.RR{record("x.example", "MX 1 mx.example.")} }, "temporary failure"},
		{"other-record", func(m *dns.Msg) { m.Answer = []dns.RR{record("other-record.example", "A 192.0.2.1")} }, "NODATA"},
		{"other-owner-soa", func(m *dns.Msg) {
			m.Answer = []dns.RR{record("x.example", "MX 1 mx.example.")}
			m.Ns = []dns.RR{record("example", "SOA ns.example. h.example. 1 2 3 4 5")}
		}, "NODATA"},
		{"lame", func(m *dns.Msg) { m.RecursionAvailable = false }, "temporary failure"},
		{"authoritative", func(m *dns.Msg) { m.RecursionAvailable, m.Authoritative = false, true }, "NODATA"},
		{"referral", func(m *dns.Msg) { m.Ns = []dns.RR{record("example", "NS ns.example.")} }, "temporary failure"},
		{"referral-soa", func(m *dns.Msg) {
			m.Ns = []dns.RR{record("example", "NS ns.example."), record("example", "SOA ns.example. h.example. 1 2 3 4 5")}
		}, "NODATA"},
		{"chaos-record", func(m *dns.Msg) {
			rr := record("chaos-record.example", "MX 1 mx.example.")
			rr.Header().Class = dns.ClassCHAOS
			m.Answer = []dns.RR{rr}
		}, "temporary failure"},
		{"chain-reversed", func(m *dns.Msg) {
			m.Answer = []dns.RR{record("b.example", "MX 1 mx.example."), record("a.example", "CNAME b.example."), record("Chain-Reversed.example", "CNAME A.example.")}
		}, "ok"},
		{"glue", func(m *dns.Msg) { m.Extra = append(m.Extra, record("glue.example", "MX 1 mx.example.")) }, "NODATA"},
	}
	for _, tt := range tests {
		s.Handle(tt.name+".example", func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.RecursionAvailable = true
			tt.h(m)
			w.WriteMsg(m)
		})
	}
	var all sync.WaitGroup
	for _, tt := range tests {
		all.Go(func() {
			r := r
			if tt.want == "temporary failure" {
				r = short // most of them are never accepted
			}
			if _, err := r.MX(t.Context(), tt.name+".example"); kindOf(t, err) != tt.want {
				t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
			}
		})
	}
	all.Wait()
}

// TestCut cuts a good answer at every length: no part of it may pass for an
// answer, above all not for NODATA.
func TestCut(t *testing.T) {
	m := new(dns.Msg).SetQuestion("cut.example.", dns.TypeMX)
	query := m.Copy()
	m.Response, m.RecursionAvailable = true, true
	rr, _ := dns.NewRR("cut.example. 60 IN MX 1 mx.example.")
	m.Answer = []dns.RR{rr}
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(b) {
		if m, err := parse(b[:n]); err == nil && answers(m, query) {
			t.Errorf("the first %d of %d bytes pass as %v", n, len(b), m)
		}
	}
	if m, err := parse(b); err != nil || !answers(m, query) {
		t.Errorf("the whole: %v", err)
	}
}

// TestStray sends wrong answers first; the right one must still be taken.
func TestStray(t *testing.T) {
	s, r := start(t)
	s.Handle("stray.example", func(w dns.ResponseWriter, q *dns.Msg) {
		w.Write([]byte{1})
		wrong := new(dns.Msg).SetReply(q)
		wrong.Id++
		wrong.Rcode = dns.RcodeNameError
		w.WriteMsg(wrong)
		wrong = new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		wrong.Question[0].Name = "other.example."
		w.WriteMsg(wrong)
		right := new(dns.Msg).SetReply(q)
		right.Question[0].Name = "STRAY.example."
		right.Answer = []dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: "stray.EXAMPLE.", Rrtype: dns.TypeMX, Class: 1, Ttl: 9}, Mx: "mx.example."}}
		w.WriteMsg(right)
	})
	if mx, err := r.MX(t.Context(), "stray.example"); err != nil || len(mx) != 1 {
		t.Errorf("%v, %v", mx, err)
	}
}

func TestTruncated(t *testing.T) {
	s, r := start(t)
	s.MX("tc.example", 1, "mx.example")
	s.Truncate("tc.example")
	s.TXT("big.example", strings.Repeat("b", 5000))
	if mx, err := r.MX(t.Context(), "tc.example"); err != nil || len(mx) != 1 {
		t.Errorf("TC: %v, %v", mx, err)
	}
	if n := s.Count("tc.example", "MX"); n != 2 {
		t.Errorf("%d queries, want one of each transport", n)
	}
	if txt, err := r.TXT(t.Context(), "big.example"); err != nil || len(txt) != 1 || len(txt[0]) != 5000 {
		t.Errorf("big: %d, %v", len(txt), err)
	}
	s.Handle("always.example", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		w.WriteMsg(m)
	})
	if _, err := r.MX(t.Context(), "always.example"); kindOf(t, err) != "temporary failure" {
		t.Errorf("TC over TCP: %v", err)
	}
}

// TestHeaderOnly is cut down to the header, as some firewalls do it.
func TestHeaderOnly(t *testing.T) {
	s, r := start(t)
	s.Handle("header.example", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if w.LocalAddr().Network() == "udp" {
			m.Truncated, m.Question = true, nil
		} else {
			m.Answer = []dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: "header.example.", Rrtype: dns.TypeMX, Class: 1, Ttl: 9}, Mx: "mx.example."}}
		}
		w.WriteMsg(m)
	})
	if mx, err := r.MX(t.Context(), "header.example"); err != nil || len(mx) != 1 {
		t.Errorf("%v, %v", mx, err)
	}
}

func TestWithoutEDNS(t *testing.T) {
	s, r := start(t)
	s.Handle("old.example", func(w dns.ResponseWriter, q *dns.Msg) {
		if q.IsEdns0() != nil {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeFormatError))
			return
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: "old.example.", Rrtype: dns.TypeMX, Class: 1, Ttl: 9}, Mx: "mx.example."}}
		w.WriteMsg(m)
	})
	if mx, err := r.MX(t.Context(), "old.example"); err != nil || len(mx) != 1 {
		t.Errorf("%v, %v", mx, err)
	}
}

// TestChains follows aliases by one query per link.
func TestChains(t *testing.T) {
	s, r := start(t)
	link := func(w dns.ResponseWriter, q *dns.Msg) {
		var n int
		fmt.Sscanf(q.Question[0].Name, "link%d.", &n)
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		hdr := dns.RR_Header{Name: q.Question[0].Name, Class: dns.ClassINET, Ttl: 60}
		if n == 0 {
			hdr.Rrtype = dns.TypeMX
			m.Answer = []dns.RR{&dns.MX{Hdr: hdr, Mx: "mx.example."}}
		} else {
			hdr.Rrtype = dns.TypeCNAME
			m.Answer = []dns.RR{&dns.CNAME{Hdr: hdr, Target: fmt.Sprintf("link%d.example.", n-1)}}
		}
		w.WriteMsg(m)
	}
	for n := range 10 {
		s.Handle(fmt.Sprintf("link%d.example", n), link)
	}
	if _, err := r.MX(t.Context(), "link8.example"); err != nil {
		t.Errorf("8 links: %v", err)
	}
	if _, err := r.MX(t.Context(), "link9.example"); kindOf(t, err) != "temporary failure" {
		t.Errorf("9 links: %v", err)
	}
}

func TestHostile(t *testing.T) {
	s, r := start(t)
	for i := range 1000 {
		s.MX("many.example", 1000-i, fmt.Sprintf("mx%d.many.example", i))
		s.A("many.example", fmt.Sprintf("10.0.%d.%d", i/250, i%250))
		s.AAAA("many.example", fmt.Sprintf("2001:db8::%x", i+1))
		s.PTR("192.0.2.1", fmt.Sprintf("p%d.example", i))
	}
	for range 60 {
		s.TXT("many.example", strings.Repeat("t", 1024))
	}
	if mx, err := r.MX(t.Context(), "many.example"); err != nil || len(mx) != maxMX || mx[0].Preference != 1 {
		t.Errorf("MX: %d, %v", len(mx), err)
	}
	if addrs, err := r.Addrs(t.Context(), "many.example"); err != nil || len(addrs) != 2*maxAddrs {
		t.Errorf("Addrs: %d, %v", len(addrs), err)
	}
	if names, err := r.PTR(t.Context(), netip.MustParseAddr("192.0.2.1")); err != nil || len(names) != maxNames {
		t.Errorf("PTR: %d, %v", len(names), err)
	}
	txt, err := r.TXT(t.Context(), "many.example")
	if n := len(strings.Join(txt, "")); err != nil || n > maxText || n < maxText/2 {
		t.Errorf("TXT: %d bytes, %v", n, err)
	}
}

func TestCache(t *testing.T) {
	s, r := start(t)
	now := time.Now()
	r.now = func() time.Time { return now }
	s.SetTTL(60, 30)
	s.MX("positive.example", 1, "mx.example")
	s.SetTTL(0, 30)
	s.MX("zero.example", 1, "mx.example")
	s.SetTTL(1<<30, 30)
	s.MX("ages.example", 1, "mx.example")
	s.Fail("broken.example", dnstest.ServFail)
	s.Handle("alias.example", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetRcode(q, dns.RcodeNameError)
		m.Answer = []dns.RR{&dns.CNAME{Hdr: dns.RR_Header{Name: "alias.example.", Rrtype: dns.TypeCNAME, Class: 1, Ttl: 10}, Target: "gone.example."}}
		m.Ns = []dns.RR{&dns.SOA{Hdr: dns.RR_Header{Name: "example.", Rrtype: dns.TypeSOA, Class: 1, Ttl: 60}, Ns: "ns.example.", Mbox: "h.example.", Minttl: 60}}
		w.WriteMsg(m)
	})
	s.Handle("no-soa.example", func(w dns.ResponseWriter, q *dns.Msg) {
		w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
	})
	s.Handle("no-data.example", func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		w.WriteMsg(m)
	})
	tests := []struct {
		domain string
		holds  time.Duration
	}{
		{"no-data.example", minTTL},
		{"positive.example", time.Minute},
		{"zero.example", minTTL},
		{"ages.example", maxTTL},
		{"absent.example", 30 * time.Second},
		{"alias.example", 10 * time.Second}, // the alias holds no longer
		{"broken.example", 0},
		{"no-soa.example", 0},
	}
	begin := now
	for _, tt := range tests {
		want := 1
		ask := func(at time.Duration) {
			t.Helper()
			now = begin.Add(at)
			r.MX(t.Context(), tt.domain)
			if n := s.Count(tt.domain, "MX"); n != want {
				t.Errorf("%s after %v: %d queries, want %d", tt.domain, at, n, want)
			}
		}
		ask(0)
		if tt.holds > 0 {
			ask(tt.holds - 1)
		}
		want++
		ask(tt.holds)
	}
}

// TestNegativeWithoutSOA: what each message to a domain asks for is held for some
// seconds though the answer does not say that it may be.
func TestNegativeWithoutSOA(t *testing.T) {
	for _, rcode := range []int{dns.RcodeSuccess, dns.RcodeNameError} {
		s := dnstest.New(t)
		for _, name := range []string{"_mta-sts.d.example", "_25._tcp.mx.d.example", "mx.d.example"} {
			s.Handle(name, func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetRcode(q, rcode)
				m.RecursionAvailable = true
				w.WriteMsg(m)
			})
		}
		r := newResolver(t, Settings{Servers: []string{s.Addr()}, DNSSEC: true})
		now := time.Now()
		r.now = func() time.Time { return now }
		want := 0
		for _, pass := range []time.Duration{0, minTTL - 1, 1} {
			if now = now.Add(pass); pass != minTTL-1 {
				want++
			}
			if _, err := r.TXT(t.Context(), "_mta-sts.d.example"); !IsNoData(err) && !IsNXDomain(err) {
				t.Error(err)
			}
			if _, err := r.TLSA(t.Context(), "_25._tcp.mx.d.example"); !IsNoData(err) && !IsNXDomain(err) {
				t.Error(err)
			}
			if txt, tlsa := s.Count("_mta-sts.d.example", "TXT"), s.Count("_25._tcp.mx.d.example", "TLSA"); txt != want || tlsa != want {
				t.Errorf("code %d, %v later: %d and %d queries, not %d", rcode, pass, txt, tlsa, want)
			}
		}
	}
}

// TestTooManyTLSA: which of them matches is not known, so that none may be left out.
func TestTooManyTLSA(t *testing.T) {
	s := dnstest.New(t)
	r := newResolver(t, Settings{Servers: []string{s.Addr()}, DNSSEC: true})
	for _, n := range []int{maxTLSA, maxTLSA + 1, 300} {
		name := fmt.Sprintf("_25._tcp.mx%d.example", n)
		for i := range n {
			s.TLSA(name, 3, 1, 1, binary.BigEndian.AppendUint32(make([]byte, 28), uint32(i)))
		}
		s.Secure(name)
		records, err := r.TLSA(t.Context(), name)
		if n <= maxTLSA && (err != nil || len(records) != n) || n > maxTLSA && (err == nil || IsNoData(err) || IsNXDomain(err)) {
			t.Errorf("%d: %d, %v", n, len(records), err)
		}
	}
}

// TestCacheIsOurs changes what a lookup returned.
func TestCacheIsOurs(t *testing.T) {
	s, r := start(t)
	s.MX("d.example", 1, "mx.example")
	mx, _ := r.MX(t.Context(), "d.example")
	mx[0].Host = "changed"
	if mx, _ = r.MX(t.Context(), "d.example"); mx[0].Host != "mx.example" {
		t.Errorf("a caller changed the cache: %v", mx)
	}
}

func TestCacheBounds(t *testing.T) {
	var c cache
	now := time.Now()
	hot := question{"hot.", 1}
	c.put(hot, &answer{ttl: time.Hour}, now)
	for i := range 20 * generationEntries {
		c.put(question{fmt.Sprint(i), 1}, &answer{ttl: time.Hour}, now)
		if i%100 == 0 && c.get(hot, now) == nil {
			t.Fatalf("an entry in use was forgotten at %d", i)
		}
		if n := len(c.young) + len(c.old); n > 2*generationEntries {
			t.Fatalf("%d entries", n)
		}
	}
	c = cache{}
	for i := range 1000 {
		c.put(question{fmt.Sprint(i), 1}, &answer{ttl: time.Hour, text: []string{strings.Repeat("x", 60<<10)}}, now)
		if n := len(c.young) + len(c.old); n > 2*generationBytes/(60<<10) {
			t.Fatalf("%d entries of 60 KiB", n)
		}
	}
	if c.get(question{"999", 1}, now.Add(time.Hour)) != nil {
		t.Error("an old entry was returned")
	}
}

// TestFlights asks the same many times while the answer is held back.
func TestFlights(t *testing.T) {
	s, r := start(t)
	asked, release := make(chan struct{}, 10), make(chan struct{})
	s.Handle("slow.example", func(w dns.ResponseWriter, q *dns.Msg) {
		asked <- struct{}{}
		<-release
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.MX{Hdr: dns.RR_Header{Name: "slow.example.", Rrtype: dns.TypeMX, Class: 1, Ttl: 60}, Mx: "mx.example."}}
		w.WriteMsg(m)
	})
	first, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.MX(first, "slow.example")
		left <- err
	}()
	<-asked
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if mx, err := r.MX(t.Context(), "slow.example"); err != nil || len(mx) != 1 {
				t.Errorf("one who waited: %v, %v", mx, err)
			}
		})
	}
	waitFor(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		f := r.flights[question{"slow.example.", dns.TypeMX}]
		return f != nil && f.waiters == 21
	})
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) || kindOf(t, err) != "temporary failure" {
		t.Errorf("one who left: %v", err)
	}
	close(release)
	all.Wait()
	if n := s.Count("slow.example", "MX"); n != 1 {
		t.Errorf("%d queries", n)
	}
}

// TestLastLeaves cancels the only caller: the flight ends with it, and the next
// caller gets a flight of its own.
func TestLastLeaves(t *testing.T) {
	s, r := start(t)
	r.timeout = time.Hour
	s.MX("gone.example", 1, "mx.example")
	s.Fail("gone.example", dnstest.Drop)
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := r.MX(ctx, "gone.example")
		left <- err
	}()
	waitFor(t, func() bool { return s.Count("gone.example", "MX") == 1 })
	r.mu.Lock()
	f := r.flights[question{"gone.example.", dns.TypeMX}]
	r.mu.Unlock()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-f.done
	s.Remove("gone.example")
	if _, err := r.MX(t.Context(), "gone.example"); !IsNXDomain(err) {
		t.Errorf("the next caller: %v", err)
	}
	if _, err := r.MX(ctx, "other.example"); !errors.Is(err, context.Canceled) || s.Count("other.example", "MX") != 0 {
		t.Errorf("cancelled before: %v", err)
	}
}

func waitFor(t *testing.T, ready func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ready(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain")
		}
	}
}

func TestServersInOrder(t *testing.T) {
	one, two := dnstest.New(t), dnstest.New(t)
	r := newResolver(t, Settings{Servers: []string{one.Addr(), two.Addr()}, Timeout: time.Minute, Tries: 2})
	for _, s := range []*dnstest.Server{one, two} {
		s.MX("fine.example", 1, "mx.example")
		s.MX("broken.example", 1, "mx.example")
		s.Fail("lost.example", dnstest.Drop)
	}
	one.Fail("broken.example", dnstest.ServFail)
	for _, tt := range []struct {
		domain, kind string
		one, two     int
	}{
		{"fine.example", "ok", 1, 0},
		{"broken.example", "ok", 1, 1},
		{"absent.example", "NXDOMAIN", 1, 0},
		{"lost.example", "temporary failure", 2, 2},
	} {
		if tt.domain == "lost.example" {
			r.timeout = 100 * time.Millisecond
		}
		_, err := r.MX(t.Context(), tt.domain)
		// A question that got no answer in time may not have been read yet.
		waitFor(t, func() bool { return one.Count(tt.domain, "MX") >= tt.one && two.Count(tt.domain, "MX") >= tt.two })
		if kindOf(t, err) != tt.kind || one.Count(tt.domain, "MX") != tt.one || two.Count(tt.domain, "MX") != tt.two {
			t.Errorf("%s: %v, %d and %d queries", tt.domain, err, one.Count(tt.domain, "MX"), two.Count(tt.domain, "MX"))
		}
	}
	two.Close()
	one.Close()
	if _, err := r.MX(t.Context(), "unreachable.example"); kindOf(t, err) != "temporary failure" {
		t.Errorf("no server: %v", err)
	}
}

// TestSilentServer asks a server that does not answer after the others, until it
// answers again.
func TestSilentServer(t *testing.T) {
	t.Parallel()
	one, two := dnstest.New(t), dnstest.New(t)
	for _, s := range []*dnstest.Server{one, two} {
		for i := range 7 {
			s.MX(fmt.Sprintf("%d.example", i), 1, "mx.example")
		}
	}
	now := time.Now()
	r := newResolver(t, Settings{Servers: []string{one.Addr(), two.Addr()}, Tries: 1})
	r.now = func() time.Time { return now }
	one.Fail("2.example", dnstest.ServFail)
	two.Fail("5.example", dnstest.ServFail)
	for i, tt := range []struct {
		after    time.Duration
		drop     bool
		one, two int
	}{
		0: {drop: true, one: 1, two: 1},     // found silent
		1: {two: 1},                         // not waited for
		2: {after: askLast, one: 1, two: 1}, // it answers, if only with SERVFAIL
		3: {drop: true, one: 1, two: 1},     // so it is the first again, and silent again
		4: {two: 1},
		5: {one: 1, two: 1}, // the last one is still asked when the others have failed
		6: {one: 1},
	} {
		now = now.Add(tt.after)
		r.timeout = time.Minute
		if tt.drop {
			r.timeout = 2 * time.Second
			one.Fail(fmt.Sprintf("%d.example", i), dnstest.Drop)
		}
		name := fmt.Sprintf("%d.example", i)
		if _, err := r.MX(t.Context(), name); err != nil || one.Count(name, "MX") != tt.one || two.Count(name, "MX") != tt.two {
			t.Errorf("%d: %v, %d and %d queries, want %d and %d", i, err, one.Count(name, "MX"), two.Count(name, "MX"), tt.one, tt.two)
		}
	}
}

// TestOneProbe: of a server that was silent one query only finds out whether it
// answers again.
func TestOneProbe(t *testing.T) {
	r := newResolver(t, Settings{Servers: []string{"192.0.2.1", "192.0.2.2"}})
	now := time.Now()
	r.now = func() time.Time { return now }
	r.heard("192.0.2.1:53", now, context.DeadlineExceeded)
	now = now.Add(askLast)
	if first, second := r.order()[0], r.order()[0]; first != "192.0.2.1:53" || second != "192.0.2.2:53" {
		t.Errorf("asks %s, then %s", first, second)
	}
	r.heard("192.0.2.1:53", now, errMalformed)
	if s := r.order()[0]; s != "192.0.2.1:53" {
		t.Errorf("asks %s", s)
	}
}

// A server that answers other queries, or UDP and not TCP, is not silent; a query
// that was given up says nothing.
func TestNotSilent(t *testing.T) {
	t.Parallel()
	one, two := dnstest.New(t), dnstest.New(t)
	r := newResolver(t, Settings{Servers: []string{one.Addr(), two.Addr()}, Tries: 1, Timeout: 5 * time.Second})
	for _, s := range []*dnstest.Server{one, two} {
		s.MX("slow.example", 1, "mx.example")
		s.MX("quick.example", 1, "mx.example")
	}
	one.Fail("slow.example", dnstest.Drop)
	slow := make(chan error, 1)
	go func() {
		_, err := r.MX(t.Context(), "slow.example")
		slow <- err
	}()
	waitFor(t, func() bool { return one.Count("slow.example", "MX") == 1 })
	r.heard(one.Addr(), time.Now(), nil) // as if quick.example had been answered
	if err := <-slow; err != nil {
		t.Error(err)
	}
	if s := r.order()[0]; s != one.Addr() {
		t.Errorf("a slow name: asks %s", s)
	}

	one.Fail("gone.example", dnstest.Drop)
	r.timeout = time.Minute
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := r.MX(ctx, "gone.example")
		slow <- err
	}()
	waitFor(t, func() bool { return one.Count("gone.example", "MX") == 1 })
	r.heard(one.Addr(), time.Now().Add(time.Hour), context.DeadlineExceeded)
	cancel()
	if err := <-slow; err == nil {
		t.Error("no error")
	}
	waitFor(t, func() bool { return len(r.slots) == 0 })
	if s := r.order()[0]; s != two.Addr() {
		t.Errorf("given up: asks %s", s)
	}

	ln, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udpOnly := &dns.Server{PacketConn: ln, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.Truncated = true
		w.WriteMsg(m)
	})}
	go udpOnly.ActivateAndServe()
	defer udpOnly.Shutdown()
	r.servers[0] = ln.LocalAddr().String()
	if _, err := r.MX(t.Context(), "quick.example"); err != nil {
		t.Error(err)
	}
	if s := r.order()[0]; s != r.servers[0] || two.Count("quick.example", "MX") != 1 {
		t.Errorf("without TCP: asks %s", s)
	}
}

func TestHost(t *testing.T) {
	s := dnstest.New(t)
	dir := t.TempDir()
	hosts := filepath.Join(dir, "hosts")
	write := func(text string) {
		if err := os.WriteFile(hosts, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# comment\n192.0.2.7\tFiled.Example filed # c\n2001:db8::7 filed\nbad line\n192.0.2.8\n")
	r := newResolver(t, Settings{Servers: []string{s.Addr()}, Hosts: hosts})
	s.A("in-dns.example", "192.0.2.1")
	s.A("filed.example", "192.0.2.99")
	check := func(host, want, kind string) {
		t.Helper()
		addrs, err := r.Host(t.Context(), host)
		if kindOf(t, err) != kind || join(addrs) != want {
			t.Errorf("Host(%q) = %v, %v, want %s, %s", host, addrs, err, want, kind)
		}
	}
	check("127.0.0.1", "127.0.0.1", "ok")
	check("[::1]", "::1", "ok")
	check("::ffff:10.0.0.1", "10.0.0.1", "ok")
	check("FILED.example.", "192.0.2.7", "ok")
	check("filed", "192.0.2.7 2001:db8::7", "ok")
	check("in-dns.example", "192.0.2.1", "ok")
	check("absent.example", "", "NXDOMAIN")
	check("localhost", "127.0.0.1 ::1", "ok")
	write("192.0.2.70 filed.example changed\n")
	check("filed.example", "192.0.2.70", "ok")
	check("filed", "", "NXDOMAIN")
	if err := os.Remove(hosts); err != nil {
		t.Fatal(err)
	}
	check("filed.example", "192.0.2.99", "ok")
}

func TestSearchList(t *testing.T) {
	s := dnstest.New(t)
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(resolv, []byte("nameserver not-an-address\nnameserver 192.0.2.53\nnameserver fe80::1\nsearch one.example two.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := newResolver(t, Settings{ResolvConf: resolv, Hosts: "/nonexistent"})
	if !slices.Equal(r.servers, []string{"192.0.2.53:53", "[fe80::1]:53"}) {
		t.Errorf("servers %v", r.servers)
	}
	r.servers = []string{s.Addr()}
	s.A("backend.two.example", "192.0.2.2")
	s.A("down.two.example", "192.0.2.3")
	s.Fail("down.one.example", dnstest.ServFail)
	if addrs, err := r.Host(t.Context(), "backend"); join(addrs) != "192.0.2.2" {
		t.Errorf("backend: %v, %v", addrs, err)
	}
	if addrs, err := r.Host(t.Context(), "down"); kindOf(t, err) != "temporary failure" {
		t.Errorf("a search domain that fails was passed over: %v, %v", addrs, err)
	}
	if _, err := r.Addrs(t.Context(), "backend"); !IsNXDomain(err) {
		t.Errorf("Addrs used the search list: %v", err)
	}
}

func TestSettings(t *testing.T) {
	for _, servers := range [][]string{{"ns.example:53"}, {"192.0.2.1:port"}, {""}} {
		if _, err := New(Settings{Servers: servers}); err == nil {
			t.Errorf("servers %q: no error", servers)
		}
	}
	r := newResolver(t, Settings{Servers: []string{"192.0.2.1", "[::1]", "::1", "[::1]:5353"}})
	if want := []string{"192.0.2.1:53", "[::1]:53", "[::1]:53", "[::1]:5353"}; !slices.Equal(r.servers, want) {
		t.Errorf("servers %v", r.servers)
	}
	r = newResolver(t, Settings{ResolvConf: "/nonexistent"})
	if !slices.Equal(r.servers, []string{"127.0.0.1:53"}) || r.timeout != 5*time.Second || r.tries != 2 {
		t.Errorf("defaults %v %v %d", r.servers, r.timeout, r.tries)
	}
}

// FuzzAnswer feeds packets as a server's answers.
func FuzzAnswer(f *testing.F) {
	m := new(dns.Msg).SetQuestion("fuzz.example.", dns.TypeMX)
	m.Id, m.Response = 7, true
	b, _ := m.Pack()
	f.Add(b, uint16(dns.TypeMX))
	rr, _ := dns.NewRR("fuzz.example. 60 IN MX 1 mx.example.")
	alias, _ := dns.NewRR("fuzz.example. 60 IN CNAME fuzz.example.")
	tlsa, _ := dns.NewRR("fuzz.example. 60 IN TLSA 3 1 1 00ff")
	for _, answer := range []dns.RR{rr, alias, tlsa} {
		m.Answer = []dns.RR{answer}
		b, _ = m.Pack()
		f.Add(b, uint16(dns.TypeMX))
	}
	f.Add([]byte{}, uint16(dns.TypeTXT))
	f.Fuzz(func(t *testing.T, b []byte, qtype uint16) {
		m, err := parse(b)
		if err != nil {
			return
		}
		query := new(dns.Msg).SetQuestion("fuzz.example.", qtype)
		answers(m, query)
		c := chain{name: "fuzz.example.", ttl: maxTTL}
		rrs, err := c.follow(m, qtype)
		if err != nil || len(rrs) == 0 {
			return
		}
		a := read(question{"fuzz.example.", qtype}, rrs)
		if c.ttl < minTTL || c.ttl > maxTTL {
			t.Errorf("TTL %v", c.ttl)
		}
		if len(a.mx) > maxMX || len(a.addrs) > maxAddrs || len(strings.Join(a.text, "")) > maxText {
			t.Errorf("%d MX, %d addresses, %d texts", len(a.mx), len(a.addrs), len(a.text))
		}
		for _, mx := range a.mx {
			if net.ParseIP(mx.Host) != nil || strings.ContainsAny(mx.Host, " \r\n\\") {
				t.Errorf("MX %q", mx.Host)
			}
		}
	})
}

func TestLoopbackIsLocalhost(t *testing.T) {
	server := dnstest.New(t)
	r, err := New(Settings{Servers: []string{server.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range []string{"127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"} {
		names, err := r.PTR(t.Context(), netip.MustParseAddr(ip))
		if err != nil || len(names) != 1 || names[0] != "localhost" {
			t.Errorf("%s: %v %v", ip, names, err)
		}
	}
	if n := server.Queries(); n != 0 {
		t.Errorf("%d queries", n)
	}
}

// TestHalfSecure: addresses are secure only if those of both families are.
func TestHalfSecure(t *testing.T) {
	s := dnstest.New(t)
	r := newResolver(t, Settings{Servers: []string{s.Addr()}, Tries: 1, DNSSEC: true})
	for i, tt := range []struct{ a, aaaa bool }{{true, true}, {true, false}, {false, true}} {
		host := fmt.Sprintf("%d.example", i)
		s.Handle(host, func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.RecursionAvailable = true
			hdr := dns.RR_Header{Name: host + ".", Rrtype: q.Question[0].Qtype, Class: 1, Ttl: 60}
			switch hdr.Rrtype {
			case dns.TypeA:
				m.AuthenticatedData = tt.a
				m.Answer = []dns.RR{&dns.A{Hdr: hdr, A: net.IPv4(192, 0, 2, 1)}}
			case dns.TypeAAAA:
				m.AuthenticatedData = tt.aaaa
				m.Answer = []dns.RR{&dns.AAAA{Hdr: hdr, AAAA: net.ParseIP("2001:db8::1")}}
			}
			w.WriteMsg(m)
		})
		if a, err := r.Addresses(t.Context(), host); err != nil || len(a.List) != 2 || a.Secure != (tt.a && tt.aaaa) {
			t.Errorf("%+v: %+v, %v", tt, a, err)
		}
	}
}

func TestDNSSEC(t *testing.T) {
	s := dnstest.New(t)
	s.MX("signed.example", 10, "mx.signed.example")
	s.A("mx.signed.example", "192.0.2.1")
	s.TLSA("_25._tcp.mx.signed.example", 3, 1, 1, []byte{1, 2, 0xff})
	s.MX("plain.example", 10, "mx.plain.example")
	s.A("mx.plain.example", "192.0.2.2")
	s.TLSA("_25._tcp.mx.plain.example", 3, 1, 1, []byte{1})
	s.CNAME("alias.signed.example", "mx.signed.example")
	s.CNAME("out.signed.example", "mx.plain.example")
	s.CNAME("in.plain.example", "mx.signed.example")
	s.CNAME("_25._tcp.alias.signed.example", "_25._tcp.mx.signed.example")
	s.CNAME("_25._tcp.in.plain.example", "_25._tcp.mx.signed.example")
	s.A("bogus.example", "192.0.2.3")
	s.Fail("bogus.example", dnstest.ServFail)
	s.Fail("_25._tcp.bogus.example", dnstest.ServFail)
	s.Secure("signed.example", "mx.signed.example", "_25._tcp.mx.signed.example", "alias.signed.example", "out.signed.example",
		"_25._tcp.alias.signed.example")
	records := []TLSA{{Usage: 3, Selector: 1, MatchingType: 1, Data: []byte{1, 2, 0xff}}}
	for _, trusted := range []bool{true, false} {
		r := newResolver(t, Settings{Servers: []string{s.Addr()}, Tries: 1, DNSSEC: trusted})
		for range 2 { // the second time from the cache
			for domain, want := range map[string]bool{"signed.example": true, "plain.example": false} {
				mx, err := r.MX(t.Context(), domain)
				if err != nil || len(mx) != 1 || mx[0].Secure != (want && trusted) {
					t.Errorf("trusted %v: MX(%s) = %+v, %v", trusted, domain, mx, err)
				}
			}
			for host, want := range map[string]Addresses{
				"mx.signed.example":    {Name: "mx.signed.example", Secure: true},
				"mx.plain.example":     {Name: "mx.plain.example"},
				"alias.signed.example": {Name: "mx.signed.example", Secure: true, Alias: true},
				"out.signed.example":   {Name: "mx.plain.example", Alias: true},
				"in.plain.example":     {Name: "mx.signed.example"},
			} {
				a, err := r.Addresses(t.Context(), host)
				if err != nil || len(a.List) != 1 || a.Name != want.Name || a.Secure != (want.Secure && trusted) || a.Alias != (want.Alias && trusted) {
					t.Errorf("trusted %v: Addresses(%s) = %+v, %v, want %+v", trusted, host, a, err, want)
				}
			}
			for name, want := range map[string]string{
				"_25._tcp.mx.signed.example":    "ok",
				"_25._tcp.alias.signed.example": "ok",
				"_25._tcp.mx.plain.example":     "NODATA",
				"_25._tcp.in.plain.example":     "NODATA",
				"_25._tcp.none.example":         "NXDOMAIN",
				"_25._tcp.bogus.example":        "temporary failure",
			} {
				if !trusted {
					want = "NODATA"
				}
				got, err := r.TLSA(t.Context(), name)
				if kind := kindOf(t, err); kind != want || want == "ok" != slices.EqualFunc(got, records, func(a, b TLSA) bool {
					return a.Usage == b.Usage && a.Selector == b.Selector && a.MatchingType == b.MatchingType && string(a.Data) == string(b.Data)
				}) {
					t.Errorf("trusted %v: TLSA(%s) = %v, %v, want %s", trusted, name, got, err, want)
				}
			}
		}
	}
}

// TestSecureSteps holds that one step that is not secure spoils what follows, and
// that an AD bit that nobody asked for counts for nothing.
func TestSecureSteps(t *testing.T) {
	s := dnstest.New(t)
	s.A("end.example", "192.0.2.1")
	s.Secure("end.example")
	answer := func(ad bool, text string) dns.HandlerFunc {
		return func(w dns.ResponseWriter, q *dns.Msg) {
			m := new(dns.Msg).SetReply(q)
			m.RecursionAvailable, m.AuthenticatedData = true, ad
			rr, err := dns.NewRR(text)
			if err != nil {
				t.Error(err)
			}
			m.Answer = []dns.RR{rr}
			_ = w.WriteMsg(m)
		}
	}
	s.Handle("step.example", answer(false, "step.example. 60 IN CNAME end.example."))
	s.Handle("good.example", answer(true, "good.example. 60 IN CNAME end.example."))
	s.Handle("pushy.example", answer(true, "pushy.example. 60 IN MX 1 mx.example."))
	r := newResolver(t, Settings{Servers: []string{s.Addr()}, Tries: 1, DNSSEC: true})
	for host, want := range map[string]bool{"step.example": false, "good.example": true} {
		if a, err := r.Addresses(t.Context(), host); err != nil || a.Secure != want || a.Name != "end.example" {
			t.Errorf("%s: %+v, %v", host, a, err)
		}
	}
	r = newResolver(t, Settings{Servers: []string{s.Addr()}, Tries: 1})
	if mx, err := r.MX(t.Context(), "pushy.example"); err != nil || mx[0].Secure {
		t.Errorf("%+v, %v", mx, err)
	}
}

// A server is reported once when it does not answer any more, and once when it does again. One
// domain that gets no answers is no reason.
func TestWatch(t *testing.T) {
	r := newResolver(t, Settings{Servers: []string{"192.0.2.1"}})
	var reports []error
	r.Watch(func(server string, err error) {
		if server != "192.0.2.1:53" {
			t.Error(server)
		}
		reports = append(reports, err)
	})
	began := time.Now()
	for range 3 {
		for range reportAfter - 1 {
			r.heard("192.0.2.1:53", began, context.DeadlineExceeded)
		}
		r.heard("192.0.2.1:53", began, nil)
		began = time.Now().Add(time.Second)
	}
	if len(reports) > 0 {
		t.Errorf("%v, without %d failures in a row", reports, reportAfter)
	}
	for range 10 * reportAfter {
		r.heard("192.0.2.1:53", began, context.DeadlineExceeded)
	}
	if len(reports) != 1 || !errors.Is(reports[0], context.DeadlineExceeded) {
		t.Fatalf("%v", reports)
	}
	for range 3 {
		r.heard("192.0.2.1:53", began, nil)
	}
	if len(reports) != 2 || reports[1] != nil {
		t.Errorf("%v", reports)
	}
}
