package smtpclient_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

func addr(t testing.TB, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func envelope(t testing.TB, from string, to ...string) *mail.Envelope {
	t.Helper()
	e := &mail.Envelope{From: addr(t, from)}
	for _, s := range to {
		e.Recipients = append(e.Recipients, mail.Recipient{Address: addr(t, s)})
	}
	return e
}

func text(s string) mail.Memory { return mail.Memory{[]byte(s)} }

const message = "Subject: x\r\n\r\nhello\r\n.dot\r\n"

func options(s *smtptest.Server) smtpclient.Options {
	return smtpclient.Options{Addr: s.Addr(), Helo: "client.test"}
}

func dial(t testing.TB, o smtpclient.Options) *smtpclient.Client {
	t.Helper()
	c, err := smtpclient.Dial(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// outcome is Replies or Failure as one line.
func outcome(res smtpclient.Result, err error) string {
	var f *smtpclient.Failure
	if errors.As(err, &f) {
		s := "failure at " + f.Stage.String()
		if f.Reply != nil {
			s += fmt.Sprintf(" %d %s", f.Reply.Code, f.Reply.Status())
		} else {
			s += " lost"
		}
		if f.Uncertain {
			s += " uncertain"
		}
		if r := reply.From(err); !r.Temporary() || r.Status()[0] != 4 {
			s += " NOT TEMPORARY"
		}
		return s
	}
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, r := range res.Replies {
		if r == nil {
			all = append(all, "nil")
			continue
		}
		all = append(all, fmt.Sprintf("%d %s", r.Code, r.Status()))
	}
	return strings.Join(all, ", ")
}

// TestFaults sends a message to a, b and c while the server does something
// wrong, then a second message on the same connection if it is reusable or else
// on a new one, and looks at what came of both.
func TestFaults(t *testing.T) {
	on := func(stage smtptest.Stage, a smtptest.Action) smtptest.Option {
		return func(s *smtptest.Server) { smtptest.On(stage, smtptest.First(1, a))(s) } // a counter for each server
	}
	rcptB := func(a smtptest.Action) smtptest.Option {
		return smtptest.On(smtptest.Rcpt, smtptest.For(a, "b@x.test"))
	}
	const ok = "250 2.0.0, 250 2.0.0, 250 2.0.0"
	accepted := []string{"a@x.test", "b@x.test", "c@x.test"}
	for name, tt := range faults(on, rcptB, ok, accepted) {
		for _, mode := range []string{"pipelined", "lockstep"} {
			t.Run(name+"/"+mode, func(t *testing.T) {
				t.Parallel()
				opts := []smtptest.Option{tt.fault}
				if mode == "lockstep" {
					opts = append(opts, smtptest.Without("PIPELINING"))
				}
				if !tt.quiet {
					tt.run(t, accepted, smtpclient.Dial, opts...)
					return
				}
				synctest.Test(t, func(t *testing.T) {
					var inMemory smtptest.Network
					tt.run(t, accepted, dialer(&inMemory), append(opts, inMemory.Listen())...)
				})
			})
		}
	}
}

// dialer returns what smtpclient.Dial is, on a network in memory.
func dialer(n *smtptest.Network) func(context.Context, smtpclient.Options) (*smtpclient.Client, error) {
	return func(ctx context.Context, o smtpclient.Options) (*smtpclient.Client, error) {
		raw, err := n.Dial(ctx, o.Addr)
		if err != nil {
			return nil, err
		}
		return smtpclient.Open(ctx, raw, o)
	}
}

func (tt fault) run(t *testing.T, accepted []string, dial func(context.Context, smtpclient.Options) (*smtpclient.Client, error), opts ...smtptest.Option) {
	s := smtptest.New(t, opts...)
	env := envelope(t, "s@y.test", accepted...)
	var res smtpclient.Result
	c, err := dial(t.Context(), options(s))
	if err == nil {
		t.Cleanup(func() { c.Close() })
		res, err = c.Send(t.Context(), env, text(message))
	}
	want := tt.want
	if got := outcome(res, err); got != want && (tt.orElse == "" || got != tt.orElse) {
		t.Errorf("outcome %s, want %s (%v)", got, want, err)
	}
	kept := c != nil && c.Reusable()
	if kept != tt.kept {
		t.Errorf("reusable %v, want %v", kept, tt.kept)
		return
	}
	if !kept {
		if c, err = dial(t.Context(), options(s)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	second := envelope(t, "t@y.test", "d@x.test")
	if res, err := c.Send(t.Context(), second, text("second\r\n")); outcome(res, err) != "250 2.0.0" {
		t.Errorf("second message: %s (%v)", outcome(res, err), err)
	}
	var first [][]string
	for _, m := range s.Messages() {
		if m.From == "s@y.test" {
			first = append(first, m.Accepted())
			if string(m.Content) != message {
				t.Errorf("content %q", m.Content)
			}
		}
	}
	if tt.delivered == nil && len(first) > 0 || tt.delivered != nil && !reflect.DeepEqual(first, [][]string{tt.delivered}) {
		t.Errorf("delivered %v, want once to %v", first, tt.delivered)
	}
	if v := s.Violations(); len(v) > 0 {
		t.Errorf("violations: %q", v)
	}
}

type fault struct {
	fault     smtptest.Option
	want      string
	orElse    string // as good, where the peer's timing decides
	kept      bool
	delivered []string
	quiet     bool // only a time limit finds it
}

func faults(on func(smtptest.Stage, smtptest.Action) smtptest.Option, rcptB func(smtptest.Action) smtptest.Option,
	ok string, accepted []string,
) map[string]fault {
	ac := []string{"a@x.test", "c@x.test"}
	list := map[string]fault{
		"none":          {fault: on(smtptest.Other, smtptest.Action{}), want: ok, kept: true, delivered: accepted},
		"rcpt b 550":    {fault: rcptB(smtptest.Reply("550 5.1.1 no")), want: "250 2.0.0, 550 5.1.1, 250 2.0.0", kept: true, delivered: ac},
		"rcpt b 450":    {fault: rcptB(smtptest.Reply("450 later")), want: "250 2.0.0, 450 4.0.0, 250 2.0.0", kept: true, delivered: ac},
		"rcpt b 251":    {fault: rcptB(smtptest.Reply("251 moved")), want: ok, kept: true, delivered: accepted},
		"rcpt b 252":    {fault: rcptB(smtptest.Reply("252 cannot verify")), want: ok, kept: true, delivered: accepted},
		"rcpt b 421":    {fault: rcptB(smtptest.Reply("421 4.3.2 down").ThenClose()), want: "421 4.3.2, 421 4.3.2, 421 4.3.2"},
		"rcpt b 354":    {fault: rcptB(smtptest.Reply("354 what")), want: "failure at RCPT 451 4.5.0"},
		"rcpt b closed": {fault: rcptB(smtptest.Close()), want: "failure at RCPT lost"},
		"rcpts 550": {
			fault: smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 no"), accepted...)),
			want:  "550 5.1.1, 550 5.1.1, 550 5.1.1", kept: true,
		},
		"rcpts 550, data 354": {
			fault: both(smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 no"), accepted...)),
				on(smtptest.Data, smtptest.Reply("354 go"))),
			want: "550 5.1.1, 550 5.1.1, 550 5.1.1", kept: true,
		},
		"mail 550":       {fault: on(smtptest.Mail, smtptest.Reply("550 5.7.1 no")), want: "550 5.7.1, 550 5.7.1, 550 5.7.1", kept: true},
		"data 554":       {fault: on(smtptest.Data, smtptest.Reply("554 5.5.0 no")), want: "554 5.5.0, 554 5.5.0, 554 5.5.0", kept: true},
		"data 250":       {fault: on(smtptest.Data, smtptest.Reply("250 odd")), want: "failure at DATA 451 4.5.0"},
		"data 354 twice": {fault: on(smtptest.Data, smtptest.Extra("250 ok\r\n")), want: "failure at DATA 451 4.5.0"},
		"mail twice": {
			fault: on(smtptest.Mail, smtptest.Extra("250 ok\r\n")), want: "failure at DATA 451 4.5.0", orElse: "failure at RCPT 451 4.5.0",
		},
		"dot 550":         {fault: on(smtptest.Dot, smtptest.Reply("550 5.6.0 no")), want: "550 5.6.0, 550 5.6.0, 550 5.6.0", kept: true},
		"dot 451":         {fault: on(smtptest.Dot, smtptest.Reply("451 4.3.0 no")), want: "451 4.3.0, 451 4.3.0, 451 4.3.0", kept: true},
		"dot 421":         {fault: on(smtptest.Dot, smtptest.Reply("421 4.3.2 no")), want: "failure at final dot 421 4.3.2"},
		"dot 5.7.26":      {fault: on(smtptest.Dot, smtptest.Reply("550-5.7.26 not\n550 5.7.26 authenticated")), want: "550 5.7.26, 550 5.7.26, 550 5.7.26", kept: true},
		"dot and another": {fault: on(smtptest.Dot, smtptest.Extra("250 and again\r\n")), want: ok, delivered: accepted},
	}
	for stage, name := range map[smtptest.Stage]string{
		smtptest.Connect: "greeting", smtptest.Hello: "EHLO", smtptest.Mail: "MAIL", smtptest.Rcpt: "RCPT",
		smtptest.Data: "DATA", smtptest.Dot: "final dot",
	} {
		uncertain := ""
		if stage == smtptest.Dot {
			uncertain = " uncertain"
		}
		lost, bad := "failure at "+name+" lost"+uncertain, "failure at "+name+" 451 4.5.0"+uncertain
		list[string(stage)+" garbage"] = fault{fault: on(stage, smtptest.Garbage()), want: bad}
		list[string(stage)+" 1yz"] = fault{fault: on(stage, smtptest.Reply("150 wait")), want: bad}
		list[string(stage)+" mixed codes"] = fault{fault: on(stage, smtptest.Reply("550-5.1.1 no\n250 2.0.0 yes")), want: bad}
		list[string(stage)+" no code"] = fault{fault: on(stage, smtptest.Reply("ok")), want: bad}
		endless := bad
		if stage == smtptest.Dot { // its code is enough
			endless = "550 5.0.0, 550 5.0.0, 550 5.0.0"
		}
		list[string(stage)+" huge"] = fault{fault: on(stage, smtptest.Huge("550")), want: endless}
		list[string(stage)+" long line"] = fault{fault: on(stage, smtptest.LongLine("550")), want: endless}
		list[string(stage)+" silence"] = fault{fault: on(stage, smtptest.Silence()), want: lost, quiet: true}
		list[string(stage)+" half a line"] = fault{fault: on(stage, smtptest.HalfLine()), want: lost, quiet: true}
		list[string(stage)+" close"] = fault{fault: on(stage, smtptest.Close()), want: lost}
		list[string(stage)+" half and close"] = fault{fault: on(stage, smtptest.Raw("250").ThenClose()), want: lost}
		list[string(stage)+" reset"] = fault{fault: on(stage, smtptest.Reset()), want: lost}
	}
	list["connect reset"] = fault{fault: on(smtptest.Connect, smtptest.Reset()), want: "failure at greeting lost", orElse: "failure at connect lost"}
	for stage, name := range map[smtptest.Stage]string{
		smtptest.Connect: "greeting", smtptest.Hello: "EHLO", smtptest.Mail: "MAIL", smtptest.Data: "DATA",
	} {
		list[string(stage)+" 421"] = fault{
			fault: on(stage, smtptest.Reply("421 4.3.2 down").ThenClose()), want: "failure at " + name + " 421 4.3.2",
		}
	}
	list["greeting 554"] = fault{fault: on(smtptest.Connect, smtptest.Reply("554 5.7.1 go away")), want: "failure at greeting 554 5.7.1"}
	list["greeting 250"] = fault{fault: on(smtptest.Connect, smtptest.Reply("250 hm")), want: "failure at greeting 451 4.5.0"}
	list["EHLO 450"] = fault{fault: on(smtptest.Hello, smtptest.Reply("450 4.7.0 hm")), want: "failure at EHLO 450 4.7.0"}
	list["EHLO 502"] = fault{fault: on(smtptest.Hello, smtptest.Reply("502 hm")), want: ok, kept: true, delivered: accepted}
	return list
}

func both(a, b smtptest.Option) smtptest.Option {
	return func(s *smtptest.Server) { a(s); b(s) }
}

func TestParameters(t *testing.T) {
	full := func() *mail.Envelope {
		e := envelope(t, "sénder@example.test", "réc@bücher.test", "b@x.test")
		e.UTF8, e.Body, e.Return, e.EnvelopeID = true, "8BITMIME", "HDRS", "a+b=c d"
		e.Recipients[0].Notify = mail.NotifySuccess | mail.NotifyDelay
		e.Recipients[0].ORCPT = "utf-8;réc@bücher.test"
		e.Recipients[1].Notify = mail.NotifyNever
		e.Recipients[1].ORCPT = "rfc822;b+x@x.test"
		return e
	}
	t.Run("all", func(t *testing.T) {
		s := smtptest.New(t)
		c := dial(t, options(s))
		if got := outcome(c.Send(t.Context(), full(), text("x\r\n"))); got != "250 2.0.0, 250 2.0.0" {
			t.Fatal(got)
		}
		want := []string{
			"EHLO client.test",
			"MAIL FROM:<sénder@example.test> SIZE=3 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb+3Dc+20d",
			`RCPT TO:<réc@bücher.test> NOTIFY=SUCCESS,DELAY ORCPT=utf-8;r\x{E9}c@b\x{FC}cher.test`,
			"RCPT TO:<b@x.test> NOTIFY=NEVER ORCPT=rfc822;b+2Bx@x.test",
			"DATA",
		}
		if got := s.Dialog(1); !reflect.DeepEqual(got, want) {
			t.Errorf("dialog %q", got)
		}
	})
	t.Run("other types, and too long", func(t *testing.T) {
		s := smtptest.New(t)
		c := dial(t, options(s))
		e := full()
		e.From, e.UTF8, e.Return, e.Body = mail.Address{}, false, "", ""
		e.EnvelopeID = strings.Repeat("=", 34)
		e.Recipients = nil
		for _, orcpt := range []string{"x400;/S=a b/", "x-my_type;a", "rfc 822;a", "rfc822;" + strings.Repeat("x", 493), "rfc822;" + strings.Repeat("x", 494), "utf-8;" + strings.Repeat("é", 90)} {
			e.Recipients = append(e.Recipients, mail.Recipient{Address: mail.Address{Local: "b", Domain: "x.test"}, ORCPT: orcpt})
		}
		c.Send(t.Context(), e, text("x\r\n"))
		to := "RCPT TO:<b@x.test>"
		want := []string{
			"EHLO client.test", "MAIL FROM:<> SIZE=3", to + " ORCPT=x400;/S+3Da+20b/", to + " ORCPT=x-my_type;a", to,
			to + " ORCPT=rfc822;" + strings.Repeat("x", 493), to, to, "DATA",
		}
		if got := s.Dialog(1); !reflect.DeepEqual(got, want) {
			t.Errorf("dialog %q", got)
		}
	})
	t.Run("none offered", func(t *testing.T) {
		s := smtptest.New(t, smtptest.Extensions())
		c := dial(t, options(s))
		e := full()
		if got := outcome(c.Send(t.Context(), e, text("x\r\n"))); got != "553 5.6.7, 553 5.6.7" {
			t.Error(got)
		}
		e.From = addr(t, "s@bücher.test")
		if got := outcome(c.Send(t.Context(), e, text("x\r\n"))); got != "553 5.6.7, 250 2.0.0" {
			t.Error(got)
		}
		e.Recipients[0].Address = addr(t, "r@bücher.test")
		if got := outcome(c.Send(t.Context(), e, text("x\r\n"))); got != "250 2.0.0, 250 2.0.0" {
			t.Error(got)
		}
		want := []string{
			"EHLO client.test", "MAIL FROM:<s@xn--bcher-kva.test>", "RCPT TO:<b@x.test>", "DATA",
			"MAIL FROM:<s@xn--bcher-kva.test>", "RCPT TO:<r@xn--bcher-kva.test>", "RCPT TO:<b@x.test>", "DATA",
		}
		if got := s.Dialog(1); !reflect.DeepEqual(got, want) {
			t.Errorf("dialog %q", got)
		}
	})
	t.Run("header beyond ASCII", func(t *testing.T) {
		for _, tt := range []struct {
			utf8       bool
			extensions []string
			content    mail.Content
			want       string
		}{
			{true, nil, text("Subject: x\r\n\r\nbödy\r\n"), "250 2.0.0"},
			{true, nil, text("Subject: ö\r\n\r\nbody\r\n"), "553 5.6.7"},
			{true, nil, mail.Memory{[]byte("X: " + strings.Repeat("x", 5000) + "\r"), []byte("\nSubject: ö\r\n\r\n")}, "553 5.6.7"},
			{true, nil, text("no body, no line end: ö"), "553 5.6.7"},
			{true, nil, text(strings.Repeat("x", 4096) + "\r\n\r\nö"), "250 2.0.0"},
			{true, nil, text(strings.Repeat("x", 4096) + "\r\nSubject: ö\r\n\r\n"), "553 5.6.7"},
			{false, nil, text("Subject: ö\r\n\r\nbody\r\n"), "250 2.0.0"}, // as it is, as it came
			{true, []string{"SMTPUTF8"}, text("Subject: ö\r\n\r\nbody\r\n"), "250 2.0.0"},
			{true, nil, stream{"Subject: x\r\n", 12, errors.New("disk")}, "failure at message content lost"},
		} {
			s := smtptest.New(t, smtptest.Extensions(tt.extensions...))
			c := dial(t, options(s))
			e := envelope(t, "s@bücher.test", "a@x.test")
			e.UTF8 = tt.utf8
			if got := outcome(c.Send(t.Context(), e, tt.content)); got != tt.want || !c.Reusable() {
				t.Errorf("%+v: %s", tt, got)
			}
		}
	})
	t.Run("size", func(t *testing.T) {
		s := smtptest.New(t, smtptest.Extensions("SIZE 10", "PIPELINING"))
		c := dial(t, options(s))
		e := envelope(t, "", "a@x.test", "b@x.test")
		if got := outcome(c.Send(t.Context(), e, text("more than ten\r\n"))); got != "552 5.3.4, 552 5.3.4" {
			t.Error(got)
		}
		if got := outcome(c.Send(t.Context(), e, text("ten bytes."))); got != "250 2.0.0, 250 2.0.0" {
			t.Error(got)
		}
		if m := s.Messages(); len(m) != 1 || m[0].From != "" || string(m[0].Content) != "ten bytes.\r\n" {
			t.Errorf("%v", m)
		}
	})
	t.Run("injection", func(t *testing.T) {
		s := smtptest.New(t)
		c := dial(t, options(s))
		e := envelope(t, "a@x.test", "b@x.test", "c@x.test")
		e.Recipients[0].Address.Local = "b\r\nRCPT TO:<evil"
		e.EnvelopeID, e.Recipients[1].ORCPT = "x\r\nRSET", "rfc822;\r\nRSET"
		if got := outcome(c.Send(t.Context(), e, text(message))); got != "553 5.1.3, 250 2.0.0" {
			t.Error(got)
		}
		e.From.Domain = "x> SIZE=1\n"
		if got := outcome(c.Send(t.Context(), e, text(message))); got != "553 5.1.7, 553 5.1.7" {
			t.Error(got)
		}
		o := options(s)
		o.Helo = "a\r\nb"
		if _, err := smtpclient.Dial(t.Context(), o); err == nil {
			t.Error("dialed with a bad name")
		}
		if got := s.Dialog(1); len(got) != 4 {
			t.Errorf("dialog %q", got)
		}
	})
}

func TestTLS(t *testing.T) {
	for _, tt := range []struct {
		name   string
		server []smtptest.Option
		policy smtpclient.TLSPolicy
		set    func(o *smtpclient.Options, s *smtptest.Server)
		want   string // outcome
		tls    bool
	}{
		{name: "none", server: []smtptest.Option{smtptest.TLS()}, want: "250 2.0.0"},
		{name: "may", server: []smtptest.Option{smtptest.TLS()}, policy: smtpclient.TLSMay, want: "250 2.0.0", tls: true},
		{name: "may, not offered", policy: smtpclient.TLSMay, want: "250 2.0.0"},
		{
			name: "may, refused", policy: smtpclient.TLSMay, want: "250 2.0.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 not now")))},
		},
		{
			name: "may, broken", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS()))},
		},
		{
			name: "may, broken behind the handshake", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.Hello, func(e smtptest.Event) smtptest.Action {
				if e.TLS {
					return smtptest.Close()
				}
				return smtptest.Action{}
			})},
		},
		{
			name: "may, refused behind the handshake", policy: smtpclient.TLSMay, want: "failure at EHLO 421 4.0.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.Hello, func(e smtptest.Event) smtptest.Action {
				if e.TLS {
					return smtptest.Reply("421 no").ThenClose()
				}
				return smtptest.Action{}
			})},
		},
		{
			name: "may, broken by a 421", policy: smtpclient.TLSMay, want: "failure at STARTTLS 421 4.0.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("421 no")))},
		},
		{
			name: "may, broken: closed", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Close()))},
		},
		{
			name: "may, broken: reset", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reset()))},
		},
		{
			name: "may, broken: refused and closed", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 no").ThenClose()))},
		},
		{
			name: "may, broken: no reply", policy: smtpclient.TLSMay, want: "failure at STARTTLS 451 4.5.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Garbage()))},
		},
		{
			name: "injection", policy: smtpclient.TLSMay, want: "failure at STARTTLS lost",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Extra("250-x\r\n250 AUTH PLAIN\r\n")))},
		},
		{name: "may but verified, not offered", policy: smtpclient.TLSMayVerify, want: "250 2.0.0"},
		{name: "may but verified, unknown authority", server: []smtptest.Option{smtptest.TLS()}, policy: smtpclient.TLSMayVerify, want: "failure at STARTTLS lost"},
		{
			name: "may but verified, refused", policy: smtpclient.TLSMayVerify, want: "failure at STARTTLS 454 4.7.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("454 4.7.0 not now")))},
		},
		{
			name: "may but verified", server: []smtptest.Option{smtptest.TLS("mx.x.test")}, policy: smtpclient.TLSMayVerify, want: "250 2.0.0", tls: true,
			set: func(o *smtpclient.Options, s *smtptest.Server) {
				o.Host, o.TLSConfig = "mx.x.test", &tls.Config{RootCAs: s.Roots()}
			},
		},
		{name: "encrypt, not offered", policy: smtpclient.TLSEncrypt, want: "failure at STARTTLS lost"},
		{name: "encrypt", server: []smtptest.Option{smtptest.TLS()}, policy: smtpclient.TLSEncrypt, want: "250 2.0.0", tls: true},
		{
			name: "encrypt, refused", policy: smtpclient.TLSEncrypt, want: "failure at STARTTLS 554 5.0.0",
			server: []smtptest.Option{smtptest.TLS(), smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.Reply("554 no")))},
		},
		{name: "verify, unknown authority", server: []smtptest.Option{smtptest.TLS()}, policy: smtpclient.TLSVerify, want: "failure at STARTTLS lost"},
		{
			name: "verify", server: []smtptest.Option{smtptest.TLS("mx.x.test")}, policy: smtpclient.TLSVerify, want: "250 2.0.0", tls: true,
			set: func(o *smtpclient.Options, s *smtptest.Server) {
				o.Host, o.TLSConfig = "mx.x.test", &tls.Config{RootCAs: s.Roots()}
			},
		},
		{
			name: "verify, other name", server: []smtptest.Option{smtptest.TLS("mx.x.test")}, policy: smtpclient.TLSVerify, want: "failure at STARTTLS lost",
			set: func(o *smtpclient.Options, s *smtptest.Server) {
				o.Host, o.TLSConfig = "mx.y.test", &tls.Config{RootCAs: s.Roots()}
			},
		},
		{
			name: "implicit", server: []smtptest.Option{smtptest.ImplicitTLS()}, want: "250 2.0.0", tls: true,
			set: func(o *smtpclient.Options, s *smtptest.Server) { o.ImplicitTLS = true },
		},
		{
			name: "implicit to a plain server", want: "failure at STARTTLS lost",
			set: func(o *smtpclient.Options, s *smtptest.Server) { o.ImplicitTLS = true },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, tt.server...)
			o := options(s)
			o.TLS = tt.policy
			if tt.set != nil {
				tt.set(&o, s)
			}
			var res smtpclient.Result
			c, err := smtpclient.Dial(t.Context(), o)
			if err == nil {
				defer c.Close()
				res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(strings.Repeat(message, 5000)))
			}
			if got := outcome(res, err); got != tt.want {
				t.Fatalf("%s, want %s (%v)", got, tt.want, err)
			}
			var f *smtpclient.Failure
			if strings.HasPrefix(tt.name, "may, broken") != (errors.As(err, &f) && f.Handshake && tt.policy == smtpclient.TLSMay) {
				t.Errorf("handshake: %v", err)
			}
			if tt.name == "injection" && !strings.Contains(err.Error(), "plaintext behind STARTTLS") {
				t.Error(err)
			}
			if err != nil {
				return
			}
			m := s.Messages()
			if len(m) != 1 || m[0].TLS != tt.tls || (res.TLS != "none") != tt.tls || m[0].Helo != "client.test" {
				t.Errorf("%d messages, TLS %q", len(m), res.TLS)
			}
			if string(m[0].Content) != strings.Repeat(message, 5000) {
				t.Error("content differs")
			}
		})
	}
}

func TestAuth(t *testing.T) {
	creds := smtptest.Credentials("me", "secret")
	for _, tt := range []struct {
		name, kind, user, pass string
		server                 []smtptest.Option
		want                   string
	}{
		{name: "plain", kind: "plain", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "250 2.0.0"},
		{name: "login", kind: "login", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "250 2.0.0"},
		{name: "any", kind: "any", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "250 2.0.0"},
		{name: "user alone", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "250 2.0.0"},
		{name: "any is login", kind: "any", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("GSSAPI", "LOGIN")}, want: "250 2.0.0"},
		{name: "none in common", kind: "plain", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("LOGIN")}, want: "failure at AUTH lost"},
		{name: "not offered", kind: "plain", user: "me", pass: "secret", want: "failure at AUTH lost"},
		{name: "wrong", kind: "plain", user: "me", pass: "guess", server: []smtptest.Option{creds}, want: "failure at AUTH 535 5.7.8"},
		{name: "cram-md5", kind: "cram-md5", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("PLAIN", "CRAM-MD5")}, want: "250 2.0.0"},
		{name: "cram-md5, wrong", kind: "cram-md5", user: "me", pass: "guess", server: []smtptest.Option{creds, smtptest.Mechanisms("CRAM-MD5")}, want: "failure at AUTH 535 5.7.8"},
		{name: "any in clear is cram-md5", kind: "any", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("PLAIN", "LOGIN", "CRAM-MD5"), smtptest.On(smtptest.Auth, notBy("AUTH CRAM-MD5"))}, want: "250 2.0.0"},
		{name: "first of several", kind: "login plain", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("PLAIN", "LOGIN"), smtptest.On(smtptest.Auth, notBy("AUTH LOGIN"))}, want: "250 2.0.0"},
		{name: "second of several", kind: "login plain", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("PLAIN")}, want: "250 2.0.0"},
		{name: "none of several", kind: "login cram-md5", user: "me", pass: "secret", server: []smtptest.Option{creds, smtptest.Mechanisms("PLAIN")}, want: "failure at AUTH lost"},
		{name: "one of several unknown", kind: "login ntlm", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "failure at AUTH lost"},
		{name: "cram-md5, not offered", kind: "cram-md5", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "failure at AUTH lost"},
		{name: "unknown", kind: "gssapi", user: "me", pass: "secret", server: []smtptest.Option{creds}, want: "failure at AUTH lost"},
		{name: "long", kind: "plain", user: "me", pass: strings.Repeat("x", 600), server: []smtptest.Option{smtptest.Credentials("me", strings.Repeat("x", 600))}, want: "250 2.0.0"},
		{name: "bad challenge", kind: "plain", user: "me", pass: "x", server: []smtptest.Option{creds, smtptest.On(smtptest.Auth, smtptest.Always(smtptest.Reply("334 ==bad")))}, want: "failure at AUTH lost"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, tt.server...)
			o := options(s)
			o.AuthType, o.AuthUser, o.AuthPass, o.AuthRequired = tt.kind, tt.user, tt.pass, true
			var res smtpclient.Result
			c, err := smtpclient.Dial(t.Context(), o)
			if err == nil {
				res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
				c.Quit()
			}
			if got := outcome(res, err); got != tt.want {
				t.Fatalf("%s, want %s (%v)", got, tt.want, err)
			}
			if m := s.Messages(); err == nil && (!res.Authenticated || m[0].User != "me") {
				t.Error("not authenticated")
			}
			if err != nil && strings.Contains(err.Error(), tt.pass) {
				t.Error("password in the error")
			}
		})
	}
}

// notBy refuses everything but a line.
func notBy(line string) smtptest.Hook {
	return func(e smtptest.Event) smtptest.Action {
		if e.Line != line {
			return smtptest.Reply("535 5.7.8 not by " + e.Line)
		}
		return smtptest.Action{}
	}
}

// TestAuthIsNotRequired: then a server without it gets the message all the same,
// but not one that refuses it, and the Result tells.
func TestAuthIsNotRequired(t *testing.T) {
	creds := smtptest.Credentials("me", "secret")
	for name, tt := range map[string]struct {
		opts []smtptest.Option
		want string
	}{
		"not offered":    {nil, "250 2.0.0"},
		"none in common": {[]smtptest.Option{creds, smtptest.Mechanisms("GSSAPI")}, "250 2.0.0"},
		"refused":        {[]smtptest.Option{smtptest.Credentials("me", "other")}, "failure at AUTH 535 5.7.8"},
	} {
		s := smtptest.New(t, tt.opts...)
		o := options(s)
		o.AuthUser, o.AuthPass = "me", "secret"
		var res smtpclient.Result
		c, err := smtpclient.Dial(t.Context(), o)
		if err == nil {
			defer c.Close()
			res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
		}
		if got := outcome(res, err); got != tt.want || res.Authenticated {
			t.Errorf("%s: %s (%v)", name, got, err)
		}
	}
}

// TestExternal: the certificate is what tells who we are.
func TestExternal(t *testing.T) {
	s := smtptest.New(t, smtptest.TLS(), smtptest.Credentials("me", "secret"), smtptest.Mechanisms("EXTERNAL", "PLAIN"))
	for _, user := range []string{"", "me"} {
		o := options(s)
		o.TLS, o.AuthType, o.AuthUser, o.AuthRequired = smtpclient.TLSEncrypt, "external", user, true
		if _, err := smtpclient.Dial(t.Context(), o); err == nil {
			t.Error("authenticated without a certificate")
		}
		cert := smtptest.New(t, smtptest.TLS()).Certificate()
		o.TLSConfig = &tls.Config{Certificates: []tls.Certificate{cert}}
		c := dial(t, o)
		if res, err := c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message)); err != nil || !res.Authenticated {
			t.Error(res, err)
		}
	}
	if m := s.Messages(); len(m) != 2 || m[0].Certificate == "" {
		t.Errorf("%+v", m)
	}
}

func TestLMTP(t *testing.T) {
	to := []string{"a@x.test", "b@x.test", "c@x.test", "d@x.test"}
	at := func(a smtptest.Action, who ...string) smtptest.Option {
		return smtptest.On(smtptest.Dot, smtptest.For(a, who...))
	}
	refuseB := smtptest.On(smtptest.Rcpt, smtptest.For(smtptest.Reply("550 5.1.1 no"), "b@x.test"))
	for _, tt := range []struct {
		name string
		opts []smtptest.Option
		want string
		kept bool
	}{
		{"all", nil, "250 2.0.0, 250 2.0.0, 250 2.0.0, 250 2.0.0", true},
		{"each its own", []smtptest.Option{refuseB, at(smtptest.Reply("552 5.2.2 full"), "c@x.test")}, "250 2.0.0, 550 5.1.1, 552 5.2.2, 250 2.0.0", true},
		{"lost at the first", []smtptest.Option{at(smtptest.Close(), "a@x.test")}, "failure at final dot lost uncertain", false},
		{"lost at the third", []smtptest.Option{refuseB, at(smtptest.Close(), "d@x.test")}, "250 2.0.0, 550 5.1.1, 250 2.0.0, 451 4.4.2", false},
		{"garbage at the third", []smtptest.Option{at(smtptest.Garbage(), "c@x.test")}, "250 2.0.0, 250 2.0.0, 451 4.4.2, 451 4.4.2", false},
		{"421 at the second", []smtptest.Option{at(smtptest.Reply("421 4.3.2 x"), "b@x.test")}, "250 2.0.0, 421 4.3.2, 421 4.3.2, 421 4.3.2", false},
		{"all refused", []smtptest.Option{smtptest.On(smtptest.Rcpt, smtptest.Always(smtptest.Reply("550 5.1.1 no")))}, "550 5.1.1, 550 5.1.1, 550 5.1.1, 550 5.1.1", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, append(tt.opts, smtptest.LMTP())...)
			o := options(s)
			o.Protocol = mail.LMTP
			c := dial(t, o)
			res, err := c.Send(t.Context(), envelope(t, "s@y.test", to...), text(message))
			if got := outcome(res, err); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if c.Reusable() != tt.kept {
				t.Errorf("reusable %v", c.Reusable())
			}
			if tt.name == "lost at the third" {
				var f *smtpclient.Failure
				if !errors.As(res.Replies[3].Cause, &f) || !f.Uncertain {
					t.Error("not uncertain")
				}
			}
			if v := s.Violations(); len(v) > 0 {
				t.Error(v)
			}
		})
	}
}

func TestUnixSocket(t *testing.T) {
	s := smtptest.New(t, smtptest.Listen("unix", smtptest.Socket(t)), smtptest.LMTP())
	c := dial(t, smtpclient.Options{Network: "unix", Addr: s.Addr(), Protocol: mail.LMTP})
	if got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))); got != "250 2.0.0" {
		t.Error(got)
	}
	if got := s.Dialog(1)[0]; got != "LHLO localhost" {
		t.Error(got)
	}
}

// TestManyRecipients shows that a server which answers every command at once
// and at length never meets a client that does not read.
func TestManyRecipients(t *testing.T) {
	long := strings.Repeat("x", 900)
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		if strings.HasPrefix(e.Address, "bad") {
			return smtptest.Reply("550-5.1.1 " + long + "\n550 5.1.1 " + long)
		}
		return smtptest.Reply("250-2.1.5 " + long + "\n250 2.1.5 " + long)
	}))
	e := envelope(t, "s@y.test")
	for i := range 5000 {
		name := "good"
		if i%3 == 0 {
			name = "bad"
		}
		e.Recipients = append(e.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprint(name, i), Domain: "x.test"}})
	}
	c := dial(t, options(s))
	res, err := c.Send(t.Context(), e, text(message))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range res.Replies {
		if r.Positive() != (i%3 != 0) {
			t.Fatalf("recipient %d: %s", i, r)
		}
	}
	if m := s.Messages(); len(m) != 1 || len(m[0].Accepted()) != 5000-1667 {
		t.Error("wrong recipients")
	}
	// MAIL refused: no need to go through them all.
	s = smtptest.New(t, smtptest.On(smtptest.Mail, smtptest.Always(smtptest.Reply("550 5.7.1 no"))))
	c = dial(t, options(s))
	res, err = c.Send(t.Context(), e, text(message))
	if err != nil || res.Replies[4999].Code != 550 || res.Replies[4999].Status() != (reply.Enhanced{5, 7, 1}) {
		t.Error(err)
	}
	if n := len(s.Dialog(1)); n > 600 {
		t.Errorf("%d commands", n)
	}
}

func TestBind(t *testing.T) {
	s := smtptest.New(t)
	o := smtpclient.Options{Addr: s.Addr(), Bind: netip.MustParseAddr("127.0.0.5")}
	dial(t, o)
	s.Wait(func() bool { return len(s.Dialog(1)) == 1 }, "EHLO")
	if got := s.Dialog(1)[0]; got != "EHLO [127.0.0.5]" {
		t.Error(got)
	}
}

func TestCancel(t *testing.T) {
	for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Data, smtptest.Body, smtptest.Dot} {
		t.Run(string(stage), func(t *testing.T) {
			reached := make(chan struct{})
			s := smtptest.New(t, smtptest.On(stage, func(smtptest.Event) smtptest.Action {
				close(reached)
				return smtptest.Stall()
			}))
			ctx, cancel := context.WithCancel(t.Context())
			go func() { <-reached; cancel() }()
			size := 1 << 20
			if stage == smtptest.Body { // more than sockets hold
				size = 32 << 20
			}
			c, err := smtpclient.Dial(ctx, options(s))
			if err == nil {
				_, err = c.Send(ctx, envelope(t, "s@y.test", "a@x.test"), mail.Memory{make([]byte, size)})
			}
			var f *smtpclient.Failure
			if !errors.As(err, &f) || !errors.Is(err, context.Canceled) {
				t.Fatal(err)
			}
			if c != nil && c.Reusable() {
				t.Error("reusable")
			}
		})
	}
	s := smtptest.New(t)
	c := dial(t, options(s))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Send(ctx, envelope(t, "s@y.test", "a@x.test"), text(message)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if !c.Reusable() {
		t.Error("a context that ended before cost the connection")
	}
}

// stream is a Content that is read, and may break.
type stream struct {
	data string
	size int64
	err  error
}

func (s stream) Size() int64 { return s.size }
func (s stream) Open() (io.ReadCloser, error) {
	r := io.Reader(strings.NewReader(s.data))
	if s.err != nil {
		r = io.MultiReader(r, broken{s.err})
	}
	return io.NopCloser(r), nil
}

type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

func TestContent(t *testing.T) {
	big := strings.Repeat(strings.Repeat("x", 998)+"\r\n", 500)
	for _, tt := range []struct {
		name    string
		content mail.Content
		want    string
		got     string
	}{
		{"empty", mail.Memory{}, "250 2.0.0", ""},
		{"stream", stream{big, int64(len(big)), nil}, "250 2.0.0", big},
		{"pieces", mail.Memory{[]byte("a\r"), []byte("\n."), []byte("b\r\n.\r"), []byte("\n")}, "250 2.0.0", "a\r\n.b\r\n.\r\n"},
		{"bare", text("a\n.\nb\r.\rc\r\r\nd"), "250 2.0.0", "a\r\n.\r\nb\r\n.\r\nc\r\nd\r\n"},
		{"unreadable", stream{big, int64(len(big)), errors.New("disk")}, "failure at message content lost", ""},
		{"short", stream{big, int64(len(big)) + 1, nil}, "failure at message content lost", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t)
			c := dial(t, options(s))
			got := outcome(c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), tt.content))
			if got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if strings.HasPrefix(tt.want, "failure") {
				s.WaitOpen(0)
				if len(s.Transactions()) > 0 {
					t.Error("half a message was ended by a dot")
				}
				return
			}
			if m := s.Messages(); len(m) != 1 || string(m[0].Content) != tt.got || len(s.Violations()) > 0 {
				t.Errorf("content differs; %q", s.Violations())
			}
		})
	}
}

// TestReset: a connection on which a transaction stopped half-way is reset
// before the next one, and only then.
func TestReset(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, smtptest.First(1, smtptest.Reply("450 4.2.0 later"))))
	c := dial(t, options(s))
	e := envelope(t, "s@y.test", "a@x.test")
	for _, want := range []string{"450 4.2.0", "250 2.0.0", "250 2.0.0"} {
		if got := outcome(c.Send(t.Context(), e, text(message))); got != want {
			t.Fatal(got)
		}
	}
	c.Quit()
	s.WaitOpen(0)
	var verbs []string
	for _, line := range s.Dialog(1) {
		verbs = append(verbs, line[:4])
	}
	if got := strings.Join(verbs, " "); got != "EHLO MAIL RCPT DATA RSET MAIL RCPT DATA MAIL RCPT DATA QUIT" {
		t.Error(got)
	}
}

// TestStale: what a kept connection that the server closed looks like.
func TestStale(t *testing.T) {
	for name, last := range map[string]smtptest.Action{
		"closed": smtptest.Close(), "reset": smtptest.Reset(), "421": smtptest.Reply("421 4.4.2 idle").ThenClose(),
	} {
		t.Run(name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
				if e.Transaction == 2 {
					return last
				}
				return smtptest.Action{}
			}))
			c := dial(t, options(s))
			e := envelope(t, "s@y.test", "a@x.test")
			if _, err := c.Send(t.Context(), e, text(message)); err != nil {
				t.Fatal(err)
			}
			_, err := c.Send(t.Context(), e, text(message))
			var f *smtpclient.Failure
			if !errors.As(err, &f) || !f.Stale() || f.Fresh || f.Uncertain || c.Reusable() {
				t.Errorf("%#v", err)
			}
		})
	}
}

// TestStaleReset: the same for a connection that has to be reset first.
func TestStaleReset(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, smtptest.First(1, smtptest.Reply("450 4.2.0 later"))),
		smtptest.On(smtptest.Rset, smtptest.Always(smtptest.Close())))
	c := dial(t, options(s))
	e := envelope(t, "s@y.test", "a@x.test")
	if got := outcome(c.Send(t.Context(), e, text(message))); got != "450 4.2.0" || !c.Reusable() {
		t.Fatal(got)
	}
	_, err := c.Send(t.Context(), e, text(message))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || !f.Stale() || f.Stage != smtpclient.StageReset {
		t.Error(err)
	}
}

// TestRequireTLS: a message that asks for it never goes where it is not kept.
func TestRequireTLS(t *testing.T) {
	e := envelope(t, "s@y.test", "a@x.test")
	e.RequireTLS = true
	for _, tt := range []struct {
		extension string
		policy    smtpclient.TLSPolicy
		want      string
	}{
		{"REQUIRETLS", smtpclient.TLSVerify, "250 2.0.0"},
		{"REQUIRETLS", smtpclient.TLSEncrypt, "failure at MAIL 451 4.7.10"},
		{"REQUIRETLS", smtpclient.TLSNone, "failure at MAIL 451 4.7.10"},
		{"DSN", smtpclient.TLSVerify, "failure at MAIL 451 4.7.30"},
	} {
		s := smtptest.New(t, smtptest.TLS(), smtptest.Extensions(tt.extension))
		o := options(s)
		o.TLS, o.TLSConfig = tt.policy, &tls.Config{RootCAs: s.Roots()}
		c := dial(t, o)
		if got := outcome(c.Send(t.Context(), e, text(message))); got != tt.want || !c.Reusable() {
			t.Errorf("%+v: %s", tt, got)
		}
		for _, m := range s.Messages() {
			if _, ok := m.Params["REQUIRETLS"]; !ok || tt.want != "250 2.0.0" {
				t.Errorf("%+v", m)
			}
		}
	}
}

// TestVerify: the caller's check takes the place of Go's, and what it says counts.
func TestVerify(t *testing.T) {
	for _, tt := range []struct {
		name     string
		policy   smtpclient.TLSPolicy
		says     error
		want     string
		verified bool
	}{
		{"verified", smtpclient.TLSVerify, nil, "250 2.0.0", true},
		{"looked at", smtpclient.TLSEncrypt, nil, "250 2.0.0", false},
		{"looked at, if there is TLS", smtpclient.TLSMay, nil, "250 2.0.0", false},
		{"refused", smtpclient.TLSVerify, errors.New("not the one"), "failure at STARTTLS lost", false},
		{"refused, unverified", smtpclient.TLSEncrypt, errors.New("not the one"), "failure at STARTTLS lost", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.TLS())
			o := options(s)
			asked := 0
			o.TLS, o.Host, o.VerifyKey = tt.policy, "mx.other.test", "k"
			o.Verify = func(state tls.ConnectionState) error {
				if asked++; len(state.PeerCertificates) != 1 || state.ServerName != "mx.other.test" {
					t.Errorf("%+v", state)
				}
				return tt.says
			}
			var res smtpclient.Result
			c, err := smtpclient.Dial(t.Context(), o)
			if err == nil {
				defer c.Close()
				res, err = c.Send(t.Context(), envelope(t, "s@y.test", "a@x.test"), text(message))
			}
			if got := outcome(res, err); got != tt.want || asked != 1 || res.Verified != tt.verified {
				t.Errorf("%s (%v), asked %d times, verified %v", got, err, asked, res.Verified)
			}
			if tt.says != nil && !errors.Is(err, tt.says) {
				t.Error(err)
			}
		})
	}
}

func TestConnectFails(t *testing.T) {
	s := smtptest.New(t, smtptest.Listen("tcp", "127.0.0.98:0")) // where nobody takes the port
	s.Close()
	_, err := smtpclient.Dial(t.Context(), options(s))
	var f *smtpclient.Failure
	if !errors.As(err, &f) || f.Stage != smtpclient.StageConnect || !f.Unreachable() || !f.Fresh {
		t.Fatal(err)
	}
	if r := reply.From(err); r.String() != "451 4.4.1 Next hop cannot be reached" {
		t.Error(r)
	}
}
