package delivery

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/nexthop"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// TestResult holds what an attempt says about the destination.
func TestResult(t *testing.T) {
	lost := func(stage smtpclient.Stage, err error) *smtpclient.Failure {
		return &smtpclient.Failure{Stage: stage, Err: err}
	}
	timeout := os.ErrDeadlineExceeded
	for _, tt := range []struct {
		name               string
		answer             any // of both addresses
		reached, throttled bool
		ip                 string
	}{
		{"taken", nil, true, false, "2001:db8::3"},
		{"refused for good", reply.New(550, "5.1.1", "unknown"), true, false, "2001:db8::3"},
		{"mailbox full", reply.New(452, "4.2.2", "full"), true, false, "2001:db8::3"},
		{"mailbox busy, no enhanced code", reply.New(450, "", "busy"), true, false, "2001:db8::3"},
		{"system trouble, no enhanced code", reply.New(451, "", "trouble"), true, true, "2001:db8::3"},
		{"too much", reply.New(450, "4.7.1", "slow down"), true, true, "2001:db8::3"},
		{"one of two is accepted", []*reply.Reply{reply.New(250, "", "ok"), reply.New(451, "4.3.2", "later")}, true, false, "2001:db8::3"},
		{"one of two is told 421", []*reply.Reply{reply.New(250, "", "ok"), reply.New(421, "4.3.2", "bye")}, true, true, "2001:db8::3"},
		{"421", reply.New(421, "4.3.2", "bye"), false, true, "2001:db8::3"},
		{"unreachable", unreachable(), false, false, "192.0.2.3"},
		{"connecting times out", lost(smtpclient.StageConnect, timeout), false, false, "192.0.2.3"},
		{"greeting 4yz", refused(smtpclient.StageGreeting, 450, "busy"), false, true, "192.0.2.3"},
		{"greeting 5yz", refused(smtpclient.StageGreeting, 554, "no"), false, false, "192.0.2.3"},
		{"EHLO times out", lost(smtpclient.StageHello, timeout), false, true, "192.0.2.3"},
		{"TLS fails", lost(smtpclient.StageTLS, errors.New("bad")), false, false, "192.0.2.3"},
		{"credentials refused", refused(smtpclient.StageAuth, 535, "no"), true, false, "192.0.2.3"},
		{"credentials not checked now", refused(smtpclient.StageAuth, 454, "later"), true, true, "192.0.2.3"},
		{"AUTH not offered", lost(smtpclient.StageAuth, errors.New("not offered")), true, false, "192.0.2.3"},
		{"421 to AUTH", refused(smtpclient.StageAuth, 421, "bye"), false, true, "192.0.2.3"},
		{"lost at MAIL", lost(smtpclient.StageMail, errors.New("reset")), true, false, "2001:db8::3"},
		{"DATA times out", lost(smtpclient.StageData, timeout), true, true, "2001:db8::3"},
	} {
		s := &sender{answers: map[string]any{"[2001:db8::3]:25": tt.answer, "192.0.2.3:25": tt.answer}}
		res := New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(2), Content: content, Domain: "implicit.test"}, nil)
		if res.Reached != tt.reached || res.Throttled != tt.throttled || res.IP != tt.ip {
			t.Errorf("%s: reached %v, throttled %v at %s", tt.name, res.Reached, res.Throttled, res.IP)
		}
	}
	// Which of a host's addresses took it.
	s := &sender{answers: map[string]any{"[2001:db8::3]:25": unreachable()}}
	if res := New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "implicit.test"}, nil); res.IP != "192.0.2.3" || !res.Reached {
		t.Errorf("%+v", res)
	}
}

// TestSettings holds the order: hop, notes, settings, options.
func TestSettings(t *testing.T) {
	s := &sender{}
	o := options(s)
	o.PoolConcurrencyMax = 10
	j := Job{Envelope: envelope(1), Content: content, Domain: "hop.test", Settings: Settings{
		Bind: netip.MustParseAddr("198.51.100.7"), Helo: "settings.test", TLS: mail.TLSVerify, MaxConnections: 2, MaxMessages: 3,
	}}
	New(o).Attempt(t.Context(), j, nil)
	got := s.targets[0]
	if got.Bind != j.Settings.Bind || got.Helo != "settings.test" || got.TLS != smtpclient.TLSVerify || got.MaxConnections != 2 || got.MaxMessages != 3 {
		t.Errorf("%+v", got)
	}
	j.Envelope.Notes = mail.Notes{"outbound_ip": "198.51.100.8", "outbound_helo": "notes.test"}
	New(o).Attempt(t.Context(), j, nil)
	if got := s.targets[1]; got.Bind != netip.MustParseAddr("198.51.100.8") || got.Helo != "notes.test" {
		t.Errorf("%+v", got)
	}
	j.Hops = []mail.NextHop{{Host: "192.0.2.1", Helo: "hop.test", TLS: mail.TLSNone, Bind: netip.MustParseAddr("198.51.100.9")}}
	New(o).Attempt(t.Context(), j, nil)
	if got := s.targets[2]; got.Bind != netip.MustParseAddr("198.51.100.9") || got.Helo != "hop.test" || got.TLS != smtpclient.TLSNone {
		t.Errorf("%+v", got)
	}
}

func TestPlan(t *testing.T) {
	m := world()
	m.AddMX("same.test", 5, "MX2.two.test")
	m.AddMX("same.test", 7, "mx1.two.test")
	o := options(&sender{})
	o.Resolver = m
	d := New(o)
	plan := func(domain string, hops ...mail.NextHop) *nexthop.Plan {
		t.Helper()
		p, refused := d.Plan(t.Context(), Job{Envelope: envelope(1), Domain: domain, Hops: hops})
		if refused != nil {
			t.Fatal(refused)
		}
		return p
	}
	if a, b := plan("two.test"), plan("same.test"); a.Site() != "mx1.two.test,mx2.two.test" || a.Site() != b.Site() {
		t.Errorf("sites %q, %q", a.Site(), b.Site())
	}
	if h := plan("two.test").Hosts(); len(h) != 2 || h[0] != "mx1.two.test" || h[1] != "mx2.two.test" {
		t.Errorf("hosts %q", h)
	}
	if p := plan("implicit.test"); p.Site() != "implicit.test" || len(p.Hosts()) != 1 {
		t.Errorf("implicit: %q %q", p.Site(), p.Hosts())
	}
	p := plan("x.test", mail.NextHop{Host: "b", Port: 26}, mail.NextHop{Path: "/a"}, mail.NextHop{Host: "b", Port: 26})
	if h := p.Hosts(); p.Site() != "hop:/a,b:26" || len(h) != 3 || h[1] != "/a" {
		t.Errorf("hops: %q %q", p.Site(), h)
	}
	if _, refused := d.Plan(t.Context(), Job{Envelope: envelope(1), Domain: "null.test"}); refused == nil || refused.Code != 556 {
		t.Error(refused)
	}
	// A plan that is there is followed, and nothing is looked up for it but addresses.
	s := &sender{}
	o.Sender, o.Resolver = s, m
	n := m.Count("two.test", "MX")
	New(o).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "two.test"}, plan("same.test"))
	if m.Count("two.test", "MX") != n || s.addrs()[0] != "[2001:db8::2]:25" {
		t.Errorf("tried %q", s.addrs())
	}
}
