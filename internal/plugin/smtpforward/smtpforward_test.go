package smtpforward

import (
	"context"
	"strings"
	"testing"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

// recorder is a plugin.Forwarder that remembers the route.
type recorder struct{ routes []string }

func (r *recorder) Forward(_ context.Context, _ *hook.Connection, _ *hook.Transaction, route *conf.ForwardRoute) hook.Verdict {
	r.routes = append(r.routes, route.Name)
	return hook.Answer(hook.OK, "taken")
}

func hosts(h string) []mail.NextHop { return []mail.NextHop{{Host: h, Port: 25}} }

// config is the example of the manual, with relayed mail left to the queue
// except for example3.com.
func config() *conf.Config {
	return &conf.Config{Forward: conf.Forward{
		Configured: true, DomainSelector: "rcpt_to", CheckSender: true, CheckRecipient: true,
		Main: conf.ForwardRoute{Name: "main", Hosts: hosts("1.2.3.4")},
		Routes: map[string]*conf.ForwardRoute{
			"example1.com": {Name: "example1.com", Hosts: hosts("1.2.3.5")},
			"example2.com": {Name: "example2.com", Hosts: hosts("1.2.3.5")},
			"example3.com": {Name: "example3.com", Hosts: hosts("1.2.3.6"), EnableOutbound: true, AuthType: "plain", AuthUser: "u", AuthPass: "p"},
			"example4.com": {Name: "example4.com"},
			"queued.com":   {Name: "queued.com", Hosts: hosts("1.2.3.7"), Queue: "outbound"},
		},
	}}
}

// dialog runs mail, and rcpt with rcpt_ok for each address, as a session does,
// and returns the answers.
func dialog(t *testing.T, chain *hook.Chain, relaying bool, from string, to ...string) (*hook.Connection, *hook.Transaction, []string) {
	t.Helper()
	c, tx := plugintest.Session(t, from)
	tx.Relaying = relaying
	answer := func(v hook.Verdict) string {
		if v.Reply != nil {
			return v.Reply.String()
		}
		return v.Code.String()
	}
	answers := []string{answer(chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c, Tx: tx, Sender: tx.From}))}
	for _, a := range to {
		e := hook.Event{Conn: c, Tx: tx, Recipient: mail.Recipient{Address: plugintest.Address(t, a)}}
		v := chain.Run(t.Context(), hook.OnRcpt, &e)
		if v.Code == hook.OK || v.Code == hook.Cont && relaying {
			e := e
			if ok := chain.Run(t.Context(), hook.OnRcptOK, &e); ok.Code != hook.Cont {
				v = ok
			} else {
				tx.Recipients = append(tx.Recipients, e.Recipient)
			}
		}
		answers = append(answers, answer(v))
	}
	return c, tx, answers
}

func TestDialog(t *testing.T) {
	const split = "450 4.5.3 Split transaction, retry soon"
	for _, tc := range []struct {
		relaying bool
		from     string
		to       string
		answers  string // MAIL and each RCPT
		wants    string
		nextHop  string
	}{
		{false, "s@x.org", "a@example1.com", "CONT,OK", "smtp_forward", "smtp://1.2.3.5:25"},
		{false, "s@x.org", "a@example1.com b@example2.com", "CONT,OK,OK", "smtp_forward", "smtp://1.2.3.5:25"},
		{false, "s@x.org", "a@example1.com b@example3.com c@example1.com", "CONT,OK," + split + ",OK", "smtp_forward", "smtp://1.2.3.5:25"},
		{false, "s@x.org", "a@other.com", "CONT,CONT", "", ""},
		{false, "s@x.org", "a@example4.com", "CONT,OK", "smtp_forward", "smtp://1.2.3.4:25"},
		{false, "", "a@queued.com", "CONT,OK", "outbound", ""},
		{false, "a@example1.com", "a@example2.com", "550 5.7.1 Spoofed MAIL FROM,OK", "smtp_forward", "smtp://1.2.3.5:25"},
		{true, "a@example1.com", "a@gmail.com b@gmx.net", "CONT,OK,OK", "outbound", ""},
		{true, "a@example1.com", "a@gmail.com b@example3.com c@example2.com", "CONT,OK,OK,OK", "outbound", ""},
		{true, "s@x.org", "a@gmail.com b@example1.com", "CONT,CONT,OK", "smtp_forward", ""},
		{true, "s@x.org", "a@example3.com", "CONT,OK", "smtp_forward", "smtp://1.2.3.6:25"},
	} {
		_, tx, answers := dialog(t, plugintest.Chain(t, New, plugin.Services{Config: config(), Forwarder: &recorder{}}), tc.relaying, tc.from, strings.Fields(tc.to)...)
		if got := strings.Join(answers, ","); got != tc.answers {
			t.Errorf("%+v:\n%s", tc, got)
		}
		if w, n := tx.Notes.String("queue.wants"), tx.Notes.String("queue.next_hop"); w != tc.wants || n != tc.nextHop {
			t.Errorf("%+v: wants %q next hop %q", tc, w, n)
		}
	}
}

func TestLocalSender(t *testing.T) {
	chain := plugintest.Chain(t, New, plugin.Services{Config: config(), Forwarder: &recorder{}})
	for from, want := range map[string]bool{"": false, "a@other.com": false, "a@example1.com": true, "a@EXAMPLE4.com": true} {
		_, tx, _ := dialog(t, chain, true, from)
		if got := tx.Notes.Bool("local_sender"); got != want {
			t.Errorf("%q: %v", from, got)
		}
	}
}

// A smart host for everything: nothing of a local sender is sent past it.
func TestLocalSenderWithSmartHost(t *testing.T) {
	cfg := config()
	for _, s := range cfg.Forward.Routes {
		s.EnableOutbound = true
	}
	cfg.Forward.Main.EnableOutbound = true
	var r recorder
	chain := plugintest.Chain(t, New, plugin.Services{Config: cfg, Forwarder: &r})
	c, tx, answers := dialog(t, chain, true, "a@example1.com", "x@gmail.com")
	v := chain.Run(t.Context(), hook.OnQueueOutbound, &hook.Event{Conn: c, Tx: tx})
	if v.Code != hook.OK || len(r.routes) != 1 || r.routes[0] != "main" || answers[1] != "OK" {
		t.Errorf("%+v %q %q", v, r.routes, answers)
	}
}

func TestQueue(t *testing.T) {
	for _, tc := range []struct {
		relaying bool
		to       string
		wants    string
		want     string // the route taken
	}{
		{false, "a@example1.com", "", "example1.com"},
		{false, "a@example1.com b@other.com", "", "main"},
		{false, "a@example1.com", "smtp_forward", "example1.com"},
		{false, "a@example1.com", "lmtp", ""},
		{true, "a@example1.com", "", ""},
		{true, "a@example3.com", "", "example3.com"},
		{true, "a@example3.com b@gmail.com", "", ""},
	} {
		var r recorder
		chain := plugintest.Chain(t, New, plugin.Services{Config: config(), Forwarder: &r})
		c, tx := plugintest.Session(t, "s@x.org", strings.Fields(tc.to)...)
		tx.Relaying = tc.relaying
		if tc.wants != "" {
			tx.Notes.Set("queue.wants", tc.wants)
		}
		p := hook.OnQueue
		if tc.relaying {
			p = hook.OnQueueOutbound
		}
		v := chain.Run(t.Context(), p, &hook.Event{Conn: c, Tx: tx})
		if got := strings.Join(r.routes, " "); got != tc.want || (v.Code == hook.OK) != (tc.want != "") {
			t.Errorf("%+v: %q, %v", tc, got, v)
		}
	}
}

func TestGetMX(t *testing.T) {
	chain := plugintest.Chain(t, New, plugin.Services{Config: config(), Forwarder: &recorder{}})
	for domain, want := range map[string]string{"example1.com": "1.2.3.5:25", "example3.com": "1.2.3.6:25", "example4.com": "", "gmail.com": ""} {
		d := &hook.Delivery{Domain: domain, Notes: mail.Notes{}}
		d.Envelope.Notes = mail.Notes{}
		v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d, Host: domain})
		got := ""
		if v.Code == hook.OK {
			got = v.MX[0].String()
			if domain == "example3.com" && v.MX[0].AuthUser != "u" {
				t.Errorf("%s: no credentials", domain)
			}
		}
		if got != want {
			t.Errorf("%s: %q", domain, got)
		}
	}
	// The transaction's notes count, not those of the delivery.
	d := &hook.Delivery{Notes: mail.Notes{}}
	d.Envelope.Notes = mail.Notes{}
	d.Envelope.Notes.Set("queue.wants", "smtp_forward")
	d.Envelope.Notes.Set("queue.next_hop", "lmtp://joe:secret@store")
	v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d, Host: "gmail.com"})
	if v.Code != hook.OK || v.MX[0].Protocol != mail.LMTP || v.MX[0].AuthUser != "joe" {
		t.Errorf("%+v", v)
	}
}

// Without a host in main nobody takes recipients of different routes together.
func TestSplitWithoutMain(t *testing.T) {
	cfg := config()
	cfg.Forward.Main.Hosts, cfg.Forward.CheckRecipient = nil, false
	chain := plugintest.Chain(t, New, plugin.Services{Config: cfg, Forwarder: &recorder{}})
	if chain.Has(hook.OnRcpt) {
		t.Error("check_recipient=false is ignored")
	}
	c, tx := plugintest.Session(t, "s@x.org", "a@example1.com")
	for to, want := range map[string]hook.Code{"b@example2.com": hook.Cont, "b@example3.com": hook.DenySoft} {
		v := chain.Run(t.Context(), hook.OnRcptOK, &hook.Event{Conn: c, Tx: tx, Recipient: mail.Recipient{Address: plugintest.Address(t, to)}})
		if v.Code != want {
			t.Errorf("%s: %+v", to, v)
		}
	}
	if len(tx.Recipients) != 1 {
		t.Error("the transaction is changed")
	}
}

func TestWithoutForwarder(t *testing.T) {
	chain := plugintest.Chain(t, New, plugin.Services{Config: config()})
	c, tx := plugintest.Session(t, "s@x.org", "a@example1.com")
	if v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c, Tx: tx}); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
}
