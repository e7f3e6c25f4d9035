package route

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/grant"
	"tarishi/internal/mail"
	"tarishi/internal/tlsconf"
)

func addr(s string) mail.Address {
	a, err := mail.ParseAddress(s)
	if err != nil {
		panic(s + ": " + err.Error())
	}
	return a
}

func rcpts(list string) []mail.Recipient {
	var r []mail.Recipient
	for s := range strings.FieldsSeq(list) {
		r = append(r, mail.Recipient{Address: addr(s)})
	}
	return r
}

func host(h string) []mail.NextHop { return []mail.NextHop{{Host: h, Port: 25}} }

// example is the manual's own file; each section inherits enable_outbound.
func example(mainOutbound bool) *Settings {
	return &Settings{
		Configured: true, DomainSelector: "rcpt_to",
		Main: Route{Name: "main", Hosts: host("1.2.3.4"), EnableOutbound: mainOutbound, AuthType: "plain", AuthUser: "user", AuthPass: "pass"},
		Routes: map[string]*Route{
			"example1.com": {Name: "example1.com", Hosts: host("1.2.3.5"), EnableOutbound: mainOutbound},
			"example2.com": {Name: "example2.com", Hosts: host("1.2.3.5"), EnableOutbound: mainOutbound},
			"example3.com": {Name: "example3.com", Hosts: host("1.2.3.6"), EnableOutbound: mainOutbound},
			"example4.com": {Name: "example4.com", EnableOutbound: false},
		},
	}
}

func describe(d Decision) string {
	if d.Action != Forward {
		return d.Action.String()
	}
	return "forward " + d.Route.Hosts[0].String()
}

// TestRejectUnauthorized: what tls.ini says of certificates holds where a route
// uses TLS, and adds no TLS.
func TestRejectUnauthorized(t *testing.T) {
	near := netip.MustParseAddr("127.0.0.1")
	for _, tt := range []struct {
		route Route
		hop   mail.NextHop
		want  mail.TLSLevel
	}{
		{Route{}, mail.NextHop{Host: "a"}, mail.TLSNone},
		{Route{EnableTLS: true}, mail.NextHop{Host: "a"}, mail.TLSMayVerify},
		{Route{EnableTLS: true, RequireTLS: true}, mail.NextHop{Host: "a"}, mail.TLSVerify},
		{Route{}, mail.NextHop{Host: "a", ImplicitTLS: true}, mail.TLSVerify},
		{Route{EnableTLS: true}, mail.NextHop{Host: "bare"}, mail.TLSNone},
		{Route{EnableTLS: true, AuthType: "plain"}, mail.NextHop{Host: "a"}, mail.TLSMayVerify},
	} {
		tt.route.RejectUnauthorized = true
		if got := Level(&Settings{TLS: tlsconf.Outbound{NoTLSHosts: []string{"bare"}}}, &tt.route, tt.hop, near); got != tt.want {
			t.Errorf("%+v %v: %v", tt.route, tt.hop, got)
		}
	}
	public := Route{EnableTLS: true, AuthType: "plain", RejectUnauthorized: true}
	if got := Level(&Settings{}, &public, mail.NextHop{Host: "a"}, netip.MustParseAddr("192.0.2.1")); got != mail.TLSVerify {
		t.Error("credentials for a public address:", got)
	}
}

func TestDecideByRecipients(t *testing.T) {
	for _, tc := range []struct {
		to, in, out string // what becomes of it without and with relaying
	}{
		{"a@example1.com", "forward 1.2.3.5:25", "forward 1.2.3.5:25"},
		{"a@EXAMPLE1.com b@example1.COM", "forward 1.2.3.5:25", "forward 1.2.3.5:25"},
		{"a@example1.com b@example2.com", "forward 1.2.3.5:25", "forward 1.2.3.5:25"},
		{"a@example1.com b@example3.com", "enqueue", "outbound"}, // where a plugin has let both pass
		{"a@example1.com b@other.com", "enqueue", "outbound"},
		{"a@other.com b@another.com", "forward 1.2.3.4:25", "forward 1.2.3.4:25"},
		{"a@sub.example1.com", "forward 1.2.3.4:25", "forward 1.2.3.4:25"},
		{"a@example4.com", "forward 1.2.3.4:25", "outbound"},
		{"a@other.com b@example4.com", "forward 1.2.3.4:25", "outbound"},
		{"a@example4.com b@example1.com", "enqueue", "outbound"},
		{"", "skip", "skip"},
	} {
		f := example(true)
		if got := describe(Decide(f, false, addr("s@sender.com"), rcpts(tc.to), nil)); got != tc.in {
			t.Errorf("%q: %s, want %s", tc.to, got, tc.in)
		}
		if got := describe(Decide(f, true, addr("s@sender.com"), rcpts(tc.to), nil)); got != tc.out {
			t.Errorf("%q relaying: %s, want %s", tc.to, got, tc.out)
		}
	}
}

// TestEnableOutbound is the matrix of main's and the section's flag; get_mx is
// asked for what is in the queue.
func TestEnableOutbound(t *testing.T) {
	const outside, section = "a@gmail.com", "a@example1.com"
	for _, tc := range []struct {
		main, section bool
		to            string
		want, mx      string
	}{
		{false, false, outside, "outbound", ""},
		{false, false, section, "outbound", "1.2.3.5:25"}, // a backend of its own beats the DNS
		{false, true, outside, "outbound", ""},
		{false, true, section, "forward 1.2.3.5:25", "1.2.3.5:25"},
		{true, true, outside, "forward 1.2.3.4:25", "1.2.3.4:25"},
		{true, true, section, "forward 1.2.3.5:25", "1.2.3.5:25"},
		{true, false, outside, "forward 1.2.3.4:25", "1.2.3.4:25"},
		{true, false, section, "outbound", ""}, // switched off on purpose: by the DNS
		{true, false, outside + " " + section, "outbound", "1.2.3.4:25"},
		{false, true, outside + " " + section, "outbound", ""},
		{false, true, section + " b@example3.com", "outbound", "1.2.3.5:25"},
	} {
		f := example(tc.main)
		f.Routes["example1.com"].EnableOutbound = tc.section
		f.Routes["example3.com"].EnableOutbound = tc.section
		to := rcpts(tc.to)
		if got := describe(Decide(f, true, addr("s@sender.com"), to, nil)); got != tc.want {
			t.Errorf("main %v section %v %s: %s, want %s", tc.main, tc.section, tc.to, got, tc.want)
		}
		if got := Decide(f, false, addr("s@sender.com"), to, nil).Action; got != map[bool]Action{false: Forward, true: Enqueue}[len(to) > 1] {
			t.Errorf("main %v section %v %s not relaying: %v", tc.main, tc.section, tc.to, got)
		}
		mx := ""
		if hops := MX(f, addr("s@sender.com"), to[0].Address.Host(), nil); hops != nil {
			mx = hops[0].String()
		}
		if mx != tc.mx {
			t.Errorf("main %v section %v %s: MX %q, want %q", tc.main, tc.section, tc.to, mx, tc.mx)
		}
	}
}

func TestSectionWithoutHosts(t *testing.T) {
	for _, tc := range []struct {
		main, section bool
		want, mx      string
	}{
		{true, true, "forward 1.2.3.4:25", "1.2.3.4:25"},
		{true, false, "outbound", ""},
		{false, true, "forward 1.2.3.4:25", "1.2.3.4:25"},
		{false, false, "outbound", ""},
	} {
		f := example(tc.main)
		f.Routes["example4.com"].EnableOutbound = tc.section
		if got := describe(Decide(f, true, mail.Address{}, rcpts("a@example4.com"), nil)); got != tc.want {
			t.Errorf("%+v: %s", tc, got)
		}
		mx := ""
		if hops := MX(f, mail.Address{}, "example4.com", nil); hops != nil {
			mx = hops[0].String()
		}
		if mx != tc.mx {
			t.Errorf("%+v: MX %q", tc, mx)
		}
	}
}

func TestDecideWithoutMainHost(t *testing.T) {
	f := example(true)
	f.Main.Hosts = nil
	for to, want := range map[string][2]string{
		"a@example1.com":                {"forward 1.2.3.5:25", "forward 1.2.3.5:25"},
		"a@example1.com b@example3.com": {"enqueue", "outbound"},
		"a@example1.com b@other.com":    {"skip", "outbound"},
		"a@other.com":                   {"skip", "outbound"},
	} {
		if got := describe(Decide(f, false, mail.Address{}, rcpts(to), nil)); got != want[0] {
			t.Errorf("%s: %s", to, got)
		}
		if got := describe(Decide(f, true, mail.Address{}, rcpts(to), nil)); got != want[1] {
			t.Errorf("%s relaying: %s", to, got)
		}
	}
	if hops := MX(f, mail.Address{}, "other.com", nil); hops != nil {
		t.Errorf("MX %v", hops)
	}
}

func TestSectionLookup(t *testing.T) {
	f := &Settings{DomainSelector: "rcpt_to", Routes: map[string]*Route{}}
	for _, name := range []string{"example.com", "*.example.com", "*.deep.example.com", "xn--exmple-cua.com", "user@example.com", "sender.org", "*.sender.org"} {
		f.Routes[name] = &Route{Name: name}
	}
	for _, tc := range []struct{ selector, from, to, want string }{
		{"rcpt_to", "", "a@example.com", "example.com"},
		{"rcpt_to", "", "user@example.com", "example.com"},
		{"rcpt_to", "", "a@Example.COM", "example.com"},
		{"rcpt_to", "", "a@x.example.com", "*.example.com"},
		{"rcpt_to", "", "a@x.y.example.com", "*.example.com"},
		{"rcpt_to", "", "a@deep.example.com", "*.example.com"},
		{"rcpt_to", "", "a@x.deep.example.com", "*.deep.example.com"},
		{"rcpt_to", "", "a@notexample.com", ""},
		{"rcpt_to", "", "a@exämple.com", "xn--exmple-cua.com"},
		{"rcpt_to", "", "postmaster", ""},
		{"rcpt_to", "", "a@[127.0.0.1]", ""},
		{"rcpt_to", "user@example.com", "a@b.c", ""},
		{"mail_from", "user@example.com", "a@b.c", "user@example.com"},
		{"mail_from", "USER@Example.com", "a@b.c", "user@example.com"},
		{"mail_from", "other@example.com", "a@b.c", "example.com"},
		{"mail_from", "x@sender.org", "a@example.com", "sender.org"},
		{"mail_from", "x@mail.sender.org", "a@example.com", "*.sender.org"},
		{"mail_from", "", "a@example.com", ""},
	} {
		f.DomainSelector = tc.selector
		got := ""
		if s := Section(f, addr(tc.from), addr(tc.to)); s != nil {
			got = s.Name
		}
		if got != tc.want {
			t.Errorf("%+v: section %q", tc, got)
		}
	}
}

func TestNotes(t *testing.T) {
	for _, tc := range []struct {
		wants, nextHop string
		want           string
		user           string
		mx             string
	}{
		{"", "", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"smtp_forward", "", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"smtp_forward", "smtp://1.2.3.5", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"smtp_forward", "smtp://1.2.3.5:25", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"smtp_forward", "smtp://1.2.3.4", "forward 1.2.3.4:25", "user", "1.2.3.4:25"},
		{"smtp_forward", "smtp://1.2.3.5:26", "forward 1.2.3.5:26", "", "1.2.3.5:26"},
		{"smtp_forward", "smtp://joe:secret@9.9.9.9", "forward 9.9.9.9:25", "joe", "9.9.9.9:25"},
		{"smtp_forward", "smtp://joe:secret@1.2.3.5", "forward 1.2.3.5:25", "joe", "1.2.3.5:25"},
		{"smtp_forward", "smtp://joe:secret@1.2.3.4", "forward 1.2.3.4:25", "joe", "1.2.3.4:25"},
		{"smtp_forward", "lmtp://store", "forward store:24", "", "store:24"},
		{"smtp_forward", "garbage", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"", "smtp://9.9.9.9", "forward 1.2.3.5:25", "", "1.2.3.5:25"},
		{"outbound", "", "skip", "", "1.2.3.5:25"},
		{"outbound", "smtp://9.9.9.9", "skip", "", "1.2.3.5:25"},
		{"lmtp", "smtp://9.9.9.9", "skip", "", ""},
	} {
		notes := mail.Notes{}
		if tc.wants != "" {
			notes.Set(NoteWants, tc.wants)
		}
		if tc.nextHop != "" {
			notes.Set(NoteNextHop, tc.nextHop)
		}
		f := example(true)
		for _, relaying := range []bool{false, true} {
			d := Decide(f, relaying, mail.Address{}, rcpts("a@example1.com"), notes)
			want := tc.want
			if tc.wants == "outbound" && !relaying {
				want = "enqueue"
			}
			if got := describe(d); got != want {
				t.Errorf("%+v relaying %v: %s", tc, relaying, got)
				continue
			}
			if d.Route != nil && d.Route.AuthUser != tc.user {
				t.Errorf("%+v: user %q", tc, d.Route.AuthUser)
			}
		}
		mx := ""
		if hops := MX(f, mail.Address{}, "example1.com", notes); hops != nil {
			mx = hops[0].String()
			if hops[0].AuthUser != tc.user {
				t.Errorf("%+v: MX user %q", tc, hops[0].AuthUser)
			}
		}
		if mx != tc.mx {
			t.Errorf("%+v: MX %q", tc, mx)
		}
		if f.Main.AuthUser != "user" || len(f.Main.Hosts) != 1 {
			t.Fatal("the configuration is changed")
		}
	}
	if MX(example(true), mail.Address{}, "gmail.com", mail.Notes{"queue": map[string]any{"wants": "outbound"}}) != nil {
		t.Error("outbound was wanted, but the smart host is answered")
	}
}

func TestMXCredentials(t *testing.T) {
	f := example(true)
	f.Main.Hosts = []mail.NextHop{{Host: "a", Port: 25}, {Host: "b", Port: 2525, ImplicitTLS: true}}
	got := MX(f, mail.Address{}, "other.com", nil)
	want := []mail.NextHop{
		{Host: "a", Port: 25, AuthType: "plain", AuthUser: "user", AuthPass: "pass", AuthRequired: true, Backend: true},
		{Host: "b", Port: 2525, ImplicitTLS: true, Priority: 1, AuthType: "plain", AuthUser: "user", AuthPass: "pass", AuthRequired: true, Backend: true},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if f.Main.Hosts[0].AuthUser != "" {
		t.Error("the configuration is changed")
	}
}

func TestDefers(t *testing.T) {
	fanout := func(f *Settings) { f.Split = "fanout" }
	personal := func(domain string) func(*Settings) {
		return func(f *Settings) { f.Routes[domain].AuthType = AuthForward }
	}
	queues := func(one, three string) func(*Settings) {
		return func(f *Settings) { f.Routes["example1.com"].Queue, f.Routes["example3.com"].Queue = one, three }
	}
	notes := func(wants, hop string) mail.Notes {
		n := mail.Notes{}
		n.Set(NoteWants, wants)
		n.Set(NoteNextHop, hop)
		return n
	}
	for _, tc := range []struct {
		name           string
		accepted, next string
		relaying       bool
		change         func(*Settings)
		notes          mail.Notes
		want           bool
	}{
		{name: "first", next: "a@example1.com"},
		{name: "same section", accepted: "a@example1.com", next: "b@example1.com"},
		{name: "same hosts", accepted: "a@example1.com", next: "b@example2.com"},
		{name: "other hosts", accepted: "a@example1.com b@example2.com", next: "c@example3.com", want: true},
		{name: "main behind a section", accepted: "a@example1.com", next: "b@other.com", want: true},
		{name: "section behind main", accepted: "b@other.com", next: "a@example1.com", want: true},
		{name: "main's host", accepted: "a@other.com", next: "b@example4.com"},
		{name: "relaying", accepted: "a@example1.com", next: "b@example3.com", relaying: true},
		{name: "relaying, with the client's credentials", accepted: "a@example1.com", next: "b@example3.com", relaying: true, want: true, change: personal("example3.com")},
		{name: "relaying, with the client's credentials before", accepted: "b@example3.com", next: "a@example1.com", relaying: true, want: true, change: personal("example3.com")},
		{name: "relaying, with the client's credentials alone", next: "b@example3.com", relaying: true, change: personal("example3.com")},
		{name: "relaying, with the client's credentials and the queue", accepted: "b@example4.com", next: "a@other.com", relaying: true, want: true, change: func(f *Settings) { f.Main.AuthType = AuthForward }},
		{name: "relaying, with the client's credentials if it were forwarded", accepted: "a@example1.com", next: "b@example3.com", relaying: true, change: func(f *Settings) {
			personal("example3.com")(f)
			f.Routes["example3.com"].EnableOutbound = false
		}},
		{name: "relaying by another plugin", accepted: "a@example1.com", next: "b@example3.com", relaying: true, want: true, change: queues("", "lmtp")},
		{name: "relaying by the queue", accepted: "a@example1.com", next: "b@example3.com", relaying: true, change: queues(WantsForward, WantsOutbound)},
		{name: "relaying to the queue", accepted: "a@example1.com", next: "b@example4.com", relaying: true},
		{name: "another plugin", accepted: "a@example1.com", next: "b@example3.com", notes: notes("lmtp", "")},
		{name: "note of the first", accepted: "a@example1.com", next: "b@example3.com", notes: notes(WantsForward, "smtp://1.2.3.5:25"), want: true},
		{name: "note to elsewhere", accepted: "a@example1.com", next: "b@example3.com", notes: notes(WantsForward, "smtp://9.9.9.9")},
		{name: "fanout", accepted: "a@example1.com", next: "b@example3.com", change: fanout},
		{name: "fanout, relaying", accepted: "a@example1.com", next: "b@example3.com", relaying: true, change: fanout},
		{name: "fanout to nowhere", accepted: "a@example1.com", next: "b@other.com", want: true, change: func(f *Settings) { fanout(f); f.Main.Hosts = nil }},
		{name: "fanout, relaying to the DNS", accepted: "a@example1.com", next: "b@other.com", relaying: true, change: func(f *Settings) { fanout(f); f.Main.Hosts = nil }},
		{name: "fanout with the client's credentials", accepted: "a@example1.com", next: "b@example3.com", want: true, change: func(f *Settings) { fanout(f); f.Routes["example3.com"].AuthType = AuthForward }},
		{name: "fanout to another plugin", accepted: "a@example1.com", next: "b@example3.com", want: true, change: func(f *Settings) { fanout(f); f.Routes["example3.com"].Queue = "lmtp" }},
	} {
		f := example(true)
		if tc.change != nil {
			tc.change(f)
		}
		accepted := rcpts(tc.accepted)
		if got := Defers(f, tc.relaying, mail.Address{}, accepted, rcpts(tc.next)[0], tc.notes); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}

// What is queued for several routes goes by each of them.
func TestFanOut(t *testing.T) {
	f := example(true)
	notes := mail.Notes{}
	notes.Set(NoteWants, WantsForward)
	for domain, want := range map[string]string{"example1.com": "1.2.3.5:25", "example3.com": "1.2.3.6:25", "other.com": "1.2.3.4:25", "example4.com": "1.2.3.4:25"} {
		if hops := MX(f, mail.Address{}, domain, notes); len(hops) != 1 || hops[0].String() != want {
			t.Errorf("%s: %v", domain, hops)
		}
	}
	f.Main.Hosts = nil
	if a := Decide(f, false, mail.Address{}, rcpts("a@example1.com b@other.com"), nil).Action; a != Skip {
		t.Errorf("a recipient without a route: %v", a)
	}
}

func TestQueueKey(t *testing.T) {
	f := example(true)
	f.Routes["example1.com"].Queue = "outbound"
	f.Routes["example2.com"].Queue = "lmtp"
	f.Routes["example3.com"].Queue = "smtp_forward"
	f.Routes["example1.com"].EnableOutbound = false
	for _, tc := range []struct {
		to      string
		in, out string
	}{
		{"a@example1.com", "enqueue", "skip"},
		{"a@example2.com", "skip", "skip"},
		{"a@example3.com", "forward 1.2.3.6:25", "forward 1.2.3.6:25"},
	} {
		for relaying, want := range map[bool]string{false: tc.in, true: tc.out} {
			if got := describe(Decide(f, relaying, mail.Address{}, rcpts(tc.to), nil)); got != want {
				t.Errorf("%s relaying %v: %s", tc.to, relaying, got)
			}
		}
	}
	f.Routes["example3.com"].Queue = "lmtp" // another host, and the same plugin
	for _, relaying := range []bool{false, true} {
		if a := Decide(f, relaying, mail.Address{}, rcpts("a@example2.com b@example3.com"), nil).Action; a != Skip {
			t.Errorf("relaying %v: what another plugin is to take: %v", relaying, a)
		}
	}
	notes := mail.Notes{}
	notes.Set(NoteWants, WantsOutbound)
	if hops := MX(f, mail.Address{}, "example1.com", notes); len(hops) != 1 || hops[0].Host != "1.2.3.5" {
		t.Errorf("queued for its own host: %v", hops)
	}
}

// Queued mail is sent as the route says, not only to where.
func TestMXCarriesTheRoute(t *testing.T) {
	bind := netip.MustParseAddr("192.0.2.1")
	for _, tc := range []struct {
		name   string
		change func(*Settings, *Route)
		want   mail.NextHop
	}{
		{"nothing said", func(*Settings, *Route) {}, mail.NextHop{}},
		{"enable_tls", func(_ *Settings, r *Route) { r.EnableTLS = true }, mail.NextHop{TLS: mail.TLSMay}},
		{"enable_tls with credentials", func(_ *Settings, r *Route) { r.EnableTLS, r.AuthType = true, "external" }, mail.NextHop{TLS: mail.TLSEncrypt, AuthType: "external", AuthRequired: true}},
		{"require_tls", func(_ *Settings, r *Route) { r.EnableTLS, r.RequireTLS = true, true }, mail.NextHop{TLS: mail.TLSEncrypt}},
		{"tls_verify", func(_ *Settings, r *Route) { r.TLSVerify = true }, mail.NextHop{TLS: mail.TLSVerify}},
		{"force_tls_hosts", func(f *Settings, _ *Route) { f.TLS.ForceTLSHosts = []string{"192.0.2.0/24"} }, mail.NextHop{TLS: mail.TLSVerify}},
		{"no_tls_hosts", func(f *Settings, _ *Route) { f.TLS.NoTLSHosts = []string{"192.0.2.9"} }, mail.NextHop{TLS: mail.TLSNone}},
		{"auth", func(_ *Settings, r *Route) {
			r.AuthType, r.AuthUser, r.AuthPass, r.AuthInsecure = "cram-md5", "u", "p", true
		}, mail.NextHop{AuthType: "cram-md5", AuthUser: "u", AuthPass: "p", AuthRequired: true, AuthInsecure: true}},
		{"access tokens", func(_ *Settings, r *Route) { r.AuthType, r.AuthUser, r.Grant.TokenFile = "xoauth2", "u", "/f" }, mail.NextHop{
			AuthType: "xoauth2", AuthUser: "u", AuthGrant: grant.Grant{TokenFile: "/f"}.Handle(), AuthRequired: true,
		}},
		{"external", func(_ *Settings, r *Route) { r.AuthType = "external" }, mail.NextHop{AuthType: "external", AuthRequired: true}},
		{"the client's credentials", func(_ *Settings, r *Route) { r.AuthType = AuthForward }, mail.NextHop{AuthRequired: true}},
		{"limits", func(_ *Settings, r *Route) {
			r.MaxConnections, r.MaxMessages, r.MaxAge, r.Timeout, r.ConnectTimeout, r.CommandTimeout, r.SubmissionTimeout = 1, 2, 3, 4, 5, 6, 7
		}, mail.NextHop{Limits: mail.Limits{Connections: 1, Messages: 2, Age: 3, Idle: 4, Connect: 5, Command: 6, Submission: 7}}},
		{"hosts", func(_ *Settings, r *Route) {
			r.Hosts[0].Bind, r.Hosts[0].Helo, r.Hosts[0].Forwards, r.Hosts[0].Protocol = bind, "h", mail.XForward, mail.LMTP
		}, mail.NextHop{Bind: bind, Helo: "h", Forwards: mail.XForward, Protocol: mail.LMTP}},
	} {
		f := example(true)
		r := f.Routes["example1.com"]
		r.Hosts = host("192.0.2.9")
		tc.change(f, r)
		tc.want.Host, tc.want.Port, tc.want.Backend = "192.0.2.9", 25, true
		if got := MX(f, mail.Address{}, "example1.com", nil); len(got) != 1 || got[0] != tc.want {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

func TestSame(t *testing.T) {
	base := Route{Name: "a", Hosts: host("h"), AuthUser: "u"}
	for name, change := range map[string]func(*Route){
		"hosts": func(r *Route) { r.Hosts = host("other") },
		"port":  func(r *Route) { r.Hosts = []mail.NextHop{{Host: "h", Port: 26}} },
		"tls":   func(r *Route) { r.EnableTLS = true },
		"force": func(r *Route) { r.RequireTLS = true },
		"check": func(r *Route) { r.TLSVerify = true },
		"auth":  func(r *Route) { r.AuthType = "plain" },
		"user":  func(r *Route) { r.AuthUser = "v" },
		"pass":  func(r *Route) { r.AuthPass = "p" },
		"grant": func(r *Route) { r.Grant.URL = "https://x.example" },
		"clear": func(r *Route) { r.AuthInsecure = true },
		"turn":  func(r *Route) { r.InTurn = true },
		"fail":  func(r *Route) { r.OnFailure = "queue" },
		"queue": func(r *Route) { r.Queue = "lmtp" },
		"bind":  func(r *Route) { r.Hosts = []mail.NextHop{{Host: "h", Port: 25, Helo: "x"}} },
		"per":   func(r *Route) { r.OneMessagePerRcpt = true },
	} {
		other := base
		change(&other)
		if Same(&base, &other) {
			t.Errorf("%s: same", name)
		}
	}
	other := base
	other.Name, other.Line, other.EnableOutbound, other.Hosts = "b", 9, true, host("h")
	if !Same(&base, &other) {
		t.Error("name, line and flag make a difference")
	}
}

func TestParseNextHop(t *testing.T) {
	good := map[string]mail.NextHop{
		"smtp://host":                     {Host: "host"},
		"SMTP://host/":                    {Host: "host"},
		"smtp://host:2525":                {Host: "host", Port: 2525},
		"smtp://127.0.0.1:25":             {Host: "127.0.0.1", Port: 25},
		"smtp://[::1]:25":                 {Host: "::1", Port: 25},
		"smtp://[::1]":                    {Host: "::1"},
		"smtps://host":                    {Host: "host", Port: 465, ImplicitTLS: true},
		"smtps://host:4650":               {Host: "host", Port: 4650, ImplicitTLS: true},
		"lmtp://host":                     {Host: "host", Protocol: mail.LMTP},
		"lmtp:///run/dovecot/lmtp":        {Path: "/run/dovecot/lmtp", Protocol: mail.LMTP},
		"unix:///run/mta/smtp":            {Path: "/run/mta/smtp"},
		"unix:/a b%20":                    {Path: "/a b%20"},
		"lmtp+unix:/run/dovecot/lmtp":     {Path: "/run/dovecot/lmtp", Protocol: mail.LMTP},
		"lmtp+unix:///run/dovecot/lmtp":   {Path: "/run/dovecot/lmtp", Protocol: mail.LMTP},
		"lmtp+unix:/run/a b%20?c#d":       {Path: "/run/a b%20?c#d", Protocol: mail.LMTP},
		"smtp://joe:s%40cret@host:26":     {Host: "host", Port: 26, AuthType: "plain", AuthUser: "joe", AuthPass: "s@cret"},
		"smtp://joe%40example.com:p@host": {Host: "host", AuthType: "plain", AuthUser: "joe@example.com", AuthPass: "p"},
	}
	for _, s := range slices.Sorted(maps.Keys(good)) {
		if got, err := ParseNextHop(s); err != nil || got != good[s] {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
		if h := good[s]; h.Path != "" {
			if again, err := ParseNextHop(FormatNextHop(h)); err != nil || again != h {
				t.Errorf("%s is written %s and read %+v, %v", s, FormatNextHop(h), again, err)
			}
		}
	}
	for _, s := range []string{
		"lmtp+unix:", "lmtp+unix:x", "lmtp+unix:/", "lmtp+unix://", "lmtp+unix://host/x", "lmtp+unix:/x\r\n", "smtp+unix:/x",
		"", "host", "host:25", "//host", "smtp:host", "http://host", "smtp://", "smtp://:25", "smtp://host:0", "smtp://host:65536",
		"smtp://host:x", "smtp://host/path", "smtp://host?x", "smtp://host?", "smtp://host#f", "smtp:///run/x", "unix:x", "unix://", "lmtp:///", "smtp://ho st",
		"smtp://joe:secret@", "smtp://-host", "smtp://a..b", "smtp://host\r\n", "smtp://user:secret@host:bad",
	} {
		got, err := ParseNextHop(s)
		if err == nil {
			t.Errorf("%q: %+v", s, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error tells the password", s)
		}
	}
}

func FuzzParseNextHop(f *testing.F) {
	for _, s := range []string{"smtp://a:b@host:25", "smtps://[::1]", "lmtp:///x", "lmtp+unix:/a b%20", "lmtp+unix:////x", "unix:///x", "unix:////x", "lmtp://h", "smtp://%41", "", "smtp://h:99999", "smtp://a%00b@h"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := ParseNextHop(s)
		if err != nil {
			return
		}
		h.AuthType, h.AuthUser, h.AuthPass = "", "", ""
		again, err := ParseNextHop(FormatNextHop(h))
		if h.Path == "" && h.Port == 0 {
			h.Port = h.DefaultPort()
		}
		if err != nil || again != h {
			t.Errorf("%q: %+v comes back as %+v, %v", s, h, again, err)
		}
	})
}

// TestGrantStaysHome: access tokens of the main part do not go to the host that a note names.
func TestGrantStaysHome(t *testing.T) {
	f := &Settings{Main: Route{Hosts: []mail.NextHop{{Host: "192.0.2.1"}}, AuthType: "xoauth2", AuthUser: "u", Grant: grant.Grant{TokenFile: "/f"}}}
	if r := to(f, mail.NextHop{Host: "192.0.2.1"}); r != &f.Main {
		t.Error("another route to main's host")
	}
	r := to(f, mail.NextHop{Host: "192.0.2.2"})
	if hop := Backend(r, r.Hosts[0]); r.Grant != (grant.Grant{}) || !hop.AuthGrant.IsZero() || hop.AuthUser != "" {
		t.Errorf("%+v", hop)
	}
}
