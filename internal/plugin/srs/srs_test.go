package srs

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/route"
)

// read reads srs.ini and srs.secrets.
func read(text, secrets string) (*Settings, ini.Problems) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}, secretFile: {Data: []byte(secrets)}}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

const usual = "domain=srs.here.com\nlocal_domains[]=also-here.com\nrelayed_domains[]=relayed.com\n"

// queue is a Forwarder that remembers whom it has queued messages for.
type queue struct{ to []string }

func (q *queue) Forward(context.Context, hook.ConnectionView, hook.TransactionView, *route.Route) hook.Verdict {
	return hook.Verdict{}
}

func (q *queue) Queue(_ context.Context, _ hook.ConnectionView, tx hook.TransactionView) hook.Verdict {
	for _, r := range tx.Recipients() {
		q.to = append(q.to, r.Address.String())
	}
	return hook.Answer(hook.OK, "queued for "+tx.Notes().String(route.NoteWants))
}

// rig is the plugin in a chain.
type rig struct {
	t     *testing.T
	chain *hook.Chain
	queue queue
}

// config is that of a site with two sections in smtp_forward.ini.
func config(s *Settings) *plugin.Config {
	c := plugintest.Own(s)
	c.Routes = &route.Settings{Routes: map[string]*route.Route{"backend.com": {Name: "backend.com"}, "relayed.com": {Name: "relayed.com", Queue: route.WantsOutbound}}}
	return c
}

func newRig(t *testing.T, text string) *rig {
	t.Helper()
	s, problems := read(text, "0123456789abcdef\n")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	r := &rig{t: t}
	r.chain = plugintest.Chain(t, New, config(s), plugin.Services{Forwarder: &r.queue})
	return r
}

// begin returns a transaction and the answers to its recipients: those of the plugin, or "".
// aliases says which addresses another plugin replaces.
func (r *rig) begin(relaying bool, from string, aliases map[string]string, to ...string) (*hook.Event, *hook.Transaction, []string) {
	r.t.Helper()
	c, tx := plugintest.Session(r.t, from)
	tx.Relaying = relaying
	e := &hook.Event{Conn: c.View(), Tx: tx.View()}
	var answers []string
	for _, one := range to {
		e.Recipient = mail.Recipient{Address: plugintest.Address(r.t, one)}
		v := r.chain.Run(r.t.Context(), hook.OnRcpt, e)
		if !v.Code.Denies() {
			v = r.chain.Run(r.t.Context(), hook.OnRcptOK, e)
		}
		if v.Code.Denies() {
			answers = append(answers, v.Reply.String())
			continue
		}
		answers = append(answers, "")
		if alias := aliases[one]; alias != "" {
			e.Recipient.Address = plugintest.Address(r.t, alias)
			if !strings.HasSuffix(alias, "@listed.com") { // which another plugin has accepted
				tx.Forwarded = append(tx.Forwarded, e.Recipient.Address)
			}
		}
		tx.Recipients = append(tx.Recipients, e.Recipient)
	}
	return e, tx, answers
}

// leaves returns what a delivery of the message to a domain says in MAIL.
func (r *rig) leaves(tx *hook.Transaction, domain string) string {
	r.t.Helper()
	d := &hook.Delivery{Envelope: tx.Envelope, Domain: domain, Notes: mail.Notes{}}
	r.chain.Run(r.t.Context(), hook.OnSendEmail, &hook.Event{Delivery: d.View()})
	if d.ReversePath == nil {
		return d.From.String()
	}
	return d.ReversePath.String()
}

// rewritten returns the address that stands for a@foreign.com.
func (r *rig) rewritten() string {
	r.t.Helper()
	e, tx, _ := r.begin(false, "a@foreign.com", nil, "x@relayed.com")
	r.chain.Run(r.t.Context(), hook.OnQueue, e)
	return r.leaves(tx, "relayed.com")
}

func TestForward(t *testing.T) {
	r := newRig(t, usual)
	const here, away = "x@here.com", "y@elsewhere.org"
	for _, test := range []struct {
		name, from string
		relaying   bool
		local      bool // the sender, another plugin says
		alias      string
		to, domain string
		want       bool // it is rewritten
	}{
		{"alias", "a@foreign.com", false, false, away, here, "elsewhere.org", true},
		{"alias within the site", "a@foreign.com", false, false, "y@also-here.com", here, "also-here.com", false},
		{"alias that is accepted", "a@foreign.com", false, false, "y@listed.com", here, "listed.com", false},
		{"alias to a backend", "a@foreign.com", false, false, "y@backend.com", here, "backend.com", false},
		{"no alias", "a@foreign.com", false, false, "", here, "here.com", false},
		{"route out of the site", "a@foreign.com", false, false, "", "x@relayed.com", "relayed.com", true},
		{"our own client", "a@foreign.com", true, false, "", away, "elsewhere.org", false},
		{"report", "", false, false, away, here, "elsewhere.org", false},
		{"our own sender", "a@also-here.com", false, false, away, here, "elsewhere.org", false},
		{"our own sender, noted", "a@foreign.com", false, true, away, here, "elsewhere.org", false},
		{"rewritten already", "SRS0=x=y=z=a@srs.here.com", false, false, away, here, "elsewhere.org", false},
	} {
		e, tx, answers := r.begin(test.relaying, test.from, map[string]string{test.to: test.alias}, test.to)
		if answers[0] != "" {
			t.Errorf("%s: %s", test.name, answers[0])
		}
		if test.local {
			tx.Notes.Set("local_sender", true)
		}
		point := hook.OnQueue
		if test.relaying {
			point = hook.OnQueueOutbound
		}
		if v := r.chain.Run(t.Context(), point, e); v.Code != hook.Cont {
			t.Errorf("%s: %+v", test.name, v)
		}
		got := r.leaves(tx, test.domain)
		if rewritten := strings.HasPrefix(got, "SRS0=") && strings.HasSuffix(got, "=foreign.com=a@srs.here.com"); rewritten != test.want || !rewritten && got != test.from {
			t.Errorf("%s: %s", test.name, got)
		}
		if tx.From.String() != test.from || test.want && r.leaves(tx, "here.com") != test.from {
			t.Errorf("%s: the message itself is from %s", test.name, tx.From)
		}
	}
	if len(r.queue.to) > 0 {
		t.Error(r.queue.to)
	}

	// After a restart the note is decoded JSON, and some senders cannot be rewritten.
	_, tx, _ := r.begin(false, "a@foreign.com", nil)
	tx.Notes.Set(noteForwarded, []any{"elsewhere.org"})
	if got := r.leaves(tx, "elsewhere.org"); !strings.HasPrefix(got, "SRS0=") {
		t.Error(got)
	}
	tx.From = plugintest.Address(t, strings.Repeat("a", 240)+"@b.com")
	if got := r.leaves(tx, "elsewhere.org"); got != tx.From.String() {
		t.Error(got)
	}
}

func TestReports(t *testing.T) {
	r := newRig(t, usual)
	good := r.rewritten()
	forged := strings.Replace(good, "foreign.com=a", "foreign.com=b", 1)
	const notMade = "550 5.7.1 This address was not made here"
	for _, test := range []struct {
		name, from, to string
		relaying       bool
		want           string
	}{
		{"good", "", good, false, ""},
		{"in lower case", "", strings.ToLower(good), false, ""},
		{"forged", "", forged, false, notMade},
		{"forged by our own client", "", forged, true, notMade},
		{"malformed", "", "SRS0=x@srs.here.com", false, notMade},
		{"mail that is no report", "c@d.com", good, false, "550 5.7.1 This address takes reports only"},
	} {
		e, tx, answers := r.begin(test.relaying, test.from, nil, test.to)
		if answers[0] != test.want {
			t.Errorf("%s: %q", test.name, answers[0])
			continue
		}
		if test.want != "" {
			continue
		}
		r.queue.to = nil
		v := r.chain.Run(t.Context(), hook.OnQueue, e)
		if v.Code != hook.OK || v.Text != "queued for outbound" || len(r.queue.to) != 1 || !strings.EqualFold(r.queue.to[0], "a@foreign.com") {
			t.Errorf("%s: %+v, %v", test.name, v, r.queue.to)
		}
		if got := r.leaves(tx, "foreign.com"); got != test.from {
			t.Errorf("%s: %s", test.name, got)
		}
	}

	// Our own clients' go on to the queue with all else.
	e, tx, answers := r.begin(true, "c@d.com", nil, good, "x@elsewhere.org")
	if v := r.chain.Run(t.Context(), hook.OnQueueOutbound, e); v.Code != hook.Cont || !slices.Equal(answers, []string{"", ""}) ||
		tx.Recipients[0].Address.String() != "a@foreign.com" || tx.Recipients[1].Address.String() != "x@elsewhere.org" {
		t.Errorf("%+v, %v, %v", v, answers, tx.Recipients)
	}

	// What goes another way does not travel with it.
	const split = "450 4.5.3 Split transaction, retry soon"
	for _, to := range [][]string{{good, "x@here.com"}, {"x@here.com", good}} {
		if _, _, answers := r.begin(false, "", nil, to...); !slices.Equal(answers, []string{"", split}) {
			t.Errorf("%v: %q", to, answers)
		}
	}
	// What is not the scheme's is for others, and so is what is to be dropped.
	if _, tx, answers := r.begin(false, "", nil, "postmaster@srs.here.com"); answers[0] != "" || tx.Results.Of(Name) != nil {
		t.Errorf("%q", answers)
	}
	e, tx, _ = r.begin(false, "", nil, good)
	tx.Notes.Set("discard", true)
	if v := r.chain.Run(t.Context(), hook.OnQueue, e); v.Code != hook.Cont {
		t.Errorf("%+v", v)
	}
}

// TestStart: settings that would leave mail as it is do not start.
func TestStart(t *testing.T) {
	for text, want := range map[string]string{
		"domain=srs.here.com\nrelayed_domains[]=backend.com\n": "backend.com needs a section in smtp_forward.ini with queue=outbound",
		"domain=srs.here.com\nrelayed_domains[]=nowhere.com\n": "nowhere.com needs a section",
	} {
		s, _ := read(text, "0123456789abcdef\n")
		if _, err := plugintest.Load(New, config(s), plugin.Services{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	s, _ := read("", "")
	if set, err := plugintest.Load(New, config(s), plugin.Services{}); err != nil || len(set.Registrations()) > 0 {
		t.Errorf("%v", err)
	}
	s, _ = read("domain=srs.here.com\n", "")
	if _, err := plugintest.Load(New, config(s), plugin.Services{}); err == nil || !strings.Contains(err.Error(), "srs.secrets has no secret") {
		t.Errorf("%v", err)
	}
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		"domain=not a domain\n": "is no domain", "hash_length=4\n": "hash_minimum: is more than hash_length", "separator=x\n": "is none of",
		"relayed_domains[]=a.com\nlocal_domains[]=A.com\n": "a.com is one of local_domains too",
	} {
		if _, problems := read(text, ""); len(problems.Errors()) != 1 || !strings.Contains(problems[0].String(), want) {
			t.Errorf("%q: %v", text, problems)
		}
	}

	// Secrets are shown nowhere.
	s, problems := read("domain=srs.Here.com\nhash_length=4\nhash_minimum=4\n", "first-secret\nshort\nsecond-secret\n")
	if len(problems) != 1 || strings.Contains(problems[0].String(), "short") || !slices.Equal(s.Secrets, []string{"first-secret", "second-secret"}) || s.Domain != "srs.here.com" {
		t.Errorf("%v, %+v", problems, s)
	}
	var shown strings.Builder
	ini.Print(&shown, s.Tables())
	if text := shown.String(); strings.Contains(text, "secret\n") && strings.Contains(text, "first") || strings.Count(text, ini.Masked) != 2 {
		t.Error(text)
	}
	for secrets, want := range map[string]bool{"": false, "first-secret\n": true} {
		r := ini.NewReader(fstest.MapFS{secretFile: {Data: []byte(secrets)}}, "")
		r.Load(new(Settings).Tables())
		if slices.Contains(r.SecretFiles(), secretFile) != want || len(r.Problems()) > 0 {
			t.Errorf("%q: %v, %v", secrets, r.SecretFiles(), r.Problems())
		}
	}
}
