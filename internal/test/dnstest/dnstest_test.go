package dnstest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// ask returns the answer to one question in short: "RCODE[ tc]: rdata | rdata".
// It waits long for an answer unless the name says that there will be none.
func ask(t *testing.T, s *Server, network, name, qtype string) string {
	t.Helper()
	c := dns.Client{Net: network, Timeout: time.Minute}
	if name == "drop.example" || name == "held.example" {
		c.Timeout = 100 * time.Millisecond
	}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.StringToType[qtype])
	m, _, err := c.Exchange(m, s.Addr())
	if err != nil {
		return "no answer"
	}
	var all []string
	for _, rr := range m.Answer {
		all = append(all, rr.Header().Name+" "+strings.TrimPrefix(rr.String(), rr.Header().String()))
	}
	tc := ""
	if m.Truncated {
		tc = " tc"
	}
	return dns.RcodeToString[m.Rcode] + tc + ": " + strings.Join(all, " | ")
}

func TestAnswers(t *testing.T) {
	s := New(t)
	s.MX("d.example", 10, "mx.example")
	s.MX("null.example", 0, "")
	s.A("mx.example", "127.0.0.1", "127.0.0.2")
	s.AAAA("mx.example", "::1")
	s.PTR("127.0.0.1", "mx.example")
	s.TXT("txt.example", `a "b" \c`, strings.Repeat("x", 256))
	s.CNAME("alias.example", "d.example")
	s.CNAME("loop.example", "loop.example")
	s.MX("bad.example", 1, "mx.example")
	s.Fail("bad.example", ServFail)
	s.FailType("mx.example", "TXT", Refused)
	s.Fail("drop.example", Drop)
	s.MX("tc.example", 1, "mx.example")
	s.Truncate("tc.example")
	s.Handle("odd.example", func(w dns.ResponseWriter, q *dns.Msg) { w.WriteMsg(new(dns.Msg).SetRcode(q, NotImp)) })
	for range 100 {
		s.MX("wide.example", 1, "a-rather-long-name.wide.example")
	}
	tests := []struct{ network, name, qtype, want string }{
		{"udp", "D.Example", "MX", "NOERROR: d.example. 10 mx.example."},
		{"tcp", "d.example", "MX", "NOERROR: d.example. 10 mx.example."},
		{"udp", "d.example", "A", "NOERROR: "},
		{"udp", "null.example", "MX", "NOERROR: null.example. 0 ."},
		{"udp", "mx.example", "A", "NOERROR: mx.example. 127.0.0.1 | mx.example. 127.0.0.2"},
		{"udp", "mx.example", "AAAA", "NOERROR: mx.example. ::1"},
		{"udp", "mx.example", "TXT", "REFUSED: "},
		{"udp", "1.0.0.127.in-addr.arpa", "PTR", "NOERROR: 1.0.0.127.in-addr.arpa. mx.example."},
		{"udp", "txt.example", "TXT", `NOERROR: txt.example. "a \"b\" \\c" | txt.example. "` + strings.Repeat("x", 255) + `" "x"`},
		{"udp", "alias.example", "MX", "NOERROR: alias.example. d.example. | d.example. 10 mx.example."},
		{"udp", "absent.example", "MX", "NXDOMAIN: "},
		{"udp", "bad.example", "MX", "SERVFAIL: "},
		{"udp", "drop.example", "MX", "no answer"},
		{"tcp", "drop.example", "MX", "no answer"},
		{"udp", "tc.example", "MX", "NOERROR tc: "},
		{"tcp", "tc.example", "MX", "NOERROR: tc.example. 1 mx.example."},
		{"udp", "odd.example", "MX", "NOTIMP: "},
	}
	for _, tt := range tests {
		if got := ask(t, s, tt.network, tt.name, tt.qtype); got != tt.want {
			t.Errorf("%s %s %s: %s, want %s", tt.network, tt.name, tt.qtype, got, tt.want)
		}
	}
	if got := ask(t, s, "udp", "loop.example", "MX"); strings.Count(got, "loop.example. loop.example.") != maxChain {
		t.Errorf("loop: %s", got)
	}
	if got := ask(t, s, "udp", "wide.example", "MX"); !strings.HasPrefix(got, "NOERROR tc: ") {
		t.Errorf("wide: %s", got)
	}
	if n := s.Count("d.example", "MX"); n != 2 {
		t.Errorf("d.example MX counted %d times", n)
	}
	if n := s.Queries(); n != len(tests)+2 {
		t.Errorf("%d queries, want %d", n, len(tests)+2)
	}
}

func TestDefault(t *testing.T) {
	s := New(t)
	s.SetDefault("mx.example", "127.0.0.1", "::1")
	s.MX("own.example", 1, "own-mx.example")
	for _, tt := range []struct{ name, qtype, want string }{
		{"any.example", "MX", "NOERROR: any.example. 10 mx.example."},
		{"mx.example", "A", "NOERROR: mx.example. 127.0.0.1"},
		{"mx.example", "AAAA", "NOERROR: mx.example. ::1"},
		{"any.example", "TXT", "NOERROR: "},
		{"own.example", "MX", "NOERROR: own.example. 1 own-mx.example."},
		{"own.example", "A", "NOERROR: "},
	} {
		if got := ask(t, s, "udp", tt.name, tt.qtype); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.name, tt.qtype, got, tt.want)
		}
	}
}

// TestChanges changes records while queries run, and closes with one held back.
func TestChanges(t *testing.T) {
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range 4 {
		all.Go(func() {
			for j := range 20 {
				s.MX(fmt.Sprintf("d%d.example", i), j, "mx.example")
				if got := ask(t, s, "tcp", fmt.Sprintf("d%d.example", j%4), "MX"); got == "no answer" {
					t.Error(got)
				}
			}
		})
	}
	all.Wait()
	s.Remove("d0.example")
	if got := ask(t, s, "tcp", "d0.example", "MX"); got != "NXDOMAIN: " {
		t.Errorf("removed: %s", got)
	}
	s.Delay("held.example", time.Hour)
	if got := ask(t, s, "udp", "held.example", "MX"); got != "no answer" {
		t.Errorf("held: %s", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// TestSecure holds who gets the AD bit: those who ask for it, about answers in
// which every name is secure.
func TestSecure(t *testing.T) {
	s := New(t)
	s.A("signed.example", "127.0.0.1")
	s.TLSA("_25._tcp.signed.example", 3, 1, 1, []byte{0xab, 1})
	s.A("plain.example", "127.0.0.1")
	s.CNAME("in.example", "plain.example")
	s.CNAME("alias.example", "signed.example")
	s.Secure("Signed.example", "_25._tcp.signed.example", "in.example", "alias.example", "absent.example")
	for _, tt := range []struct {
		name, qtype  string
		ad, do, want bool
	}{
		{"signed.example", "A", true, false, true},
		{"signed.example", "A", false, true, true},
		{"signed.example", "A", false, false, false},
		{"signed.example", "AAAA", true, false, true},
		{"_25._tcp.signed.example", "TLSA", true, false, true},
		{"plain.example", "A", true, true, false},
		{"in.example", "A", true, true, false},
		{"alias.example", "A", true, true, true},
		{"absent.example", "A", true, true, true},
		{"other.example", "A", true, true, false},
	} {
		m := new(dns.Msg).SetQuestion(dns.Fqdn(tt.name), dns.StringToType[tt.qtype])
		m.AuthenticatedData = tt.ad
		if tt.do {
			m.SetEdns0(1232, true)
		}
		m, _, err := new(dns.Client).Exchange(m, s.Addr())
		if err != nil || m.AuthenticatedData != tt.want {
			t.Errorf("%+v: %v", tt, err)
		}
	}
	if got := ask(t, s, "udp", "_25._tcp.signed.example", "TLSA"); got != "NOERROR: _25._tcp.signed.example. 3 1 1 ab01" {
		t.Error(got)
	}
}
