package delivery

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
)

// sender is a Sender that answers by address: a reply for all recipients, one
// for each, or an error. What it does not know it takes. As the pool does, it
// goes on to the next address of a host after a failure before MAIL.
type sender struct {
	answers map[string]any // by "ip:port" or path
	onSend  func()

	mu      sync.Mutex
	targets []pool.Target
	tried   []string
}

func (s *sender) Send(ctx context.Context, t pool.Target, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.targets = append(s.targets, t)
	if s.onSend != nil {
		s.onSend()
	}
	addrs := []string{t.Addr}
	if len(t.Addrs) > 0 {
		addrs = nil
		for _, a := range t.Addrs {
			addrs = append(addrs, a.String())
		}
	}
	var last error
	for _, addr := range addrs {
		s.tried = append(s.tried, addr)
		res := smtpclient.Result{TLS: "TLSv1.3 X", Reused: true, Addr: addr, Verified: t.TLS == smtpclient.TLSVerify, Authenticated: t.AuthUser != ""}
		switch a := s.answers[addr].(type) {
		case *smtpclient.Failure:
			f := *a
			f.Addr = addr
			if last = &f; f.Stage < smtpclient.StageMail && ctx.Err() == nil {
				continue
			}
			return smtpclient.Result{}, last
		case *reply.Reply:
			for range env.Recipients {
				res.Replies = append(res.Replies, a)
			}
		case error:
			return smtpclient.Result{}, a
		case []*reply.Reply:
			res.Replies = a
		default:
			for range env.Recipients {
				res.Replies = append(res.Replies, reply.New(250, "2.0.0", "OK"))
			}
		}
		return res, nil
	}
	return smtpclient.Result{}, last
}

func (s *sender) addrs() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.tried)
}

func refused(stage smtpclient.Stage, code int, text string) *smtpclient.Failure {
	return &smtpclient.Failure{Stage: stage, Reply: reply.New(code, "", text), Fresh: true}
}

func unreachable() *smtpclient.Failure {
	return &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("connection refused"), Fresh: true}
}

// world is two domains with MX, one without, and some that do not work.
func world() *memory.Resolver {
	m := &memory.Resolver{}
	m.AddMX("two.test", 20, "mx2.two.test")
	m.AddMX("two.test", 10, "mx1.two.test")
	m.AddAddr("mx1.two.test", "192.0.2.1", "2001:db8::1")
	m.AddAddr("mx2.two.test", "192.0.2.2", "2001:db8::2")
	m.AddAddr("implicit.test", "192.0.2.3", "2001:db8::3")
	m.AddTXT("bare.test", "exists, has neither MX nor address")
	m.AddMX("null.test", 0, "")
	m.Fail("mxfails.test", "MX", dns.Temporary)
	m.AddTXT("addrfails.test", "x")
	m.Fail("addrfails.test", "ADDR", dns.Temporary)
	m.AddMX("brokenmx.test", 10, "broken.mx.test")
	m.Fail("broken.mx.test", "ADDR", dns.Temporary)
	m.AddMX("ghostmx.test", 10, "ghost.mx.test")
	m.AddMX("halfbroken.test", 10, "broken.mx.test")
	m.AddMX("halfbroken.test", 10, "ghost.mx.test")
	m.AddMX("halfbroken.test", 20, "mx2.two.test")
	m.AddMX("self.test", 10, "self.mx.test")
	m.AddAddr("self.mx.test", "127.0.0.1", "::1", "198.51.100.7", "203.0.113.9", "0.0.0.0")
	m.AddMX("selfandother.test", 10, "self.mx.test")
	m.AddMX("selfandother.test", 20, "mx2.two.test")
	m.AddAddr("hop.test", "192.0.2.10")
	m.AddMX("selfandequal.test", 10, "mx2.two.test")
	m.AddMX("selfandequal.test", 10, "self.mx.test")
	m.AddMX("named.test", 10, "me.test")
	m.AddAddr("me.test", "192.0.2.11")
	for domain, ours := range map[string]string{"backup.test": "self.mx.test", "namedbackup.test": "ME.test"} {
		m.AddMX(domain, 10, "hop.test")
		m.AddMX(domain, 20, ours)
		m.AddMX(domain, 20, "mx1.two.test")
		m.AddMX(domain, 30, "mx2.two.test")
	}
	m.AddMX("backupbroken.test", 10, "broken.mx.test")
	m.AddMX("backupbroken.test", 20, "self.mx.test")
	m.AddMX("backupghost.test", 10, "ghost.mx.test")
	m.AddMX("backupghost.test", 20, "self.mx.test")
	m.AddMX("bücher.test", 10, "hop.test")
	m.AddMX("address.test", 10, "192.0.2.50")
	m.AddMX("address6.test", 10, "2001:db8::50")
	m.AddMX("address6.test", 20, "192.0.2.51")
	m.AddMX("ouraddress.test", 10, "198.51.100.7")
	m.AddAddr("dup.test", "192.0.2.1")
	m.AddMX("dups.test", 10, "dup.test")
	m.AddMX("dups.test", 20, "dup.test")
	for i := range 15 {
		m.AddMX("many.test", i, fmt.Sprintf("mx%d.many.test", i))
		m.AddAddr(fmt.Sprintf("mx%d.many.test", i), fmt.Sprintf("192.0.2.%d", 100+i))
	}
	m.AddMX("wide.test", 1, "wide.mx.test")
	for i := range 30 {
		m.AddAddr("wide.mx.test", fmt.Sprintf("192.0.2.%d", 100+i))
	}
	return m
}

func envelope(n int) *mail.Envelope {
	env := &mail.Envelope{ID: "ID.1", From: mail.Address{Local: "from", Domain: "here.test"}}
	for i := range n {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprint("to", i), Domain: "there.test"}})
	}
	return env
}

func options(s *sender) Options {
	return Options{
		Settings: &destination.Settings{EnableTLS: true, PublicIP: "203.0.113.9", IPv6: true}, Me: "me.test", Resolver: world(), Sender: s,
		Interfaces: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("198.51.100.7")}, nil },
	}
}

var content = mail.Memory{[]byte("Subject: x\r\n\r\nx\r\n")}

func TestAttempt(t *testing.T) {
	v4, v6 := "192.0.2.%d:25", "[2001:db8::%d]:25"
	all := func(format string, n ...any) string { return fmt.Sprintf(format, n...) }
	for _, tt := range []struct {
		name    string
		domain  string
		hops    []mail.NextHop
		change  func(*Options)
		answers map[string]any
		want    string   // prefix of every reply
		cause   string   // part of every reply's cause
		tried   []string // addresses, in order; nil: not looked at
	}{
		{name: "first MX, IPv6", domain: "two.test", want: "250 2.0.0 OK", tried: []string{all(v6, 1)}},
		{
			name: "connection failures go through MX by preference, AAAA before A", domain: "two.test",
			answers: map[string]any{all(v6, 1): unreachable(), all(v4, 1): unreachable(), all(v6, 2): unreachable()},
			want:    "250", tried: []string{all(v6, 1), all(v4, 1), all(v6, 2), all(v4, 2)},
		},
		{
			name: "everything unreachable", domain: "two.test",
			answers: map[string]any{all(v6, 1): unreachable(), all(v4, 1): unreachable(), all(v6, 2): unreachable(), all(v4, 2): unreachable()},
			want:    "451 4.4.1 Next hop cannot be reached", tried: []string{all(v6, 1), all(v4, 1), all(v6, 2), all(v4, 2)},
		},
		{
			name: "the last failure's text", domain: "two.test",
			answers: map[string]any{
				all(v6, 1): unreachable(), all(v4, 1): unreachable(), all(v6, 2): unreachable(),
				all(v4, 2): refused(smtpclient.StageGreeting, 554, "go away"),
			},
			want: "451 4.5.0 Next hop refused at greeting: 554 go away",
		},
		{
			name: "4yz greeting", domain: "two.test", answers: map[string]any{all(v6, 1): refused(smtpclient.StageGreeting, 421, "busy")},
			want: "250", tried: []string{all(v6, 1), all(v4, 1)},
		},
		{
			name: "5yz greeting", domain: "two.test", answers: map[string]any{all(v6, 1): refused(smtpclient.StageGreeting, 554, "no")},
			want: "250", tried: []string{all(v6, 1), all(v4, 1)},
		},
		{
			name: "EHLO refused", domain: "two.test", answers: map[string]any{all(v6, 1): refused(smtpclient.StageHello, 550, "no")},
			want: "250", tried: []string{all(v6, 1), all(v4, 1)},
		},
		{
			name: "TLS failure", domain: "two.test",
			answers: map[string]any{all(v6, 1): &smtpclient.Failure{Stage: smtpclient.StageTLS, Err: errors.New("bad"), Handshake: true}},
			want:    "250", tried: []string{all(v6, 1), all(v4, 1)},
		},
		{
			name: "421 as the reply for everyone", domain: "two.test", answers: map[string]any{all(v6, 1): reply.New(421, "4.3.2", "closing")},
			want: "250", tried: []string{all(v6, 1), all(v6, 2)},
		},
		{
			name: "421 everywhere", domain: "implicit.test",
			answers: map[string]any{all(v6, 3): reply.New(421, "4.3.2", "closing"), all(v4, 3): reply.New(421, "4.3.2", "closing")},
			want:    "421 4.3.2 closing", tried: []string{all(v6, 3)},
		},
		{
			name: "4yz reply is final for the attempt", domain: "two.test", answers: map[string]any{all(v6, 1): reply.New(450, "4.2.0", "greylisted")},
			want: "450 4.2.0 greylisted", tried: []string{all(v6, 1)},
		},
		{
			name: "5yz reply is final", domain: "two.test", answers: map[string]any{all(v6, 1): reply.New(550, "5.1.1", "unknown")},
			want: "550 5.1.1 unknown", tried: []string{all(v6, 1)},
		},
		{
			name: "3yz is no outcome", domain: "two.test", answers: map[string]any{all(v6, 1): reply.New(354, "", "go on")},
			want: "451 4.5.0", tried: []string{all(v6, 1)},
		},
		{
			name: "replies are missing", domain: "two.test", answers: map[string]any{all(v6, 1): []*reply.Reply{}},
			want: "451 4.5.0", tried: []string{all(v6, 1)},
		},
		{
			name: "uncertain: no other address", domain: "two.test",
			answers: map[string]any{all(v6, 1): &smtpclient.Failure{Stage: smtpclient.StageDot, Err: errors.New("lost"), Uncertain: true}},
			want:    "451 4.4.2", tried: []string{all(v6, 1)},
		},
		{
			name: "unreadable content: no other address", domain: "two.test",
			answers: map[string]any{all(v6, 1): &smtpclient.Failure{Stage: smtpclient.StageContent, Err: errors.New("disk")}},
			want:    "451 4.3.0", tried: []string{all(v6, 1)},
		},
		{
			name: "an error of our own", domain: "two.test", answers: map[string]any{all(v6, 1): errors.New("odd")},
			want: "451 4.3.0", tried: []string{all(v6, 1)},
		},
		{
			name: "an error of our own that is a 5yz reply", domain: "two.test",
			answers: map[string]any{all(v6, 1): fmt.Errorf("odd: %w", reply.New(554, "5.3.0", "strange"))},
			want:    "451 4.3.0 Not delivered yet: strange", tried: []string{all(v6, 1)},
		},
		{name: "implicit MX", domain: "implicit.test", want: "250", tried: []string{all(v6, 3)}},
		{name: "neither MX nor address", domain: "bare.test", want: "550 5.1.2 Nowhere to deliver mail to for domain: bare.test", tried: []string{}},
		{name: "NXDOMAIN", domain: "nowhere.test", want: "550 5.1.2 Nowhere to deliver mail to for domain: nowhere.test", tried: []string{}},
		{name: "null MX", domain: "null.test", want: "556 5.1.10 Domain null.test sends and receives no email (NULL MX)", tried: []string{}},
		{name: "MX lookup fails", domain: "mxfails.test", want: "451 4.4.3", tried: []string{}},
		{name: "implicit lookup fails", domain: "addrfails.test", want: "451 4.4.3", tried: []string{}},
		{name: "address of the MX fails", domain: "brokenmx.test", want: "451 4.4.3", tried: []string{}},
		{
			name: "MX without address", domain: "ghostmx.test",
			want: "451 4.4.4 No MX of ghostmx.test has an address", cause: "ghost.mx.test", tried: []string{},
		},
		{name: "broken MX are passed over", domain: "halfbroken.test", want: "250", tried: []string{all(v6, 2)}},
		{name: "no domain", domain: "", want: "550 5.1.2", tried: []string{}},
		{name: "address literal", domain: "[192.0.2.77]", want: "250", tried: []string{"192.0.2.77:25"}},
		{name: "IPv6 literal", domain: "[ipv6:2001:db8::77]", want: "250", tried: []string{"[2001:db8::77]:25"}},
		{name: "literal of this host", domain: "[127.0.0.1]", want: "550 5.4.6", tried: []string{}},
		{name: "broken literal", domain: "[x]", want: "550 5.1.2", tried: []string{}},
		{name: "the only MX is this host", domain: "self.test", want: "550 5.4.6 Mail for self.test loops back to myself", tried: []string{}},
		{name: "the best MX is this host", domain: "selfandother.test", want: "550 5.4.6", tried: []string{}},
		{name: "one of the best MX is this host", domain: "selfandequal.test", want: "550 5.4.6", tried: []string{}},
		{name: "the only MX has our name", domain: "named.test", want: "550 5.4.6", tried: []string{}},
		{name: "implicit MX with our name", domain: "me.test", want: "550 5.4.6", tried: []string{}},
		{name: "implicit MX that is this host", domain: "self.mx.test", want: "550 5.4.6", tried: []string{}},
		{name: "this host is the back-up", domain: "backup.test", want: "250", tried: []string{all(v4, 10)}},
		{
			name: "this host is the back-up, the best does not answer: not to the one behind us", domain: "backup.test",
			answers: map[string]any{all(v4, 10): unreachable()}, want: "451 4.4.1", tried: []string{all(v4, 10)},
		},
		{
			name: "the same by name", domain: "namedbackup.test",
			answers: map[string]any{all(v4, 10): unreachable()}, want: "451 4.4.1", tried: []string{all(v4, 10)},
		},
		{name: "this host is the back-up, the best is not known", domain: "backupbroken.test", want: "451 4.4.3", tried: []string{}},
		{name: "this host is the back-up, the best has no address", domain: "backupghost.test", want: "451 4.4.4", tried: []string{}},
		{
			name: "our name with local_mx_ok", domain: "named.test", change: func(o *Options) { o.LocalMXOK = true },
			want: "250", tried: []string{all(v4, 11)},
		},
		{name: "IPv6 left out", domain: "two.test", change: func(o *Options) { o.IPv6 = false }, want: "250", tried: []string{all(v4, 1)}},
		{name: "U-label domain", domain: "xn--bcher-kva.test", want: "250", tried: []string{all(v4, 10)}},
		{
			name: "local_mx_ok", domain: "self.test", change: func(o *Options) { o.LocalMXOK = true },
			want: "250", tried: []string{"[::1]:25"},
		},
		{name: "each address once", domain: "dups.test", answers: map[string]any{all(v4, 1): unreachable()}, want: "451", tried: []string{all(v4, 1)}},
		{
			name: "inet_prefer v4", domain: "two.test", change: func(o *Options) { o.InetPrefer = "v4" },
			answers: map[string]any{all(v4, 1): unreachable(), all(v4, 2): unreachable()},
			want:    "250", tried: []string{all(v4, 1), all(v4, 2), all(v6, 1)},
		},
		{
			name: "inet_prefer v6", domain: "two.test", change: func(o *Options) { o.InetPrefer = "v6" },
			answers: map[string]any{all(v6, 1): unreachable(), all(v6, 2): unreachable()},
			want:    "250", tried: []string{all(v6, 1), all(v6, 2), all(v4, 1)},
		},
		{name: "address as MX", domain: "address.test", want: "250", tried: []string{"192.0.2.50:25"}},
		{name: "IPv6 address as MX", domain: "address6.test", want: "250", tried: []string{"[2001:db8::50]:25"}},
		{name: "IPv6 address as MX left out", domain: "address6.test", change: func(o *Options) { o.IPv6 = false }, want: "250", tried: []string{"192.0.2.51:25"}},
		{name: "our address as MX", domain: "ouraddress.test", want: "550 5.4.6", tried: []string{}},
		{name: "port", domain: "two.test", change: func(o *Options) { o.Port = 2525 }, want: "250", tried: []string{"[2001:db8::1]:2525"}},
		{
			name: "hops in the order given", domain: "nowhere.test",
			hops:    []mail.NextHop{{Host: "hop.test", Priority: 9}, {Host: "192.0.2.99", Port: 26}, {Host: "127.0.0.1", Protocol: mail.LMTP}, {Path: "/run/x"}},
			answers: map[string]any{all(v4, 10): unreachable(), all(v4, 10): unreachable(), "192.0.2.99:26": unreachable(), "127.0.0.1:24": unreachable()},
			want:    "250", tried: []string{all(v4, 10), "192.0.2.99:26", "127.0.0.1:24", "/run/x"},
		},
		{
			name: "hop that does not resolve", domain: "x.test", hops: []mail.NextHop{{Host: "nope.test"}},
			want: "451 4.4.4 No next hop for x.test has an address", cause: "nope.test", tried: []string{},
		},
		{name: "hop whose lookup fails", domain: "x.test", hops: []mail.NextHop{{Host: "broken.mx.test"}}, want: "451 4.4.3", tried: []string{}},
		{
			name: "bind chooses the family", domain: "x.test", hops: []mail.NextHop{{Host: "mx1.two.test", Bind: netip.MustParseAddr("198.51.100.7")}},
			want: "250", tried: []string{all(v4, 1)},
		},
		{
			name: "bind without an address of its family", domain: "x.test",
			hops: []mail.NextHop{{Host: "hop.test", Bind: netip.MustParseAddr("2001:db8::7")}},
			want: "451 4.4.4 No next hop for x.test has an address of the outbound address's family", cause: "hop.test", tried: []string{},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &sender{answers: tt.answers}
			o := options(s)
			if tt.change != nil {
				tt.change(&o)
			}
			res := New(o).Attempt(t.Context(), Job{Envelope: envelope(3), Content: content, Domain: tt.domain, Hops: tt.hops}, nil)
			if res.Interrupted || len(res.Replies) != 3 {
				t.Fatalf("%+v", res)
			}
			for _, r := range res.Replies {
				if !strings.HasPrefix(r.String(), tt.want) {
					t.Errorf("reply %q, want %q", r, tt.want)
				}
				if tt.cause != "" && (r.Cause == nil || !strings.Contains(r.Cause.Error(), tt.cause)) {
					t.Errorf("cause %v, want %q", r.Cause, tt.cause)
				}
			}
			if got := s.addrs(); tt.tried != nil && !slices.Equal(got, tt.tried) && len(got)+len(tt.tried) > 0 {
				t.Errorf("tried %q, want %q", got, tt.tried)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	for domain, want := range map[string]int{"many.test": 10, "wide.test": maxAddresses} {
		s := &sender{answers: map[string]any{}}
		for i := range 50 {
			s.answers[fmt.Sprintf("192.0.2.%d:25", 100+i)] = unreachable()
		}
		res := New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: domain}, nil)
		if n := len(s.addrs()); n != want {
			t.Errorf("%s: %d addresses were tried, want %d", domain, n, want)
		}
		if !res.Replies[0].Temporary() {
			t.Error(res.Replies[0])
		}
	}
}

func TestEachRecipientItsReply(t *testing.T) {
	ok, later, no := reply.New(250, "", "OK"), reply.New(452, "4.5.3", "too many"), reply.New(550, "5.1.1", "unknown")
	s := &sender{answers: map[string]any{"[2001:db8::1]:25": []*reply.Reply{ok, later, no}}}
	res := New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(3), Content: content, Domain: "two.test"}, nil)
	if !slices.Equal(res.Replies, []*reply.Reply{ok, later, no}) {
		t.Fatal(res.Replies)
	}
	if res.Host != "mx1.two.test" || res.IP != "2001:db8::1" || res.Port != 25 || res.TLS != "TLSv1.3 X" || !res.Reused || len(res.Tried) != 1 {
		t.Fatalf("%+v", res)
	}
}

func TestEqualPreferencesAreShuffled(t *testing.T) {
	m := &memory.Resolver{}
	m.AddMX("d.test", 10, "a.test")
	m.AddMX("d.test", 10, "b.test")
	m.AddMX("d.test", 5, "first.test")
	m.AddAddr("first.test", "192.0.2.1")
	m.AddAddr("a.test", "192.0.2.2")
	m.AddAddr("b.test", "192.0.2.3")
	seen := map[string]bool{}
	for range 500 {
		s := &sender{answers: map[string]any{"192.0.2.1:25": unreachable(), "192.0.2.2:25": unreachable(), "192.0.2.3:25": unreachable()}}
		o := options(s)
		o.Resolver = m
		New(o).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "d.test"}, nil)
		seen[strings.Join(s.addrs(), " ")] = true
		if len(seen) == 2 {
			break
		}
	}
	if len(seen) != 2 || !seen["192.0.2.1:25 192.0.2.2:25 192.0.2.3:25"] || !seen["192.0.2.1:25 192.0.2.3:25 192.0.2.2:25"] {
		t.Fatal(seen)
	}
}

// TestBackupIsNotLookedUp holds that a message taken by the first MX waits for
// no other's name server.
func TestBackupIsNotLookedUp(t *testing.T) {
	m := world()
	o := options(&sender{})
	o.Resolver = m
	New(o).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "two.test"}, nil)
	if n := m.Count("mx2.two.test", "ADDR"); n != 0 {
		t.Fatalf("%d lookups", n)
	}
}

func TestTarget(t *testing.T) {
	public := netip.MustParseAddr("192.0.2.1")
	private := netip.MustParseAddr("10.0.0.1")
	notes := mail.Notes{"outbound_ip": "198.51.100.7", "outbound_helo": "notes.test"}
	for _, tt := range []struct {
		name   string
		hop    mail.NextHop
		notes  mail.Notes
		change func(*Options, *mail.Envelope)
		want   smtpclient.Options
	}{
		{
			name: "plain", hop: mail.NextHop{Host: public.String()},
			want: smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSMay, Helo: "me.test"},
		},
		{
			name: "notes", hop: mail.NextHop{Host: public.String()}, notes: notes,
			want: smtpclient.Options{
				Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSMay, Helo: "notes.test",
				Bind: netip.MustParseAddr("198.51.100.7"),
			},
		},
		{
			name: "the hop wins over the notes", notes: notes,
			hop: mail.NextHop{Host: public.String(), Helo: "hop.test", Bind: netip.MustParseAddr("198.51.100.8")},
			want: smtpclient.Options{
				Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSMay, Helo: "hop.test",
				Bind: netip.MustParseAddr("198.51.100.8"),
			},
		},
		{
			name: "bad notes are passed over", hop: mail.NextHop{Host: public.String()}, notes: mail.Notes{"outbound_ip": "x", "outbound_helo": "no name"},
			want: smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSMay, Helo: "me.test"},
		},
		{
			name: "no TLS", hop: mail.NextHop{Host: public.String()}, change: func(o *Options, _ *mail.Envelope) { o.EnableTLS = false },
			want: smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSNone, Helo: "me.test"},
		},
		{
			name: "REQUIRETLS", hop: mail.NextHop{Host: public.String()},
			change: func(o *Options, e *mail.Envelope) { o.EnableTLS, e.RequireTLS = false, true },
			want:   smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSVerify, Helo: "me.test"},
		},
		{
			name: "force_tls_hosts, by the recipient domain", hop: mail.NextHop{Host: public.String()},
			change: func(o *Options, _ *mail.Envelope) { o.EnableTLS, o.TLS.ForceTLSHosts = false, []string{"THERE.test"} },
			want:   smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSVerify, Helo: "me.test"},
		},
		{
			name: "no_tls_hosts, by a network", hop: mail.NextHop{Host: public.String()},
			change: func(o *Options, _ *mail.Envelope) { o.TLS.NoTLSHosts = []string{"192.0.2.0/24"} },
			want:   smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSNone, Helo: "me.test"},
		},
		{
			name: "credentials go only to a verified public host",
			hop:  mail.NextHop{Host: public.String(), Port: 587, AuthType: "plain", AuthUser: "u", AuthPass: "p"},
			want: smtpclient.Options{
				Addr: "192.0.2.1:587", Host: "192.0.2.1", TLS: smtpclient.TLSVerify, Helo: "me.test",
				AuthType: "plain", AuthUser: "u", AuthPass: "p",
			},
		},
		{
			name: "credentials to a private host", hop: mail.NextHop{Host: private.String(), AuthUser: "u", AuthPass: "p"},
			want: smtpclient.Options{
				Addr: "10.0.0.1:25", Host: "10.0.0.1", TLS: smtpclient.TLSMay, Helo: "me.test",
				AuthUser: "u", AuthPass: "p",
			},
		},
		{
			name: "what a hop asks for",
			hop: mail.NextHop{
				Host: public.String(), AuthUser: "u", AuthPass: "p", AuthRequired: true, AuthInsecure: true, Forwards: mail.XClient,
			},
			want: smtpclient.Options{
				Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSMay, Helo: "me.test",
				AuthUser: "u", AuthPass: "p", AuthRequired: true, AuthInsecure: true, Forwards: mail.XClient,
			},
		},
		{
			name: "the hop's level", hop: mail.NextHop{Host: public.String(), TLS: mail.TLSEncrypt},
			change: func(o *Options, _ *mail.Envelope) { o.TLS.NoTLSHosts = []string{"192.0.2.0/24"} },
			want:   smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSEncrypt, Helo: "me.test"},
		},
		{
			name: "level may and credentials", hop: mail.NextHop{Host: public.String(), TLS: mail.TLSMay, AuthUser: "u", AuthPass: "p"},
			want: smtpclient.Options{
				Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSEncrypt, Helo: "me.test", AuthUser: "u", AuthPass: "p",
			},
		},
		{
			name: "note force_tls", hop: mail.NextHop{Host: public.String(), TLS: mail.TLSNone}, notes: mail.Notes{"force_tls": true},
			want: smtpclient.Options{Addr: "192.0.2.1:25", Host: "192.0.2.1", TLS: smtpclient.TLSVerify, Helo: "me.test"},
		},
		{
			name: "implicit TLS", hop: mail.NextHop{Host: public.String(), Port: 465, ImplicitTLS: true},
			want: smtpclient.Options{Addr: "192.0.2.1:465", Host: "192.0.2.1", ImplicitTLS: true, TLS: smtpclient.TLSMay, Helo: "me.test"},
		},
		{
			name: "LMTP on a socket", hop: mail.NextHop{Path: "/run/lmtp", Protocol: mail.LMTP}, notes: notes,
			want: smtpclient.Options{Network: "unix", Addr: "/run/lmtp", Protocol: mail.LMTP, TLS: smtpclient.TLSMay, Helo: "notes.test"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &sender{}
			o := options(s)
			o.ConnectTimeout, o.PoolTimeout, o.PoolConcurrencyMax = 7*time.Second, 50*time.Second, 3
			env := envelope(1)
			env.Notes = tt.notes
			if tt.change != nil {
				tt.change(&o, env)
			}
			New(o).Attempt(t.Context(), Job{Envelope: env, Content: content, Domain: "d.test", Hops: []mail.NextHop{tt.hop}}, nil)
			if tt.want.Network == "" {
				tt.want.Network = "tcp"
			}
			tt.want.ConnectTimeout, tt.want.MinRate = 7*time.Second, -1 // no limit
			want := pool.Target{
				Options: tt.want, MaxConnections: 3, MaxMessages: maxMessages, MaxAge: maxAge, IdleTimeout: 50 * time.Second,
			}
			if want.Network == "tcp" {
				want.Addrs, want.Addr = []netip.AddrPort{netip.MustParseAddrPort(want.Addr)}, ""
			}
			if len(s.targets) != 1 || !reflect.DeepEqual(s.targets[0], want) {
				t.Fatalf("target %+v\nwant   %+v", s.targets, want)
			}
		})
	}
}

func TestMXNameIsTheTLSHost(t *testing.T) {
	s := &sender{}
	New(options(s)).Attempt(t.Context(), Job{Envelope: envelope(1), Content: content, Domain: "two.test"}, nil)
	if s.targets[0].Host != "mx1.two.test" {
		t.Fatal(s.targets[0].Host)
	}
}

func TestInterrupted(t *testing.T) {
	for _, answer := range []any{unreachable(), &smtpclient.Failure{Stage: smtpclient.StageDot, Err: context.Canceled, Uncertain: true}, errors.New("x")} {
		ctx, cancel := context.WithCancel(t.Context())
		s := &sender{onSend: cancel, answers: map[string]any{"[2001:db8::1]:25": answer}}
		res := New(options(s)).Attempt(ctx, Job{Envelope: envelope(1), Content: content, Domain: "two.test"}, nil)
		if !res.Interrupted || res.Replies != nil || len(s.addrs()) != 1 {
			t.Errorf("%v: %+v after %q", answer, res, s.addrs())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := &sender{}
	if res := New(options(s)).Attempt(ctx, Job{Envelope: envelope(1), Content: content, Domain: "nowhere.test"}, nil); !res.Interrupted || len(s.addrs()) > 0 {
		t.Errorf("%+v", res)
	}
	// What the server said counts, whatever happened meanwhile.
	ctx, cancel = context.WithCancel(t.Context())
	s = &sender{onSend: cancel}
	if res := New(options(s)).Attempt(ctx, Job{Envelope: envelope(1), Content: content, Domain: "two.test"}, nil); res.Interrupted || !res.Replies[0].Positive() {
		t.Errorf("%+v", res)
	}
}

func TestIsUs(t *testing.T) {
	list := []netip.Addr{netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("fe80::1%eth0")}
	o := options(&sender{})
	o.Interfaces = func() ([]netip.Addr, error) { return list, nil }
	d := New(o)
	for addr, want := range map[string]bool{
		"127.0.0.1": true, "127.9.9.9": true, "::1": true, "0.0.0.0": true, "::": true, "::ffff:127.0.0.1": true,
		"198.51.100.7": true, "203.0.113.9": true, "fe80::1": true, "::ffff:198.51.100.7": true,
		"192.0.2.1": false, "10.0.0.1": false,
	} {
		if got := d.isUs(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
