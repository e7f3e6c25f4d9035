package forward

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/pool"
	"tarishi/internal/route"
	"tarishi/internal/smtpclient"
	"tarishi/internal/test/smtptest"
)

// onWire returns options with a real pool, which ends with the test.
func onWire(t *testing.T) settings {
	t.Helper()
	return settingsOf(t, pool.Options{})
}

// onNetwork is onWire without sockets.
func onNetwork(t *testing.T, n *smtptest.Network) settings {
	t.Helper()
	return settingsOf(t, pool.Options{Connect: func(ctx context.Context, o smtpclient.Options) (net.Conn, error) { return n.Dial(ctx, o.Addr) }})
}

func settingsOf(t *testing.T, po pool.Options) settings {
	t.Helper()
	o := options(nil)
	p := pool.New(po)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	o.engine.Sender = p
	return o
}

func hopTo(s *smtptest.Server) mail.NextHop { return mail.NextHop{Host: "127.0.0.1", Port: s.Port()} }

// deadHop is where nobody listens, unlike a port that was free a moment ago.
var deadHop = mail.NextHop{Host: "127.0.0.98", Port: 1}

func via(hops ...mail.NextHop) *route.Route {
	return &route.Route{Name: "main", Hosts: hops, ConnectTimeout: 5 * time.Second, Timeout: time.Minute, MaxConnections: 10, MaxMessages: 100}
}

func TestOnWire(t *testing.T) {
	always := func(s smtptest.Stage, text string) smtptest.Option {
		return smtptest.On(s, smtptest.Always(smtptest.Reply(text)))
	}
	for _, tc := range []struct {
		name   string
		server []smtptest.Option
		want   string
		taken  int
	}{
		{"taken", []smtptest.Option{always(smtptest.Dot, "250 2.0.0 as 17")}, "OK 250 2.0.0 as 17", 1},
		{"no pipelining", []smtptest.Option{smtptest.Without("PIPELINING"), always(smtptest.Dot, "250-2.0.0 a\n250 2.0.0 b")}, "OK 250 2.0.0 a, b", 1},
		{"sender refused", []smtptest.Option{always(smtptest.Mail, "553 5.1.8 bad sender")}, "DENY 550 5.1.8 bad sender", 0},
		{"sender deferred", []smtptest.Option{always(smtptest.Mail, "451 4.1.8 later")}, "DENYSOFT 450 4.1.8 later", 0},
		{"recipient refused", []smtptest.Option{always(smtptest.Rcpt, "550 5.1.1 unknown")}, "DENY 550 5.1.1 unknown", 0},
		{"DATA refused", []smtptest.Option{always(smtptest.Data, "554 5.5.1 no")}, "DENY 550 5.5.1 no", 0},
		{"dot refused", []smtptest.Option{always(smtptest.Dot, "554 5.7.1 spam")}, "DENY 550 5.7.1 spam", 0},
		{"dot deferred", []smtptest.Option{always(smtptest.Dot, "452 4.3.1 full")}, "DENYSOFT 450 4.3.1 full", 0},
		{"421 at MAIL", []smtptest.Option{always(smtptest.Mail, "421 4.3.2 closing")}, "DENYSOFT 450 4.3.2 closing", 0},
		{"greeting 5yz", []smtptest.Option{always(smtptest.Connect, "554 5.3.2 busy")}, "DENYSOFT 451 4.4.1 No backend can be reached, please try again later", 0},
		{"greeting is none", []smtptest.Option{smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Garbage()))}, "DENYSOFT 451 4.4.1 No backend can be reached, please try again later", 0},
		{"closed before DATA", []smtptest.Option{smtptest.On(smtptest.Rcpt, smtptest.Always(smtptest.Close()))}, "DENYSOFT 451 4.4.1 No backend can be reached, please try again later", 0},
		{"lost after the dot", []smtptest.Option{smtptest.On(smtptest.Dot, smtptest.Always(smtptest.Reset()))}, "DENYSOFT 451 4.4.2 Connection to the backend lost, please try again later", 0},
		{"no AUTH offered", nil, "DENYSOFT 451 4.7.0 No authentication at the backend, please try again later", 0},
		{"wrong password", []smtptest.Option{smtptest.Credentials("u", "other")}, "DENYSOFT 451 4.7.0 No authentication at the backend, please try again later", 0},
		{"AUTH", []smtptest.Option{smtptest.Credentials("u", "p"), always(smtptest.Dot, "250 2.0.0 yes")}, "OK 250 2.0.0 yes", 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := smtptest.New(t, tc.server...)
			r := via(hopTo(s))
			if strings.Contains(tc.name, "AUTH") || tc.name == "wrong password" {
				r.AuthType, r.AuthUser, r.AuthPass = "plain", "u", "p"
			}
			v := forwarder(onWire(t)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
			if got := v.Code.String() + " " + v.Reply.String(); got != tc.want {
				t.Errorf("%s\ncause %v", got, v.Reply.Cause)
			}
			got := s.Messages()
			if len(got) != tc.taken || tc.taken == 1 && string(got[0].Content) != "A: b\r\n\r\nc\r\n" {
				t.Errorf("the backend has %+v", got)
			}
			if v := s.Violations(); len(v) > 0 {
				t.Errorf("violations %q", v)
			}
		})
	}
}

// A reply of several lines is one line for the client and in the log, and lacks
// nothing: Exim's to the last chunk ends with what identifies the message.
func TestOnWireLines(t *testing.T) {
	s := smtptest.New(t, smtptest.With("CHUNKING"),
		smtptest.On(smtptest.Dot, smtptest.Always(smtptest.Raw("250- 129834 byte chunk, total 1440554\r\n250-\r\n250 OK id=1vMkRz-00000001Abc-2xYz\r\n"))))
	core, logs := observer.New(zapcore.InfoLevel)
	o := onWire(t)
	o.Mail = maillog.New(zap.New(core))
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), via(hopTo(s)))
	if got, want := v.Reply.String(), "250 2.0.0 129834 byte chunk, total 1440554, OK id=1vMkRz-00000001Abc-2xYz"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	line := fmt.Sprint(logs.FilterMessage("forwarded").All()[0].ContextMap())
	if !strings.Contains(line, "129834 byte chunk, total 1440554 ") || !strings.Contains(line, "OK id=1vMkRz-00000001Abc-2xYz") || strings.Contains(line, "\n") {
		t.Errorf("%q", line)
	}
}

// Two backends that do not work are passed over, and the connection to the
// third is kept.
func TestOnWireFailover(t *testing.T) {
	bad := smtptest.New(t, smtptest.On(smtptest.Connect, smtptest.Always(smtptest.Reply("421 4.3.2 closing"))))
	good := smtptest.New(t)
	f := forwarder(onWire(t))
	for range 3 {
		if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), via(deadHop, hopTo(bad), hopTo(good))); v.Code != hook.OK {
			t.Fatalf("%v: %v", v.Reply, v.Reply.Cause)
		}
	}
	if n := len(good.Messages()); n != 3 || good.Connections() != 1 {
		t.Errorf("%d messages on %d connections", n, good.Connections())
	}
}

func TestOnWirePartial(t *testing.T) {
	s := smtptest.New(t, smtptest.On(smtptest.Rcpt, func(e smtptest.Event) smtptest.Action {
		switch e.Address {
		case "bad@b.c":
			return smtptest.Reply("550 5.1.1 unknown")
		case "busy@b.c":
			return smtptest.Reply("450 4.2.0 busy")
		}
		return smtptest.Action{}
	}))
	var desk office
	o := onWire(t)
	o.Reporter, o.Requeuer = &desk, &desk
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("bad@b.c", "ok@b.c", "busy@b.c").View(), via(hopTo(s)))
	if v.Code != hook.OK || !strings.Contains(v.Reply.Text, "refused: <bad@b.c> 550 5.1.1 unknown") {
		t.Errorf("%v", v.Reply)
	}
	if !slices.Equal(desk.reported, []string{"bad@b.c 550 5.1.1 unknown"}) || !slices.Equal(desk.requeued, []string{"busy@b.c"}) {
		t.Errorf("reported %q, requeued %q", desk.reported, desk.requeued)
	}
	if got := s.Messages(); len(got) != 1 || !slices.Equal(got[0].Accepted(), []string{"ok@b.c"}) {
		t.Errorf("%+v", got)
	}
}

func TestOnWireOneMessagePerRcpt(t *testing.T) {
	s := smtptest.New(t)
	r := via(hopTo(s))
	r.OneMessagePerRcpt = true
	if v := forwarder(onWire(t)).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c", "d@b.c", "e@b.c").View(), r); v.Code != hook.OK {
		t.Fatalf("%v", v.Reply)
	}
	if got := s.Messages(); len(got) != 3 || len(got[0].Rcpts) != 1 || s.Connections() != 1 {
		t.Errorf("%d connections, %+v", s.Connections(), got)
	}
}

func TestOnWireLMTP(t *testing.T) {
	path := smtptest.Socket(t)
	s := smtptest.New(t, smtptest.LMTP(), smtptest.Listen("unix", path),
		smtptest.On(smtptest.Dot, smtptest.For(smtptest.Reply("452 4.2.2 over quota"), "full@b.c")))
	var desk office
	o := onWire(t)
	o.Requeuer = &desk
	v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("full@b.c", "ok@b.c").View(), via(mail.NextHop{Path: path, Protocol: mail.LMTP}))
	if v.Code != hook.OK || !slices.Equal(desk.requeued, []string{"full@b.c"}) {
		t.Errorf("%v, requeued %q", v.Reply, desk.requeued)
	}
	if got := s.Messages(); len(got) != 1 || got[0].Verb != "LHLO" {
		t.Errorf("%+v", got)
	}
}

func TestOnWireTLS(t *testing.T) {
	for _, tc := range []struct {
		name                    string
		enable, require, verify bool
		known                   bool // we trust the server's certificate
		offered, broken         bool
		force, exclude          bool // force_tls_hosts, no_tls_hosts
		want                    hook.Code
		encrypted               bool
	}{
		{name: "clear", offered: true, want: hook.OK},
		{name: "opportunistic", enable: true, offered: true, want: hook.OK, encrypted: true},
		{name: "opportunistic, not offered", enable: true, want: hook.OK},
		{name: "opportunistic, broken", enable: true, offered: true, broken: true, want: hook.OK},
		{name: "required", require: true, offered: true, want: hook.OK, encrypted: true},
		{name: "required, not offered", require: true, want: hook.DenySoft},
		{name: "required, broken", require: true, offered: true, broken: true, want: hook.DenySoft},
		{name: "forced, verified", force: true, offered: true, known: true, want: hook.OK, encrypted: true},
		{name: "forced, not verified", enable: true, force: true, offered: true, want: hook.DenySoft},
		{name: "forced, not offered", enable: true, force: true, want: hook.DenySoft},
		{name: "excluded", enable: true, exclude: true, offered: true, want: hook.OK},
		{name: "verified", verify: true, offered: true, known: true, want: hook.OK, encrypted: true},
		{name: "not verified", verify: true, offered: true, want: hook.DenySoft},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var server []smtptest.Option
			if tc.offered {
				server = append(server, smtptest.TLS())
			}
			if tc.broken {
				server = append(server, smtptest.On(smtptest.StartTLS, smtptest.Always(smtptest.BreakTLS())))
			}
			s := smtptest.New(t, server...)
			o := onWire(t)
			config := &tls.Config{MinVersion: tls.VersionTLS12}
			o.engine.TLSConfig = func() *tls.Config { return config }
			if tc.known {
				config.RootCAs = s.Roots()
			}
			if tc.force {
				o.engine.Conf.TLS.ForceTLSHosts = []string{"127.0.0.0/8"}
			}
			if tc.exclude {
				o.engine.Conf.TLS.NoTLSHosts = []string{"127.0.0.1"}
			}
			r := via(hopTo(s))
			r.EnableTLS, r.RequireTLS, r.TLSVerify = tc.enable, tc.require, tc.verify
			v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), r)
			if v.Code != tc.want {
				t.Fatalf("%v: %v", v.Reply, v.Reply.Cause)
			}
			if got := s.Messages(); tc.want == hook.OK && got[0].TLS != tc.encrypted || tc.want != hook.OK && len(got) > 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A message with REQUIRETLS never goes out with less. When all hosts say that they
// cannot take it, its client is told so for good; what may yet change is temporary.
// Mail from the null sender rather goes without than be lost (RFC 8689, sections
// 4.2.1 and 5).
func TestOnWireRequireTLS(t *testing.T) {
	for name, tc := range map[string]struct {
		hosts string // for each: n no TLS, t TLS, r with REQUIRETLS, u that with a certificate of somebody else, d dead
		null  bool
		want  string
		tls   bool
	}{
		"offered":                    {hosts: "r", want: "OK 250 2.0.0 queued", tls: true},
		"offered by the second":      {hosts: "tr", want: "OK 250 2.0.0 queued", tls: true},
		"not offered":                {hosts: "t", want: "DENY 550 5.7.30 REQUIRETLS support required, and no backend has it"},
		"no TLS":                     {hosts: "n", want: "DENY 550 5.7.30 REQUIRETLS support required, and no backend has it"},
		"neither":                    {hosts: "nt", want: "DENY 550 5.7.30 REQUIRETLS support required, and no backend has it"},
		"somebody else":              {hosts: "u", want: "DENYSOFT 451 4.7.5 No secure connection to the backend, please try again later"},
		"one may have it":            {hosts: "tu", want: "DENYSOFT 451 4.7.5 No secure connection to the backend, please try again later"},
		"the other may have it":      {hosts: "ut", want: "DENYSOFT 451 4.7.30 REQUIRETLS support required and not offered by the next hop"},
		"one is dead":                {hosts: "dn", want: "DENYSOFT 451 4.7.5 No secure connection to the backend, please try again later"},
		"null sender":                {hosts: "nt", null: true, want: "OK 250 2.0.0 queued"},
		"null sender, somebody else": {hosts: "u", null: true, want: "OK 250 2.0.0 queued"},
		"null sender, offered":       {hosts: "tr", null: true, want: "OK 250 2.0.0 queued", tls: true},
	} {
		t.Run(name, func(t *testing.T) {
			var hops []mail.NextHop
			var servers []*smtptest.Server
			config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
			for _, kind := range tc.hosts {
				var opts []smtptest.Option
				if kind == 'd' {
					hops = append(hops, deadHop)
					continue
				}
				if kind != 'n' {
					opts = append(opts, smtptest.TLS())
				}
				if kind == 'r' || kind == 'u' {
					opts = append(opts, smtptest.With("REQUIRETLS"))
				}
				s := smtptest.New(t, opts...)
				if kind != 'n' && kind != 'u' {
					config.RootCAs.AppendCertsFromPEM([]byte(s.PEM()))
				}
				servers, hops = append(servers, s), append(hops, hopTo(s))
			}
			o := onWire(t)
			o.engine.TLSConfig = func() *tls.Config { return config }
			tx := message("a@b.c")
			tx.RequireTLS = true
			if tc.null {
				tx.From = mail.Address{}
			}
			r := via(hops...)
			r.OnFailure = route.FailToQueue // takes what is deferred, if there is a queue
			v := forwarder(o).Forward(t.Context(), hook.ConnectionView{}, tx.View(), r)
			if got := v.Code.String() + " " + v.Reply.String(); got != tc.want {
				t.Errorf("%s: %v", got, v.Reply.Cause)
			}
			var taken []smtptest.Transaction
			for _, s := range servers {
				taken = append(taken, s.Messages()...)
			}
			if (len(taken) == 1) != (v.Code == hook.OK) || len(taken) > 1 {
				t.Fatalf("%+v", taken)
			}
			if v.Code == hook.OK {
				if _, asked := taken[0].Params["REQUIRETLS"]; asked != tc.tls || taken[0].TLS != tc.tls {
					t.Errorf("TLS %v, %v", taken[0].TLS, taken[0].Params)
				}
			}
		})
	}
}

// What plugins did to the header goes out, and every line end is CRLF.
func TestOnWireChangedHeader(t *testing.T) {
	s := smtptest.New(t)
	tx := message("a@b.c")
	raw := []byte("A: b\r\n\r\n.dot\r\n..\r\nend")
	h, size, _ := mail.ParseHeader(raw)
	h.AddLeading("X", "y")
	tx.Header, tx.HeaderSize, tx.Content = h, int64(size), mail.Memory{raw}
	if v := forwarder(onWire(t)).Forward(t.Context(), hook.ConnectionView{}, tx.View(), via(hopTo(s))); v.Code != hook.OK {
		t.Fatalf("%v", v.Reply)
	}
	if got := s.Messages()[0].Content; !bytes.Equal(got, []byte("X: y\r\nA: b\r\n\r\n.dot\r\n..\r\nend\r\n")) {
		t.Errorf("%q", got)
	}
}

// A backend that takes one message a connection refuses no client for that.
func TestOnWireOneMessageAConnection(t *testing.T) {
	for _, reply := range []string{"503 5.5.1 one message a connection", "554 5.7.1 no more", "450 4.7.0 enough", "452 4.3.1 enough"} {
		s := smtptest.New(t, smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
			if e.Transaction > 1 {
				return smtptest.Reply(reply)
			}
			return smtptest.Action{}
		}))
		f := forwarder(onWire(t))
		for i := range 6 {
			if v := f.Forward(t.Context(), hook.ConnectionView{}, message("a@b.c").View(), via(hopTo(s))); v.Code != hook.OK {
				t.Errorf("%s: client %d: %v", reply, i, v.Reply)
			}
		}
		if n := len(s.Messages()); n != 6 {
			t.Errorf("%s: %d messages", reply, n)
		}
	}
}
