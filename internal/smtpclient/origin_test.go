package smtpclient_test

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

func origin(ip string) *mail.Origin {
	return &mail.Origin{
		Addr: netip.MustParseAddr(ip), Port: 4321, Name: "mail.far.test", Helo: "far+1.test", Protocol: "ESMTP", Login: "jo smith@far.test",
	}
}

func verbs(dialog []string) string {
	var all []string
	for _, l := range dialog {
		verb, _, _ := strings.Cut(l, " ")
		all = append(all, verb)
	}
	return strings.Join(all, " ")
}

// TestOddNames: what a client calls itself in the DNS, and no server takes for a
// host name, is not told.
func TestOddNames(t *testing.T) {
	label := strings.Repeat("x", 63)
	for _, way := range []mail.ForwardsOrigin{mail.XForward, mail.XClient} {
		s := smtptest.New(t, smtptest.With("XFORWARD NAME", "XCLIENT NAME"))
		o := options(s)
		o.Forwards = way
		c := dial(t, o)
		e := envelope(t, "s@y.test", "a@x.test")
		for name, told := range map[string]bool{
			"mail.far.test": true, "A_b-c.far.test": true, "localhost": true, "4.far.test": true, label + ".test": true,
			"": false, ".": false, "far.test.": false, "a..test": false, "a*.test": false, "a\\032b.test": false, "b\u00fccher.test": false, "a b": false,
			"-a.test": false, "a-.test": false, "192.0.2.1": false, "[192.0.2.1]": false, "far:test": false, label + "x.test": false,
			label + strings.Repeat("."+label, 4): false,
		} {
			e.Origin = &mail.Origin{Name: name}
			if got := outcome(c.Send(t.Context(), e, text(message))); got != "250 2.0.0" {
				t.Fatal(got)
			}
			m := s.Messages()
			got := m[len(m)-1].XForward
			if way == mail.XClient {
				got = m[len(m)-1].XClient
			}
			want := "[UNAVAILABLE]"
			if told {
				want = name
			}
			if got["NAME"] != want {
				t.Errorf("%q: told %q", name, got)
			}
		}
	}
}

func TestXForward(t *testing.T) {
	full := smtptest.With("XFORWARD NAME ADDR PORT PROTO HELO SOURCE IDENT")
	long := &mail.Origin{Name: strings.Repeat("n", 63) + strings.Repeat("."+strings.Repeat("m", 63), 3), Helo: strings.Repeat("h", 250), Protocol: "SMTP", Addr: netip.MustParseAddr("::ffff:192.0.2.7")}
	for _, tt := range []struct {
		name   string
		opts   []smtptest.Option
		origin *mail.Origin
		want   map[string]string
		lines  []string
	}{
		{
			"all",
			[]smtptest.Option{full},
			origin("192.0.2.1"),
			map[string]string{"NAME": "mail.far.test", "ADDR": "192.0.2.1", "PORT": "4321", "PROTO": "ESMTP", "HELO": "far+1.test", "SOURCE": "REMOTE"},
			[]string{"XFORWARD NAME=mail.far.test ADDR=192.0.2.1 PORT=4321 PROTO=ESMTP HELO=far+2B1.test SOURCE=REMOTE"},
		},
		{
			"IPv6",
			[]smtptest.Option{smtptest.With("XFORWARD ADDR")},
			origin("2001:db8::1"),
			map[string]string{"ADDR": "IPV6:2001:db8::1"},
			[]string{"XFORWARD ADDR=IPV6:2001:db8::1"},
		},
		{
			"our own",
			[]smtptest.Option{full},
			nil,
			map[string]string{
				"NAME": "[UNAVAILABLE]", "ADDR": "[UNAVAILABLE]", "PORT": "[UNAVAILABLE]", "PROTO": "[UNAVAILABLE]",
				"HELO": "[UNAVAILABLE]", "SOURCE": "LOCAL",
			},
			[]string{"XFORWARD NAME=[UNAVAILABLE] ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] PROTO=[UNAVAILABLE] HELO=[UNAVAILABLE] SOURCE=LOCAL"},
		},
		{
			"long",
			[]smtptest.Option{full},
			long,
			map[string]string{
				"NAME": long.Name, "ADDR": "192.0.2.7", "PORT": "[UNAVAILABLE]", "PROTO": "SMTP", "HELO": long.Helo, "SOURCE": "REMOTE",
			},
			[]string{
				"XFORWARD NAME=" + long.Name + " ADDR=192.0.2.7 PORT=[UNAVAILABLE] PROTO=SMTP",
				"XFORWARD HELO=" + long.Helo + " SOURCE=REMOTE",
			},
		},
		{
			"evil",
			[]smtptest.Option{smtptest.With("XFORWARD HELO NAME")},
			&mail.Origin{Helo: "x\r\nRSET", Name: strings.Repeat("x", 256)},
			map[string]string{"HELO": "x\r\nRSET", "NAME": "[UNAVAILABLE]"},
			[]string{"XFORWARD NAME=[UNAVAILABLE] HELO=x+0D+0ARSET"},
		},
		{"not offered", nil, origin("192.0.2.1"), nil, nil},
		{"nothing offered", []smtptest.Option{smtptest.With("XFORWARD")}, origin("192.0.2.1"), nil, nil},
		{"refused", []smtptest.Option{full, smtptest.On(smtptest.XForward, smtptest.Always(smtptest.Reply("550 5.7.0 no")))}, origin("192.0.2.1"), nil, nil},
		{"odd 2yz", []smtptest.Option{smtptest.With("XFORWARD ADDR"), smtptest.On(smtptest.XForward, smtptest.Always(smtptest.Reply("220 ok")))}, origin("192.0.2.1"), map[string]string{"ADDR": "192.0.2.1"}, nil},
	} {
		for _, mode := range []string{"pipelined", "lockstep"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) {
				opts := tt.opts
				if mode == "lockstep" {
					opts = append([]smtptest.Option{smtptest.Without("PIPELINING")}, opts...)
				}
				s := smtptest.New(t, opts...)
				o := options(s)
				o.Forwards = mail.XForward
				c := dial(t, o)
				e := envelope(t, "s@y.test", "a@x.test", "b@x.test")
				e.Origin = tt.origin
				for range 2 { // every transaction says it again
					if got := outcome(c.Send(t.Context(), e, text(message))); got != "250 2.0.0, 250 2.0.0" {
						t.Fatal(got)
					}
				}
				for _, m := range s.Messages() {
					if len(m.XForward)+len(tt.want) > 0 && !reflect.DeepEqual(m.XForward, tt.want) {
						t.Errorf("%q", m.XForward)
					}
				}
				if got := s.Dialog(1)[1 : 1+len(tt.lines)]; len(tt.lines) > 0 && !reflect.DeepEqual(got, tt.lines) {
					t.Errorf("%q", got)
				}
				if v := s.Violations(); len(v) > 0 {
					t.Error(v)
				}
			})
		}
	}
	// Nobody is told who did not ask for it.
	s := smtptest.New(t, full, smtptest.With("XCLIENT NAME ADDR"))
	c := dial(t, options(s))
	e := envelope(t, "s@y.test", "a@x.test")
	e.Origin = origin("192.0.2.1")
	if got := outcome(c.Send(t.Context(), e, text(message))); got != "250 2.0.0" || verbs(s.Dialog(1)) != "EHLO MAIL RCPT DATA" {
		t.Error(got, s.Dialog(1))
	}
}

func TestXClient(t *testing.T) {
	s := smtptest.New(t, smtptest.With("XCLIENT NAME ADDR PORT PROTO HELO LOGIN"), smtptest.Credentials("u", "p"))
	o := options(s)
	o.Forwards, o.AuthUser, o.AuthPass = mail.XClient, "u", "p"
	c := dial(t, o)
	e := envelope(t, "s@y.test", "a@x.test")
	send := func(who *mail.Origin) {
		t.Helper()
		e.Origin = who
		if res, err := c.Send(t.Context(), e, text(message)); outcome(res, err) != "250 2.0.0" || !res.Authenticated {
			t.Fatal(outcome(res, err))
		}
	}
	send(nil)
	send(origin("192.0.2.1"))
	send(origin("192.0.2.1"))
	odd := origin("2001:db8::1")
	odd.Login, odd.Name, odd.Protocol, odd.Helo = "", "", "LMTP", ""
	send(odd)
	if got := verbs(s.Dialog(1)); got != "EHLO AUTH MAIL RCPT DATA XCLIENT EHLO AUTH MAIL RCPT DATA MAIL RCPT DATA XCLIENT EHLO AUTH MAIL RCPT DATA" {
		t.Error(got)
	}
	m := s.Messages()
	first := map[string]string{"NAME": "mail.far.test", "ADDR": "192.0.2.1", "PORT": "4321", "PROTO": "ESMTP", "HELO": "far+1.test", "LOGIN": "jo smith@far.test"}
	third := map[string]string{"NAME": "[UNAVAILABLE]", "ADDR": "IPV6:2001:db8::1", "PORT": "4321", "HELO": "[UNAVAILABLE]", "LOGIN": "[UNAVAILABLE]"}
	if m[0].XClient != nil || !reflect.DeepEqual(m[1].XClient, first) || !reflect.DeepEqual(m[2].XClient, first) || !reflect.DeepEqual(m[3].XClient, third) {
		t.Errorf("%q %q %q %q", m[0].XClient, m[1].XClient, m[2].XClient, m[3].XClient)
	}
	if m[0].Helo != "client.test" || m[1].Helo != "far+1.test" || m[3].Helo != "client.test" {
		t.Error(m[0].Helo, m[1].Helo, m[3].Helo)
	}
	// A message of our own does not go in another's name.
	e.Origin = nil
	_, err := c.Send(t.Context(), e, text(message))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || !f.Stale() || c.Reusable() || len(s.Messages()) != 4 {
		t.Error(err)
	}
	if v := s.Violations(); len(v) > 0 {
		t.Error(v)
	}
}

// TestXClientRefused: then the message does not go as if it were ours.
func TestXClientRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		stage  smtptest.Stage
		action smtptest.Action
		want   string
	}{
		"550":     {smtptest.XClient, smtptest.Reply("550 5.7.0 no"), "failure at XCLIENT 550 5.7.0"},
		"450":     {smtptest.XClient, smtptest.Reply("450 4.7.0 no"), "failure at XCLIENT 450 4.7.0"},
		"421":     {smtptest.XClient, smtptest.Reply("421 4.7.0 no"), "failure at XCLIENT 421 4.7.0"},
		"354":     {smtptest.XClient, smtptest.Reply("354 go"), "failure at XCLIENT 451 4.5.0"},
		"garbage": {smtptest.XClient, smtptest.Garbage(), "failure at XCLIENT 451 4.5.0"},
		"closed":  {smtptest.XClient, smtptest.Close(), "failure at XCLIENT lost"},
		"greeted": {smtptest.XClient, smtptest.Reply("554 5.7.1 go away"), "failure at XCLIENT 554 5.7.1"},
	} {
		s := smtptest.New(t, smtptest.With("XCLIENT NAME ADDR"), smtptest.On(tt.stage, smtptest.Always(tt.action)))
		o := options(s)
		o.Forwards = mail.XClient
		c := dial(t, o)
		e := envelope(t, "s@y.test", "a@x.test")
		e.Origin = origin("192.0.2.1")
		if got := outcome(c.Send(t.Context(), e, text(message))); got != tt.want || c.Reusable() || len(s.Transactions()) > 0 {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// TestXClientOnce: a server that offers XCLIENT only to those it trusts, as
// Postfix does, does not offer it to whom we act for. The connection stays his.
func TestXClientOnce(t *testing.T) {
	hellos := 0
	s := smtptest.New(t, smtptest.With("XCLIENT NAME ADDR"), smtptest.On(smtptest.Hello, func(smtptest.Event) smtptest.Action {
		if hellos++; hellos == 1 {
			return smtptest.Action{}
		}
		return smtptest.Reply("250-mx.test\n250 PIPELINING")
	}))
	o := options(s)
	o.Forwards = mail.XClient
	c := dial(t, o)
	e := envelope(t, "s@y.test", "a@x.test")
	e.Origin = origin("192.0.2.1")
	for range 2 {
		if got := outcome(c.Send(t.Context(), e, text(message))); got != "250 2.0.0" {
			t.Fatal(got)
		}
	}
	e.Origin = origin("192.0.2.2")
	_, err := c.Send(t.Context(), e, text(message))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || !f.Stale() || c.Reusable() || len(s.Messages()) != 2 {
		t.Error(err)
	}
}

// TestXClientWithoutTransaction: a connection on which we acted for somebody is
// his also where his message was never sent.
func TestXClientWithoutTransaction(t *testing.T) {
	s := smtptest.New(t, smtptest.Without("SIZE"), smtptest.With("XCLIENT NAME ADDR", "SIZE 10"))
	o := options(s)
	o.Forwards = mail.XClient
	c := dial(t, o)
	e := envelope(t, "s@y.test", "a@x.test")
	e.Origin = origin("192.0.2.1")
	if got := outcome(c.Send(t.Context(), e, text(message))); got != "552 5.3.4" {
		t.Fatal(got)
	}
	e.Origin = nil
	_, err := c.Send(t.Context(), e, text(message))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || !f.Stale() || c.Reusable() {
		t.Error(err)
	}
}
