package headers

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// settings reads a headers.ini.
func settings(t *testing.T, text string) *Settings {
	t.Helper()
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	for _, p := range r.Problems() {
		if !p.Warning {
			t.Errorf("%v", p)
		}
	}
	return s
}

// only is a headers.ini with one check alone, which rejects or does not.
func only(check string, reject bool) string {
	var b strings.Builder
	b.WriteString("[check]\n")
	for _, row := range new(Settings).checkRows() {
		if row.Key != check {
			b.WriteString(row.Key + "=false\n")
		}
	}
	if reject {
		b.WriteString("[reject]\n" + check + "=true\n")
	}
	return b.String()
}

// mailbox is a case: one check and one message.
type mailbox struct {
	name, check string
	header      string
	before      func(c *hook.Connection, tx *hook.Transaction)
	want        string // the results
	text        string // the refusal where the check may reject; "": none
}

func relaying(_ *hook.Connection, tx *hook.Transaction) { tx.Relaying = true }

func authenticated(c *hook.Connection, _ *hook.Transaction) { c.AuthUser = "u" }

// inDays is a Date field.
func inDays(days int) string {
	return "Date: " + time.Now().Add(time.Duration(days)*24*time.Hour).Format(time.RFC1123Z) + "\n"
}

// passed leaves a result of another plugin.
func passed(name, text string) func(*hook.Connection, *hook.Transaction) {
	return func(_ *hook.Connection, tx *hook.Transaction) {
		r := tx.Results.For(name)
		r.Pass = append(r.Pass, text)
	}
}

// The cases of haraka-plugin-headers 1.2.0, with the texts of its replies.
var cases = []mailbox{
	{"none twice", "duplicate_singular", "From: a@b.c\nReceived: x\nReceived: y\n", nil, "pass:duplicate", ""},
	{"one twice", "duplicate_singular", "from: a@b.c\nFrom: d@e.f\n", nil, "fail:duplicate:From", "Only one From header allowed. See RFC 5322, Section 3.6"},
	{"two twice", "duplicate_singular", "To: a\nTo: b\nDate: 1\nDate: 2\n", nil, "fail:duplicate:Date, duplicate:To", "Only one Date header allowed. See RFC 5322, Section 3.6"},
	{"all there", "missing_required", "From: a@b.c\nDate: x\n", nil, "pass:missing", ""},
	{"no date", "missing_required", "From: a@b.c\n", nil, "fail:missing:Date", "Required header 'Date' missing"},
	{"nothing", "missing_required", "X: y\n", nil, "fail:missing:From, missing:Date", "Required header 'From' missing"},
	{"no return path", "invalid_return_path", "X: y\n", nil, "pass:Return-Path", ""},
	{"incoming return path", "invalid_return_path", "Return-Path: <a@b.c>\n", nil, "pass:Return-Path", ""},
	{"outgoing return path", "invalid_return_path", "Return-Path: <a@b.c>\n", relaying, "fail:Return-Path", "outgoing mail must not have a Return-Path header (RFC 5321)"},
	{"outgoing without", "invalid_return_path", "X: y\n", relaying, "pass:Return-Path", ""},
	{"today", "invalid_date", inDays(0), nil, "pass:invalid_date", ""},
	{"no date at all", "invalid_date", "X: y\n", nil, "", ""},
	{"tomorrow", "invalid_date", inDays(1), nil, "pass:invalid_date", ""},
	{"two weeks ago", "invalid_date", inDays(-14), nil, "pass:invalid_date", ""},
	{"in three days", "invalid_date", inDays(3), nil, "fail:invalid_date(future)", "The Date header is too far in the future"},
	{"three weeks ago", "invalid_date", inDays(-21), nil, "fail:invalid_date(past)", "The Date header is too old"},
	{"the first date counts", "invalid_date", inDays(0) + inDays(-21), nil, "pass:invalid_date", ""},
	{"no date in it", "invalid_date", "Date: when I have time\n", nil, "fail:invalid_date(unparseable)", "The Date header could not be parsed"},
	{"an empty date", "invalid_date", "Date:\n", nil, "fail:invalid_date(unparseable)", "The Date header could not be parsed"},
	{"user agent", "user_agent", "User-Agent: Thunderbird 140\nX-Mailer: Mutt\n", nil, "pass:UA(Thunderbird ), UA(Mutt)", ""},
	{"no user agent", "user_agent", "X: y\n", nil, "fail:UA", ""},
	{"no hop", "direct_to_mx", "X: y\n", nil, "fail:direct-to-mx(too few Received(0))", ""},
	{"our own hop", "direct_to_mx", "Received: x\n", nil, "fail:direct-to-mx(too few Received(1))", ""},
	{"two hops", "direct_to_mx", "Received: x\nReceived: y\n", nil, "pass:direct-to-mx(2)", ""},
	{"a user", "direct_to_mx", "X: y\n", authenticated, "skip:direct-to-mx(auth)", ""},
	{"mailing list", "mailing_list", "Mailing-List: contact x-help@EZMLM.org; run by ezmlm\n", nil, "pass:MLM(ezmlm)", ""},
	{"yahoo", "mailing_list", "Mailing-List: list x@yahoogroups.com\n", nil, "pass:MLM(yahoogroups)", ""},
	{"google", "mailing_list", "Mailing-List: list x@googlegroups.com\nX-Google-Loop: y\n", nil, "pass:MLM(googlegroups), MLM(googlegroups)", ""},
	{"majordomo", "mailing_list", "Sender: owner-x@example.com\n", nil, "pass:MLM(majordomo)", ""},
	{"majordomo's version", "mailing_list", "X-Majordomo-Version: 1\n", nil, "pass:MLM(majordomo)", ""},
	{"mailman", "mailing_list", "X-Mailman-Version: 3\n", nil, "pass:MLM(mailman)", ""},
	{"no list", "mailing_list", "Sender: x@example.com\nMailing-List: y\n", nil, "msg:not MLM", ""},
	{"delivered elsewhere", "delivered_to", "Delivered-To: x@example.com\n", nil, "", ""},
	{"delivered nowhere", "delivered_to", "X: y\n", nil, "", ""},
	{"delivered here", "delivered_to", "Delivered-To: x@example.com\nDelivered-To: b@here.com\n", nil, "fail:delivered_to", "Invalid Delivered-To header content"},
	{"same author", "from_match", "From: A <A@Example.com>\n", nil, "pass:from_match", ""},
	{"same domain", "from_match", "From: b@news.example.com\n", nil, "pass:from_match(domain)", ""},
	{"same domain, confirmed", "from_match", "From: b@news.example.com\n", func(c *hook.Connection, _ *hook.Transaction) {
		c.Results.For("fcrdns").Set("fcrdns", []string{"mx.example.com", "x.org"})
		c.Results.For("helo.checks").Set("helo_host", "MX.example.com")
	}, "pass:from_match(domain,fcrdns,helo)", ""},
	{"a host that ends alike", "from_match", "From: b@news.example.com\n", func(c *hook.Connection, _ *hook.Transaction) {
		c.Results.For("fcrdns").Set("fcrdns", []string{"mx.notexample.com"})
	}, "pass:from_match(domain)", ""},
	{"other domain", "from_match", "From: b@example.org\n", nil, "fail:from_match(example.com / example.org)", ""},
	{"null sender", "from_match", "From: b@example.org\n", func(_ *hook.Connection, tx *hook.Transaction) { tx.From.Local, tx.From.Domain = "", "" }, "fail:from_match(null / example.org)", ""},
	{"author without an organisation", "from_match", "From: b@x.test\n", nil, "fail:from_match(example.com / null)", ""},
	{"no author", "from_match", "X: y\n", nil, "fail:from_match(missing)", ""},
	{"an unreadable author", "from_match", "From: a@\n", nil, "fail:from_match(rfc_violation)", ""},
	{"no address in it", "from_match", "From: nobody\n", nil, "fail:from_match(unparsable)", ""},
	{"a group of none", "from_match", "From: undisclosed:;\n", nil, "fail:from_match(unparsable)", ""},
	{"no brand", "from_phish", "From: A <a@example.com>\n", nil, "pass:from_phish", ""},
	{"the brand itself", "from_phish", "From: PayPal <service@mail.paypal.com>\n", nil, "pass:from_phish", ""},
	{"a brand", "from_phish", "From: PayPal <a@example.com>\n", nil, "msg:'paypal' found when domain is 'example.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"an encoded brand", "from_phish", "From: =?utf-8?b?UGF5UGFs?= <a@x.test>\n", nil, "msg:'paypal' found when domain is 'null' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"look-alikes", "from_phish", "From: P4yPa| <a@example.com>\n", nil, "msg:'paypal' found when domain is 'example.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"in the address", "from_phish", "From: <paypal@example.com>\n", nil, "msg:'paypal' found when domain is 'example.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"part of a word", "from_phish", "From: purchased <a@example.com>\n", nil, "pass:from_phish", ""},
	{"another domain of the brand", "from_phish", "From: uhc <a@uhc.com>, PayPal <x@paypal.com>\n", nil, "msg:'paypal' found when domain is 'uhc.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"signed by the brand", "from_phish", "From: PayPal <a@example.com>\n", passed("dkim", "mail.paypal.com"), "pass:from_phish", ""},
	{"signed by a name that ends alike", "from_phish", "From: PayPal <a@example.com>\n", passed("dkim", "notpaypal.com"), "msg:'paypal' found when domain is 'example.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"a signature in the notes", "from_phish", "From: PayPal <a@example.com>\n", func(_ *hook.Connection, tx *hook.Transaction) {
		tx.Notes["dkim_results"] = []any{map[string]any{"result": "fail", "domain": "x.org"}, map[string]any{"result": "pass", "domain": "paypal.com"}}
	}, "pass:from_phish", ""},
	{"a bad signature in the notes", "from_phish", "From: PayPal <a@example.com>\n", func(_ *hook.Connection, tx *hook.Transaction) {
		tx.Notes["dkim_results"] = []any{map[string]any{"result": "fail", "domain": "paypal.com"}}
	}, "msg:'paypal' found when domain is 'example.com' instead of 'paypal.com', fail:from_phish(paypal)", "Phishing message appears to impersonate paypal.com"},
	{"SPF of the brand", "from_phish", "From: PayPal <a@example.com>\n", func(c *hook.Connection, _ *hook.Transaction) {
		c.Results.For("spf").Pass = []string{"paypal.com"}
	}, "pass:from_phish", ""},
	{"a host of the brand", "from_phish", "From: PayPal <a@example.com>\n", func(c *hook.Connection, _ *hook.Transaction) {
		c.Results.For("fcrdns").Set("fcrdns", []string{"mx1.paypal.com"})
	}, "pass:from_phish", ""},
	{"nobody", "from_phish", "X: y\n", nil, "skip:from_phish(missing)", ""},
	{"unreadable", "from_phish", "From: paypal <a@\n", nil, "err:from_phish: invalid address: '<' is never closed", ""},
	{"no address", "from_phish", "From: paypal\n", nil, "fail:from_phish(unparseable)", ""},
	{"an empty group", "from_phish", "From: paypal:;\n", nil, "fail:from_phish(unparseable)", ""},
}

func TestChecks(t *testing.T) {
	for _, test := range cases {
		for _, reject := range []bool{false, true} {
			if reject && !strings.Contains("duplicate_singular missing_required invalid_return_path invalid_date delivered_to from_phish", test.check) {
				continue
			}
			chain := plugintest.Chain(t, New, plugintest.Own(settings(t, only(test.check, reject))), plugin.Services{})
			c, tx := plugintest.Session(t, "a@example.com", "x@here.com", "b@here.com")
			plugintest.Receive(t, tx, test.header+"\nbody\n")
			if test.before != nil {
				test.before(c, tx)
			}
			v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if got := tx.Results.Of(Name).Line(result.Format{}); got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			code, text := hook.Cont, ""
			if reject && test.text != "" {
				code, text = hook.Deny, test.text
			}
			if v.Code != code || v.Text != text {
				t.Errorf("%s, reject %v: %+v, want %q", test.name, reject, v, text)
			}
			if test.name == "incoming return path" && tx.Header.Has("Return-Path") {
				t.Error("Return-Path stays")
			}
		}
	}
}

// A message that the brand may have sent, as far as the DNS says for now, is put off.
func TestPhishWithoutDNS(t *testing.T) {
	for name, before := range map[string]func(*hook.Connection, *hook.Transaction){
		"a signature": func(_ *hook.Connection, tx *hook.Transaction) {
			tx.Notes["dkim_results"] = []any{map[string]any{"result": "tempfail", "domain": "mail.paypal.com"}}
		},
		"the sender": func(_ *hook.Connection, tx *hook.Transaction) {
			tx.Results.For("spf").Set("result", "TempError")
			tx.Results.For("spf").Set("domain", "paypal.com")
		},
	} {
		chain := plugintest.Chain(t, New, plugintest.Own(settings(t, only("from_phish", true))), plugin.Services{})
		c, tx := plugintest.Session(t, "a@example.com", "b@here.com")
		plugintest.Receive(t, tx, "From: PayPal <a@example.com>\n\n")
		before(c, tx)
		if v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.DenySoft {
			t.Errorf("%s: %+v", name, v)
		}
	}
}

// Everything is checked, and nothing rejected, unless something else is configured.
func TestDefaults(t *testing.T) {
	chain := plugintest.Chain(t, New, plugintest.Own(settings(t, "")), plugin.Services{})
	c, tx := plugintest.Session(t, "a@example.com", "b@here.com")
	plugintest.Receive(t, tx, "From: PayPal <x@example.org>\nFrom: y\nDelivered-To: b@here.com\nDate: never\n\n")
	v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
	want := []string{
		"duplicate:From", "invalid_date(unparseable)", "UA", "direct-to-mx(too few Received(0))", "from_match(example.com / example.org)", "delivered_to",
		"from_phish(paypal)",
	}
	if got := tx.Results.Of(Name).Fail; v.Code != hook.Cont || !slices.Equal(got, want) {
		t.Errorf("%+v, %q", v, got)
	}
}

// Blanks behind commas do not count, in contrast to Haraka.
func TestSettings(t *testing.T) {
	s := settings(t, "required=From, Date ,\nsingular= To\ndate_future_days=0\ndate_past_days=0\n[phish_targets]\nPayPal=paypal.example\nbank=bank.example\n[phish_domains]\nold.example\n")
	if !slices.Equal(s.Required, []string{"From", "Date"}) || !slices.Equal(s.Singular, []string{"To"}) {
		t.Errorf("%+v", s)
	}
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	for header, want := range map[string]string{
		"From: bank <a@x.org>": "from_phish(bank)", "From: ebay <a@x.org>": "from_phish(ebay)", "From: myold.example.org <a@x.org>": "from_phish(old)",
		"From: PayPal <a@paypal.com>": "from_phish(paypal)", inDays(-4000) + "From: a@x.org": "",
	} {
		c, tx := plugintest.Session(t, "a@x.org", "b@here.com")
		plugintest.Receive(t, tx, header+"\nReceived: a\nReceived: b\nUser-Agent: c\n\n")
		chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
		failed := slices.DeleteFunc(tx.Results.Of(Name).Fail, func(s string) bool { return s == "missing:Date" || strings.HasPrefix(s, "from_match") })
		if strings.Join(failed, " ") != want {
			t.Errorf("%s: %q, want %q", header, failed, want)
		}
	}
}
