package smtpforward

import (
	"context"
	"strings"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/route"
)

// recorder is a plugin.Forwarder that remembers the route.
type recorder struct{ routes []string }

func (r *recorder) Forward(_ context.Context, _ hook.ConnectionView, _ hook.TransactionView, route *route.Route) hook.Verdict {
	r.routes = append(r.routes, route.Name)
	return hook.Answer(hook.OK, "taken")
}

// Queue remembers the notes with which a message is queued.
func (r *recorder) Queue(_ context.Context, _ hook.ConnectionView, t hook.TransactionView) hook.Verdict {
	r.routes = append(r.routes, "queue "+t.Notes().String("queue.wants")+" "+t.Notes().String("queue.next_hop"))
	return hook.Answer(hook.OK, "queued")
}

func hosts(h string) []mail.NextHop { return []mail.NextHop{{Host: h, Port: 25}} }

// config is the example of the manual, with relayed mail left to the queue
// except for example3.com.
func config() *route.Settings {
	return &route.Settings{
		Configured: true, DomainSelector: "rcpt_to", CheckSender: true, CheckRecipient: true,
		Main: route.Route{Name: "main", Hosts: hosts("1.2.3.4")},
		Routes: map[string]*route.Route{
			"example1.com": {Name: "example1.com", Hosts: hosts("1.2.3.5")},
			"example2.com": {Name: "example2.com", Hosts: hosts("1.2.3.5")},
			"example3.com": {Name: "example3.com", Hosts: hosts("1.2.3.6"), EnableOutbound: true, AuthType: "plain", AuthUser: "u", AuthPass: "p"},
			"example4.com": {Name: "example4.com"},
			"queued.com":   {Name: "queued.com", Hosts: hosts("1.2.3.7"), Queue: "outbound"},
		},
	}
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
	answers := []string{answer(chain.Run(t.Context(), hook.OnMail, &hook.Event{Conn: c.View(), Tx: tx.View(), Sender: tx.From}))}
	for _, a := range to {
		e := hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, a)}}
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
		{false, "s@x.org", "a@queued.com b@example1.com", "CONT,OK," + split, "outbound", ""},
		{false, "s@x.org", "a@example1.com b@queued.com", "CONT,OK," + split, "smtp_forward", "smtp://1.2.3.5:25"},
		{false, "a@example1.com", "a@example2.com", "550 5.7.1 Spoofed MAIL FROM,OK", "smtp_forward", "smtp://1.2.3.5:25"},
		{true, "a@example1.com", "a@gmail.com b@gmx.net", "CONT,OK,OK", "outbound", ""},
		{true, "a@example1.com", "a@gmail.com b@example3.com c@example2.com", "CONT,OK,OK,OK", "outbound", ""},
		{true, "s@x.org", "a@gmail.com b@example1.com", "CONT,CONT,OK", "", ""}, // the queue asks each domain's route
		{true, "s@x.org", "a@example1.com b@gmail.com", "CONT,OK,CONT", "", ""},
		{true, "s@x.org", "a@example3.com b@gmail.com", "CONT,OK,CONT", "", ""},
		{true, "s@x.org", "a@example3.com", "CONT,OK", "smtp_forward", "smtp://1.2.3.6:25"},
	} {
		_, tx, answers := dialog(t, plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{Forwarder: &recorder{}}), tc.relaying, tc.from, strings.Fields(tc.to)...)
		if got := strings.Join(answers, ","); got != tc.answers {
			t.Errorf("%+v:\n%s", tc, got)
		}
		if w, n := tx.Notes.String("queue.wants"), tx.Notes.String("queue.next_hop"); w != tc.wants || n != tc.nextHop {
			t.Errorf("%+v: wants %q next hop %q", tc, w, n)
		}
	}
}

// What was noted for a recipient that another plugin refused is not held
// against the next.
func TestRefusedFirst(t *testing.T) {
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{Forwarder: &recorder{}})
	for to, want := range map[string]string{"b@queued.com": "outbound ", "b@example3.com": "smtp_forward smtp://1.2.3.6:25", "b@other.com": " "} {
		for _, refused := range []string{"a@queued.com", "a@example1.com"} {
			c, tx := plugintest.Session(t, "s@x.org")
			event := func(a string) *hook.Event {
				return &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, a)}}
			}
			chain.Run(t.Context(), hook.OnRcpt, event(refused))
			chain.Run(t.Context(), hook.OnRcpt, event(to))
			chain.Run(t.Context(), hook.OnRcptOK, event(to))
			if got := tx.Notes.String("queue.wants") + " " + tx.Notes.String("queue.next_hop"); got != want {
				t.Errorf("%s after %s: %q", to, refused, got)
			}
		}
	}
}

func TestLocalSender(t *testing.T) {
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{Forwarder: &recorder{}})
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
	for _, s := range cfg.Routes {
		s.EnableOutbound = true
	}
	cfg.Main.EnableOutbound = true
	var r recorder
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &r})
	c, tx, answers := dialog(t, chain, true, "a@example1.com", "x@gmail.com")
	v := chain.Run(t.Context(), hook.OnQueueOutbound, &hook.Event{Conn: c.View(), Tx: tx.View()})
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
		{false, "a@example1.com b@other.com", "", "queue smtp_forward "}, // let pass by another plugin
		{false, "a@queued.com", "outbound", "queue outbound "},
		{false, "a@queued.com", "", "queue smtp_forward "},
		{false, "a@example1.com", "smtp_forward", "example1.com"},
		{false, "a@example1.com", "lmtp", ""},
		{true, "a@example1.com", "", ""},
		{true, "a@example3.com", "", "example3.com"},
		{true, "a@example3.com b@gmail.com", "", ""},
	} {
		var r recorder
		chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{Forwarder: &r})
		c, tx := plugintest.Session(t, "s@x.org", strings.Fields(tc.to)...)
		tx.Relaying = tc.relaying
		if tc.wants != "" {
			tx.Notes.Set("queue.wants", tc.wants)
		}
		p := hook.OnQueue
		if tc.relaying {
			p = hook.OnQueueOutbound
		}
		v := chain.Run(t.Context(), p, &hook.Event{Conn: c.View(), Tx: tx.View()})
		if got := strings.Join(r.routes, " "); got != tc.want || (v.Code == hook.OK) != (tc.want != "") {
			t.Errorf("%+v: %q, %v", tc, got, v)
		}
	}
}

func TestGetMX(t *testing.T) {
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{Forwarder: &recorder{}})
	for domain, want := range map[string]string{"example1.com": "1.2.3.5:25", "example3.com": "1.2.3.6:25", "example4.com": "", "gmail.com": ""} {
		d := &hook.Delivery{Domain: domain, Notes: mail.Notes{}}
		d.Envelope.Notes = mail.Notes{}
		v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d.View(), Host: domain})
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
	// Hosts of a pool take turns, those of a list keep their order.
	cfg := config()
	r := cfg.Routes["example1.com"]
	r.Hosts, r.InTurn = append(hosts("a"), hosts("b")...), true
	chain = plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &recorder{}})
	order := ""
	for i := range 6 {
		if i == 4 {
			r.InTurn = false
		}
		d := &hook.Delivery{Domain: "example1.com", Notes: mail.Notes{}}
		for _, h := range chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d.View(), Host: "example1.com"}).MX {
			order += h.Host
		}
		order += " "
	}
	if order != "ab ba ab ba ab ab " {
		t.Errorf("order %s", order)
	}
	// The transaction's notes count, not those of the delivery.
	d := &hook.Delivery{Notes: mail.Notes{}}
	d.Envelope.Notes = mail.Notes{}
	d.Envelope.Notes.Set("queue.wants", "smtp_forward")
	d.Envelope.Notes.Set("queue.next_hop", "lmtp://joe:secret@store")
	v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d.View(), Host: "gmail.com"})
	if v.Code != hook.OK || v.MX[0].Protocol != mail.LMTP || v.MX[0].AuthUser != "joe" {
		t.Errorf("%+v", v)
	}
}

// Recipients of different routes are deferred whether or not the plugin is the
// one that accepts them, and whether or not main has a host.
func TestSplit(t *testing.T) {
	for _, mainHost := range []bool{false, true} {
		cfg := config()
		cfg.CheckRecipient = false
		if !mainHost {
			cfg.Main.Hosts = nil
		}
		chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &recorder{}})
		if chain.Has(hook.OnRcpt) {
			t.Error("check_recipient=false is ignored")
		}
		c, tx := plugintest.Session(t, "s@x.org", "a@example1.com")
		for to, want := range map[string]hook.Code{"b@example2.com": hook.Cont, "b@example3.com": hook.DenySoft, "b@other.com": hook.DenySoft} {
			v := chain.Run(t.Context(), hook.OnRcptOK, &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}})
			if v.Code != want {
				t.Errorf("%s: %+v", to, v)
			}
		}
		if len(tx.Recipients) != 1 {
			t.Error("the transaction is changed")
		}
	}
}

// With split=fanout all are accepted and queued once, with notes that hold for
// every one of them.
func TestFanOut(t *testing.T) {
	for _, check := range []bool{false, true} {
		cfg := config()
		cfg.Split, cfg.CheckRecipient, cfg.CheckSender = "fanout", check, false
		var r recorder
		chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &r})
		c, tx := plugintest.Session(t, "s@x.org")
		for _, to := range []string{"a@example1.com", "b@example3.com", "c@example4.com"} {
			e := hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}}
			if chain.Has(hook.OnRcpt) {
				chain.Run(t.Context(), hook.OnRcpt, &e)
			}
			if v := chain.Run(t.Context(), hook.OnRcptOK, &e); v.Code != hook.Cont {
				t.Fatalf("%s: %+v", to, v)
			}
			tx.Recipients = append(tx.Recipients, e.Recipient)
		}
		v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()})
		if v.Code != hook.OK || strings.Join(r.routes, ",") != "queue smtp_forward " {
			t.Errorf("check_recipient %v: %v %q", check, v, r.routes)
		}
		for domain, want := range map[string]string{"example1.com": "1.2.3.5", "example3.com": "1.2.3.6", "example4.com": "1.2.3.4"} {
			d := &hook.Delivery{Envelope: tx.Envelope, Notes: mail.Notes{}}
			if v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d.View(), Host: domain}); v.Code != hook.OK || v.MX[0].Host != want {
				t.Errorf("%s: %+v", domain, v)
			}
		}
	}
}

// Clients that may relay need not come again: what leads to different places is
// left to the queue, whoever accepted it and whatever was noted for the first.
func TestRelayedMixture(t *testing.T) {
	for _, check := range []bool{false, true} {
		for _, noted := range []string{"", "smtp://1.2.3.5"} {
			cfg := config()
			cfg.CheckRecipient = check
			cfg.Main.EnableOutbound = true
			for _, r := range cfg.Routes {
				r.EnableOutbound = true
			}
			var r recorder
			chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &r})
			c, tx := plugintest.Session(t, "s@x.org")
			tx.Relaying = true
			if noted != "" { // by another plugin
				tx.Notes.Set("queue.wants", "smtp_forward")
				tx.Notes.Set("queue.next_hop", noted)
			}
			for _, to := range []string{"a@example1.com", "b@example3.com", "c@gmail.com", "d@queued.com"} {
				e := hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}}
				if chain.Has(hook.OnRcpt) {
					chain.Run(t.Context(), hook.OnRcpt, &e)
				}
				if v := chain.Run(t.Context(), hook.OnRcptOK, &e); v.Code != hook.Cont {
					t.Fatalf("%s: %+v", to, v)
				}
				tx.Recipients = append(tx.Recipients, e.Recipient)
			}
			if v := chain.Run(t.Context(), hook.OnQueueOutbound, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont || len(r.routes) != 0 {
				t.Errorf("check_recipient %v: %v %q", check, v, r.routes)
			}
			for domain, want := range map[string]string{"example1.com": "1.2.3.5", "example3.com": "1.2.3.6", "gmail.com": "1.2.3.4", "queued.com": "1.2.3.7"} {
				d := &hook.Delivery{Envelope: tx.Envelope, Notes: mail.Notes{}}
				if v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Delivery: d.View(), Host: domain}); v.Code != hook.OK || v.MX[0].Host != want {
					t.Errorf("check_recipient %v, note %q: %s: %+v", check, noted, domain, v)
				}
			}
		}
	}
}

// A note of somebody else's steers the message past all routes, in session and
// in the queue.
func TestSteeredFanOut(t *testing.T) {
	cfg := config()
	cfg.Split = "fanout"
	var r recorder
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &r})
	c, tx := plugintest.Session(t, "s@x.org", "a@example1.com", "b@example3.com")
	tx.Notes.Set("queue.wants", "smtp_forward")
	tx.Notes.Set("queue.next_hop", "smtps://joe:secret@store:4650")
	v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()})
	if v.Code != hook.OK || strings.Join(r.routes, ",") != "queue.next_hop" {
		t.Errorf("%+v %q", v, r.routes)
	}
}

// The queue plugin that a section wants is noted also where another plugin
// accepts the recipient.
func TestQueueKey(t *testing.T) {
	cfg := config()
	cfg.CheckRecipient = false
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: cfg}}, plugin.Services{Forwarder: &recorder{}})
	for to, want := range map[string]string{"a@queued.com": "outbound", "a@example1.com": "", "a@other.com": ""} {
		c, tx := plugintest.Session(t, "s@x.org")
		chain.Run(t.Context(), hook.OnRcptOK, &hook.Event{Conn: c.View(), Tx: tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, to)}})
		if got := tx.Notes.String("queue.wants"); got != want {
			t.Errorf("%s: %q", to, got)
		}
	}
}

func TestWithoutForwarder(t *testing.T) {
	chain := plugintest.Chain(t, New, &plugin.Config{Shared: plugin.Shared{Routes: config()}}, plugin.Services{})
	c, tx := plugintest.Session(t, "s@x.org", "a@example1.com")
	if v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
}
