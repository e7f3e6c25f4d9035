package dsn_test

import (
	"context"
	"io"
	netmail "net/mail"
	"net/netip"
	"strings"
	"testing"
	"time"

	"tarishi/internal/delivery"
	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/dns/memory"
	"tarishi/internal/dsn"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/test/smtptest"
)

// outcome is what a report about the only recipient of an attempt says.
type outcome struct{ action, status, remote, diagnostic string }

// attempt delivers a message to user@domain and composes the report that tells
// of the result: a failure, or for what is of class 4 a delay.
func attempt(t *testing.T, resolver *memory.Resolver, domain string, port int) outcome {
	t.Helper()
	env := &mail.Envelope{
		ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: "sender", Domain: "from.test"},
		Recipients: []mail.Recipient{{Address: mail.Address{Local: "user", Domain: domain}}}, Received: time.Now(),
	}
	c := mail.Memory{[]byte("Subject: x\r\n\r\nx\r\n")}

	d := delivery.New(delivery.Options{
		Settings: &destination.Settings{Port: port, LocalMXOK: true, IPv6: true}, Me: "me.test", Resolver: resolver, Sender: pool.New(pool.Options{}),
		Interfaces: func() ([]netip.Addr, error) { return nil, nil },
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	res := d.Attempt(ctx, delivery.Job{Envelope: env, Content: c, Domain: domain}, nil)
	if res.Interrupted {
		t.Fatal("no result in time")
	}
	told := dsn.Recipient{Recipient: env.Recipients[0], Reply: res.Replies[0], RemoteMTA: res.Host}
	if told.Reply.Temporary() {
		told.Action = dsn.Delayed
	}
	_, report, err := dsn.Compose(dsn.Report{
		ID: mail.NewID(mail.NewConnectionID(), 1), Me: "me.test", Date: time.Now(), Original: env, OriginalContent: c,
		Recipients: []dsn.Recipient{told},
	}, dsn.Templates{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := report.Open()
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	_, fields, _ := strings.Cut(string(b), "\r\n\r\nFinal-Recipient: rfc822;user@"+domain+"\r\n")
	fields, _, found := strings.Cut(fields, "\r\n--=_")
	m, err := netmail.ReadMessage(strings.NewReader(fields + "\r\n"))
	if !found || err != nil {
		t.Fatalf("%v in\n%s", err, b)
	}
	return outcome{m.Header.Get("Action"), m.Header.Get("Status"), m.Header.Get("Remote-MTA"), m.Header.Get("Diagnostic-Code")}
}

// TestRefusals shows what is told of each reply that a server may give during a
// conversation: the sender is told of a failure only if the server refused the
// message itself for good.
func TestRefusals(t *testing.T) {
	const remote = "dns; mx.to.test"
	for _, tt := range []struct {
		name  string
		stage smtptest.Stage
		do    smtptest.Action
		want  outcome
	}{
		{"MAIL, for good", smtptest.Mail, smtptest.Reply("500 5.0.0 Absolutely not"), outcome{"failed", "5.0.0", remote, "smtp; 500 5.0.0 Absolutely not"}},
		{"RCPT, for good", smtptest.Rcpt, smtptest.Reply("550 5.1.1 Not here and not coming back"), outcome{"failed", "5.1.1", remote, "smtp; 550 5.1.1 Not here and not coming back"}},
		{"DATA, for good", smtptest.Data, smtptest.Reply("550 5.6.0 No pictures of cats"), outcome{"failed", "5.6.0", remote, "smtp; 550 5.6.0 No pictures of cats"}},
		{"final dot, for good", smtptest.Dot, smtptest.Reply("554 5.7.1 Spam"), outcome{"failed", "5.7.1", remote, "smtp; 554 5.7.1 Spam"}},
		{"no enhanced code", smtptest.Rcpt, smtptest.Reply("553 go away"), outcome{"failed", "5.0.0", remote, "smtp; 553 go away"}},
		{"details of two digits", smtptest.Rcpt, smtptest.Reply("550 5.7.26 Not authenticated"), outcome{"failed", "5.7.26", remote, "smtp; 550 5.7.26 Not authenticated"}},
		{"class of the enhanced code is wrong", smtptest.Rcpt, smtptest.Reply("550 4.2.1 Which?"), outcome{"failed", "5.0.0", remote, ""}},
		{"several lines", smtptest.Rcpt, smtptest.Reply("550-5.1.1 The account\n550-5.1.1 does not exist.\n550 5.1.1 Try another"), outcome{"failed", "5.1.1", remote, "smtp; 550 5.1.1 The account does not exist. Try another"}},

		{"MAIL with a code of class 3", smtptest.Mail, smtptest.Reply("300 3.0.0 No time"), outcome{"delayed", "4.5.0", remote, ""}},
		{"RCPT, for now", smtptest.Rcpt, smtptest.Reply("400 4.0.0 Later"), outcome{"delayed", "4.0.0", remote, "smtp; 400 4.0.0 Later"}},
		{"DATA, for now", smtptest.Data, smtptest.Reply("450 4.6.0 No cats at the moment"), outcome{"delayed", "4.6.0", remote, "smtp; 450 4.6.0 No cats at the moment"}},
		{"final dot, for now", smtptest.Dot, smtptest.Reply("452 4.3.1 Disk full"), outcome{"delayed", "4.3.1", remote, "smtp; 452 4.3.1 Disk full"}},
		{"greeting of class 5", smtptest.Connect, smtptest.Reply("554 5.7.1 No service for you"), outcome{"delayed", "4.7.1", remote, ""}},
		{"EHLO and HELO refused", smtptest.Hello, smtptest.Reply("550 5.7.0 Bad name"), outcome{"delayed", "4.7.0", remote, ""}},
		{"no reply at all", smtptest.Mail, smtptest.Garbage(), outcome{"delayed", "4.5.0", remote, ""}},
		{"closed at RCPT", smtptest.Rcpt, smtptest.Close(), outcome{"delayed", "4.4.2", remote, ""}},
		{"closed after the final dot", smtptest.Dot, smtptest.Close(), outcome{"delayed", "4.4.2", remote, ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := smtptest.New(t, smtptest.On(tt.stage, smtptest.Always(tt.do)))
			m := &memory.Resolver{}
			m.AddMX("to.test", 10, "mx.to.test")
			m.AddAddr("mx.to.test", "127.0.0.1")
			got := attempt(t, m, "to.test", s.Port())
			if tt.want.diagnostic == "" { // our words, whatever they are
				kind := "X-Tarishi; 4"
				if tt.want.action == dsn.Failed {
					kind = "smtp; 5"
				}
				if !strings.HasPrefix(got.diagnostic, kind) {
					t.Errorf("Diagnostic-Code %q, want %s…", got.diagnostic, kind)
				}
				got.diagnostic = ""
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

// TestUnreachable shows what is told when no server was spoken to: only what the
// DNS says for certain is a failure, and it is never said to be a server's word.
func TestUnreachable(t *testing.T) {
	const closed = 1 // nobody listens there
	m := &memory.Resolver{}
	m.AddMX("null.test", 0, "")
	m.AddTXT("bare.test", "exists, but has neither MX nor address")
	m.Fail("broken.test", "MX", dns.Temporary)
	m.AddTXT("half.test", "no MX")
	m.Fail("half.test", "ADDR", dns.Temporary)
	m.AddMX("ghosts.test", 10, "ghost.test")
	m.AddMX("refuses.test", 10, "mx.refuses.test")
	m.AddAddr("mx.refuses.test", "127.0.0.98")
	for _, tt := range []struct{ name, domain, want, words string }{
		{"no such domain", "nowhere.test", "failed 5.1.2", "Nowhere to deliver"},
		{"a domain that has no address", "bare.test", "failed 5.1.2", "Nowhere to deliver"},
		{"a domain that takes no mail", "null.test", "failed 5.1.10", "NULL MX"},
		{"an address literal that is none", "[192.0.2.256]", "failed 5.1.2", "not an address literal"},
		{"no answer about MX", "broken.test", "delayed 4.4.3", "DNS lookup of broken.test"},
		{"no answer about addresses", "half.test", "delayed 4.4.3", "DNS lookup of half.test"},
		{"MX without addresses", "ghosts.test", "delayed 4.4.4", ""},
		{"connection refused", "refuses.test", "delayed 4.4.1", "cannot be reached"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := attempt(t, m, tt.domain, closed)
			if s := got.action + " " + got.status; s != tt.want {
				t.Errorf("%s, want %s", s, tt.want)
			}
			if !strings.HasPrefix(got.diagnostic, "X-Tarishi; ") || !strings.Contains(got.diagnostic, tt.words) {
				t.Errorf("Diagnostic-Code %q", got.diagnostic)
			}
			if tt.domain != "refuses.test" && got.remote != "" {
				t.Errorf("Remote-MTA %q", got.remote)
			}
		})
	}
}
