package relay

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/route"
)

// entries are those of the cases.
const entries = `[domains]
accepted.example={"action":"accept"}
Hopped.example={"action":"Accept","nexthop":"192.0.2.1:26"}
also.example={"action":"continue"}
refused.example={"action":"deny"}
odd.example={"action":"perhaps"}
routed.example={"nexthop":"smtp.example.net"}
any={"nexthop":"192.0.2.9"}
`

// read reads relay.ini and the entries.
func read(t *testing.T, text, entries string) *Settings {
	t.Helper()
	s := &Settings{}
	folder := fstest.MapFS{file: {Data: []byte(text)}}
	if entries != "" {
		folder[routeFile] = &fstest.MapFile{Data: []byte(entries)}
	}
	r := ini.NewReader(folder, "")
	r.Load(s.Tables())
	if problems := r.Problems().Errors(); len(problems) > 0 {
		t.Fatal(problems)
	}
	return s
}

// queue is a plugin.Forwarder that takes everything.
type queue struct{ taken []string }

func (q *queue) Forward(context.Context, hook.ConnectionView, hook.TransactionView, *route.Route) hook.Verdict {
	return hook.Proceed()
}

func (q *queue) Queue(_ context.Context, _ hook.ConnectionView, t hook.TransactionView) hook.Verdict {
	for _, r := range t.Recipients() {
		q.taken = append(q.taken, r.Address.String())
	}
	return hook.Verdict{Code: hook.OK, Reply: reply.New(250, "2.0.0", "Message Queued")}
}

// dialog is a transaction in which recipients are named.
type dialog struct {
	t     *testing.T
	chain *hook.Chain
	conn  *hook.Connection
	tx    *hook.Transaction
}

// begin begins one of a client that may not relay. Recipients at here.example are accepted
// by a plugin before relay, those at later.example by one behind it; one at no.example is
// refused behind it, and busy@ at rcpt_ok.
func begin(t *testing.T, s *Settings, services plugin.Services, routes *route.Settings) *dialog {
	t.Helper()
	c := plugintest.Own(s)
	c.Routes = routes
	set, err := plugintest.Load(New, c, services)
	if err != nil {
		t.Fatal(err)
	}
	other := func(p hook.Point, priority int, match string, code hook.Code) hook.Registration {
		return hook.Registration{Point: p, Plugin: match, Priority: priority, Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
			if strings.Contains(e.Recipient.Address.String(), match) {
				return hook.Answer(code, "")
			}
			return hook.Proceed()
		}}
	}
	d := &dialog{t: t, chain: hook.NewChain(append(set.Registrations(),
		other(hook.OnRcpt, -1, "@here.example", hook.OK), other(hook.OnRcpt, 1, "@later.example", hook.OK),
		other(hook.OnRcpt, 1, "no@", hook.Deny), other(hook.OnRcptOK, 1, "busy@", hook.DenySoft),
	), zap.NewNop())}
	d.conn, d.tx = plugintest.Session(t, "a@client.example")
	return d
}

// name names a recipient, and answers as the session does.
func (d *dialog) name(to string) string {
	d.t.Helper()
	r := mail.Recipient{Address: plugintest.Address(d.t, to)}
	v := d.chain.Run(d.t.Context(), hook.OnRcpt, &hook.Event{Conn: d.conn.View(), Tx: d.tx.View(), Recipient: r})
	switch {
	case v.Code.Denies():
		return v.Code.String() + " " + v.Text
	case v.Code != hook.OK && !d.tx.Relaying:
		return "not accepted"
	}
	if v := d.chain.Run(d.t.Context(), hook.OnRcptOK, &hook.Event{Conn: d.conn.View(), Tx: d.tx.View(), Recipient: r}); v.Code.Denies() {
		if v.Reply == nil {
			return v.Code.String()
		}
		return v.Code.String() + " " + v.Reply.String()
	}
	d.tx.Recipients = append(d.tx.Recipients, r)
	return "accepted"
}

// The cases are those of haraka-plugin-relay 1.0.2, with the texts of its replies.
func TestDestDomains(t *testing.T) {
	const relayDenied, refused = "DENY You are not allowed to relay", "DENY Mail for that recipient is not accepted here."
	for to, want := range map[string][2]string{
		"u@accepted.example": {"accepted", "pass:relay_dest_domain"},
		"u@ACCEPTED.Example": {"accepted", "pass:relay_dest_domain"},
		"u@hopped.example":   {"accepted", "pass:relay_dest_domain"},
		"u@also.example":     {"accepted", "pass:relay_dest_domain"},
		"no@also.example":    {"DENY ", "pass:relay_dest_domain"},
		"u@refused.example":  {relayDenied, "fail:relay_dest_domain"},
		"u@unlisted.example": {relayDenied, "fail:relay_dest_domain"},
		"u@later.example":    {relayDenied, "fail:relay_dest_domain"},
		"u@any":              {relayDenied, "fail:relay_dest_domain"},
		"u@odd.example":      {refused, "fail:relay_dest_domain"},
		"u@routed.example":   {refused, "fail:relay_dest_domain"},
		"u@here.example":     {"accepted", ""},
	} {
		d := begin(t, read(t, "[relay]\ndest_domains=true\n", entries), plugin.Services{}, nil)
		if got := d.name(to); got != want[0] {
			t.Errorf("%s: %q, want %q", to, got, want[0])
		}
		if got := d.tx.Results.Of(Name).Line(result.Format{}); got != want[1] {
			t.Errorf("%s: found %q, want %q", to, got, want[1])
		}
		if d.tx.Relaying || d.conn.Relaying {
			t.Errorf("%s: the transaction may relay", to)
		}
	}

	// Who may relay is not asked, and without entries nobody is.
	d := begin(t, read(t, "[relay]\ndest_domains=true\n", entries), plugin.Services{}, nil)
	d.tx.Relaying = true
	if got := d.name("u@unlisted.example"); got != "accepted" || d.tx.Results.Of(Name).Line(result.Format{}) != "skip:relay_dest_domain(relay)" {
		t.Errorf("relaying: %q", got)
	}
	d = begin(t, read(t, "[relay]\ndest_domains=true\n", ""), plugin.Services{}, nil)
	if got := d.name("u@later.example"); got != "accepted" || d.tx.Results.Of(Name).Line(result.Format{}) != "skip:relay_dest_domain(config)" {
		t.Errorf("without entries: %q", got)
	}
	if got := d.name("u@unlisted.example"); got != "not accepted" {
		t.Errorf("without entries: %q", got)
	}
}

// A recipient that is accepted for its domain opens the relay for no other, neither in its
// transaction nor in the next one of the connection. In Haraka it does.
func TestDestDomainsOpenNoRelay(t *testing.T) {
	for _, first := range []string{"u@accepted.example", "u@also.example"} {
		d := begin(t, read(t, "[relay]\ndest_domains=true\n", entries), plugin.Services{Forwarder: &queue{}}, nil)
		for range 2 {
			if got := d.name(first); got != "accepted" {
				t.Errorf("%s: %q", first, got)
			}
			for _, to := range []string{"u@foreign.example", "u@refused.example", "u@later.example"} {
				if got := d.name(to); got != "DENY You are not allowed to relay" {
					t.Errorf("%s behind %s: %q", to, first, got)
				}
			}
			if len(d.tx.Recipients) != 1 || d.tx.Relaying || d.conn.Relaying {
				t.Errorf("recipients %v, relaying %v", d.tx.Recipients, d.tx.Relaying)
			}
			_, d.tx = plugintest.Session(t, "a@client.example")
		}
	}
}

// What was accepted for its domain leaves as mail of clients that may relay does: into the
// queue, unless smtp_forward.ini wants it.
func TestDestDomainsWay(t *testing.T) {
	backend := func(enabled bool) *route.Settings {
		r := &route.Settings{Configured: true}
		r.Main.EnableOutbound = enabled
		return r
	}
	const split = "DENYSOFT 450 4.5.3 Split transaction, retry soon"
	const noAny = `[domains]
accepted.example={"action":"accept"}
also.example={"action":"continue"}
hopped.example={"action":"accept","nexthop":"192.0.2.1"}
`
	for _, test := range []struct {
		name    string
		routes  *route.Settings
		to      string // recipients
		answers string // one letter each: accepted, split, or denied
		wants   string
		taken   string
	}{
		{"no backend", nil, "a@accepted.example b@also.example", "aa", "outbound", "a@accepted.example b@also.example"},
		{"backend", backend(true), "a@accepted.example b@here.example", "aa", "", ""},
		{"backend, not for outbound", backend(false), "a@accepted.example b@here.example", "as", "outbound", "a@accepted.example"},
		{"backend, with a next hop", backend(true), "a@hopped.example b@accepted.example", "as", "outbound", "a@hopped.example"},
		{"ours first", nil, "b@here.example a@accepted.example c@here.example", "asa", "", ""},
		{"the first is refused after all", nil, "busy@accepted.example b@here.example", "da", "", ""},
	} {
		q := &queue{}
		d := begin(t, read(t, "[relay]\ndest_domains=true\n", noAny), plugin.Services{Forwarder: q}, test.routes)
		answers := ""
		for to := range strings.FieldsSeq(test.to) {
			switch got := d.name(to); got {
			case "accepted":
				answers += "a"
			case split:
				answers += "s"
			default:
				answers += "d"
			}
		}
		if wants := d.tx.Notes.String(route.NoteWants); answers != test.answers || wants != test.wants {
			t.Errorf("%s: answers %s, queue.wants %q", test.name, answers, wants)
		}
		d.chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: d.conn.View(), Tx: d.tx.View()})
		if taken := strings.Join(q.taken, " "); taken != test.taken {
			t.Errorf("%s: the queue took %q, want %q", test.name, taken, test.taken)
		}
	}
}

func TestForceRouting(t *testing.T) {
	s := read(t, "", entries)
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	for domain, want := range map[string]string{
		"hopped.example": "smtp://192.0.2.1:26", "routed.example": "smtp://smtp.example.net:25",
		"unlisted.example": "smtp://192.0.2.9:25", "accepted.example": "",
	} {
		v := chain.Run(t.Context(), hook.OnGetMX, &hook.Event{Host: domain})
		got := ""
		if v.Code == hook.OK && len(v.MX) == 1 {
			got = route.FormatNextHop(v.MX[0])
		}
		if got != want {
			t.Errorf("%s: %+v, want %s", domain, v, want)
		}
	}
	for _, s := range []*Settings{read(t, "[relay]\nforce_routing=false\n", entries), read(t, "", "")} {
		if plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Has(hook.OnGetMX) {
			t.Error("next hops are named without being configured")
		}
	}
}

func TestDestinationEntries(t *testing.T) {
	for entry, want := range map[string]string{
		`x={"action":"accept"`:                          "config/relay_dest_domains.ini:2: [domains] key x: is not of the form",
		`x={"action":"accept"} {}`:                      "config/relay_dest_domains.ini:2: [domains] key x: is not of the form",
		`x={"action":1}`:                                "config/relay_dest_domains.ini:2: [domains] key x: is not of the form",
		`x={"nextHop ":"a"}`:                            "config/relay_dest_domains.ini:2: [domains] key x: is not of the form",
		`x=accept`:                                      "config/relay_dest_domains.ini:2: [domains] key x: is not of the form",
		`x={"nexthop":"a:b"}`:                           "config/relay_dest_domains.ini:2: [domains] key x: nexthop: not a next hop",
		`x={"action":"acept"}`:                          `config/relay_dest_domains.ini:2: warning: [domains] key x: the action "acept" is none of accept, continue, deny: with dest_domains its recipients are refused, did you mean accept?`,
		`any={"action":"accept"}`:                       "config/relay_dest_domains.ini:2: warning: [domains] key any: is for next hops alone: its action has no effect",
		`x={"action":"deny","nexthop":"u:p@192.0.2.1"}`: "config/relay_dest_domains.ini:2: [domains] key x: nexthop: credentials belong into a section of outbound.ini",
	} {
		s := &Settings{}
		r := ini.NewReader(fstest.MapFS{file: {Data: []byte("[relay]\ndest_domains=true\n")}, routeFile: {Data: []byte("[domains]\n" + entry + "\n")}}, "")
		r.Load(s.Tables())
		if p := r.Problems(); len(p) != 1 || !strings.HasPrefix(p[0].String(), want) {
			t.Errorf("%s: %v", entry, p)
		}
	}
}
