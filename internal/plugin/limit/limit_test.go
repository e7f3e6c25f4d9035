package limit

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// readINI reads limit.ini, which must be good.
func readINI(t testing.TB, text string) *Settings {
	t.Helper()
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{file: {Data: []byte(text)}}, "")
	r.Load(s.Tables())
	if problems := r.Problems(); len(problems) > 0 {
		t.Fatal(problems)
	}
	return s
}

// host is a server with the plugin.
type host struct {
	t     testing.TB
	chain *hook.Chain
	next  int
}

func newHost(t testing.TB, text string) *host {
	t.Helper()
	return &host{t: t, chain: plugintest.Chain(t, New, plugintest.Own(readINI(t, "tarpit_delay=0\n"+text)), plugin.Services{Log: zap.NewNop()})}
}

// client is one connection.
type client struct {
	*host
	conn *hook.Connection
	tx   *hook.Transaction
}

// arrive makes a connection. before sees it first.
func (h *host) arrive(addr, name string, before ...func(*hook.Connection)) (*client, hook.Verdict) {
	h.t.Helper()
	h.next++
	conn, tx := plugintest.Session(h.t, "a@sender.example")
	conn.ID = fmt.Sprint("C", h.next)
	conn.Remote.Addr = netip.AddrPortFrom(netip.MustParseAddr(addr), 1025)
	for _, change := range before {
		change(conn)
	}
	c := &client{h, conn, tx}
	c.run(hook.OnConnectInit, hook.Event{})
	conn.Remote.Host = name
	return c, c.run(hook.OnConnect, hook.Event{})
}

func (c *client) run(p hook.Point, e hook.Event) hook.Verdict {
	e.Conn = c.conn.View()
	if p == hook.OnMail || p == hook.OnRcpt {
		e.Tx = c.tx.View()
	}
	return c.chain.Run(c.t.Context(), p, &e)
}

func (c *client) leave() { c.run(hook.OnDisconnect, hook.Event{}) }

// rcpt asks for a recipient.
func (c *client) rcpt(to string) hook.Verdict {
	v := c.run(hook.OnRcpt, hook.Event{Recipient: mail.Recipient{Address: plugintest.Address(c.t, to)}})
	if v.Code.Denies() {
		c.conn.Rcpts.Deferred++
	} else {
		c.conn.Rcpts.Accepted++
	}
	return v
}

// from begins a transaction.
func (c *client) from(sender string) *client {
	c.tx.From = plugintest.Address(c.t, sender)
	return c
}

func (c *client) results() string { return c.conn.Results.Of(Name).Line(result.Format{}) }

// expect compares an answer: "" goes on.
func expect(t testing.TB, what string, v hook.Verdict, code hook.Code, text string) {
	t.Helper()
	if text == "" {
		code = hook.Cont
	}
	if v.Code != code || v.Text != text {
		t.Errorf("%s: %s %q, want %s %q", what, v.Code, v.Text, code, text)
	}
}

// The replies, with Haraka's words.
const (
	tooConcurrent = "Too many concurrent connections"
	tooErroneous  = "Too many errors"
	tooUnknown    = "Too many unrecognized commands"
	tooManyRcpts  = "Too many recipient attempts"
	tooOften      = "connection rate limit exceeded"
	tooManyByHost = "recipient rate limit exceeded"
	tooManyBy     = "rcpt rate limit exceeded"
	tooManyByUser = "user rate limit exceeded"
	tooManyTo     = "rate limit exceeded"
	tooManyNull   = "null recip rate limit"
)

func TestOff(t *testing.T) {
	h := newHost(t, "")
	for _, p := range hook.Points() {
		if h.chain.Has(p) {
			t.Errorf("without a section that is on it is at %s", p)
		}
	}
	if newHost(t, "[concurrency]\nenabled=false\n").chain.Has(hook.OnConnect) {
		t.Error("enabled=false is on")
	}
}

func TestConcurrency(t *testing.T) {
	h := newHost(t, "[concurrency]\nenabled=true\nmax=2\n")
	first, v := h.arrive("192.0.2.1", "")
	expect(t, "the first", v, 0, "")
	_, v = h.arrive("192.0.2.1", "")
	expect(t, "the second", v, 0, "")
	third, v := h.arrive("192.0.2.1", "")
	expect(t, "the third", v, hook.DenySoftDisconnect, tooConcurrent)
	if got, want := third.results(), "concurrent_count: 3, concurrent: 3/2, fail:concurrency.max"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	_, v = h.arrive("192.0.2.2", "")
	expect(t, "another address", v, 0, "")
	third.leave()
	first.leave()
	again, v := h.arrive("192.0.2.1", "")
	expect(t, "when two have left", v, 0, "")
	if got, want := again.results(), "concurrent_count: 2, concurrent: 2/2"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// XCLIENT gives a connection another ID and takes its results away. It counts no longer than
// it lasts nevertheless.
func TestConcurrencyHandedOver(t *testing.T) {
	h := newHost(t, "[concurrency]\nenabled=true\nmax=1\n")
	for range 3 {
		c, v := h.arrive("192.0.2.1", "")
		expect(t, "the proxy", v, 0, "")
		c.conn.ID += "-2"
		c.conn.Results = new(result.Store)
		c.conn.Remote.Addr = netip.MustParseAddrPort("192.0.2.77:1")
		expect(t, "the client", c.run(hook.OnConnect, hook.Event{}), 0, "")
		if got, want := c.results(), "concurrent: 1/1"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		c.leave()
	}
}

func TestConcurrencyUnlimited(t *testing.T) {
	h := newHost(t, "[concurrency]\nenabled=true\nmax=0\n")
	for range 20 {
		_, v := h.arrive("192.0.2.1", "")
		expect(t, "one of many", v, 0, "")
	}
}

// What karma knows of a client replaces a limit.
func TestHistory(t *testing.T) {
	const text = "[concurrency]\nenabled=true\nmax=3\n[concurrency_history]\nenabled=true\n" +
		"[recipients]\nenabled=true\nmax=4\n[recipients_history]\nenabled=true\n" +
		"[rate_conn]\nenabled=true\n192.0.2.99=1\n[rate_conn_history]\nenabled=true\ngood=6\nbad=1/15m\nnone=2\n"
	for _, test := range []struct {
		history                   any
		concurrent, conns, atRcpt int
	}{
		{nil, 3, 5, 4}, {"", 3, 5, 4}, {1, 10, 6, 50}, {int64(7), 10, 6, 50}, {2.5, 10, 6, 50}, {"3", 10, 6, 50}, {-1, 1, 1, 1}, {0, 2, 2, 5},
	} {
		know := func(c *hook.Connection) {
			if test.history != nil {
				c.Results.For("karma").Set("history", test.history)
			}
		}
		h := newHost(t, text)
		for n := 1; n <= 11; n++ {
			want := ""
			switch {
			case n > test.concurrent:
				want = tooConcurrent
			case n > test.conns:
				want = tooOften
			}
			c, v := h.arrive("192.0.2.1", "", know)
			expect(t, fmt.Sprintf("history %v, connection %d", test.history, n), v, hook.DenySoftDisconnect, want)
			if n > 1 {
				continue
			}
			for k := 1; k <= 51; k++ {
				want := ""
				if k > test.atRcpt {
					want = tooManyRcpts
				}
				expect(t, fmt.Sprintf("history %v, recipient %d", test.history, k), c.rcpt("r@example.com"), hook.DenySoft, want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	c, _ := newHost(t, "[errors]\nenabled=true\nmax=2\n").arrive("192.0.2.1", "")
	for n, want := range []string{"", "", "", tooErroneous} {
		c.conn.Errors = n
		for _, p := range []hook.Point{hook.OnHelo, hook.OnEhlo, hook.OnMail, hook.OnRcpt, hook.OnData} {
			expect(t, fmt.Sprintf("%s after %d errors", p, n), c.run(p, hook.Event{}), hook.DenySoftDisconnect, want)
		}
	}
	if got := c.results(); !strings.HasPrefix(got, "fail:errors.max") {
		t.Errorf("%q", got)
	}
}

func TestRecipients(t *testing.T) {
	h := newHost(t, "[recipients]\nenabled=true\nmax=2\nmax_relaying=3\n")
	c, _ := h.arrive("192.0.2.1", "")
	expect(t, "the first", c.rcpt("a@example.com"), 0, "")
	c.conn.Rcpts.Rejected++ // by another plugin
	expect(t, "the third", c.rcpt("a@example.com"), hook.DenySoft, tooManyRcpts)
	if got := c.results(); got != "fail:recipients.max" {
		t.Errorf("%q", got)
	}
	c, _ = h.arrive("192.0.2.1", "")
	c.tx.Relaying = true
	for n, want := range []string{"", "", "", tooManyRcpts} {
		expect(t, fmt.Sprintf("recipient %d of a client that may relay", n+1), c.rcpt("a@example.com"), hook.DenySoft, want)
	}
	c, _ = newHost(t, "[recipients]\nenabled=true\n").arrive("192.0.2.1", "")
	for range 100 {
		expect(t, "without max", c.rcpt("a@example.com"), 0, "")
	}
}

func TestUnrecognizedCommands(t *testing.T) {
	c, _ := newHost(t, "[unrecognized_commands]\nenabled=true\n").arrive("192.0.2.1", "")
	for n := 1; n <= 11; n++ {
		want := ""
		if n > 10 {
			want = tooUnknown
		}
		v := c.run(hook.OnUnrecognized, hook.Event{Verb: "XX", Argument: "and more"})
		expect(t, fmt.Sprint("command ", n), v, hook.DenySoftDisconnect, want)
	}
	if got, want := c.results(), "unrec_cmds: "+strings.Repeat("XX,", 10)+"XX, fail:unrec_cmds.max"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// A client is known by the longest beginning of its address that has a rate, by its name or
// the nearest domain above it, and then by its address.
func TestRateConn(t *testing.T) {
	const text = "[rate_conn]\nenabled=true\ndefault=3\n192.0=2/30\n192.0.2=1/1h\n198.51.100.7=0\n2001:db8=2\n2001:DB8:0:0:0:0:0:9=1\n" +
		"2001:db8::a=4\nexample.com=1/10m\nmail.example.org=2\n"
	for _, test := range []struct {
		addr, name string
		most       int
		shown      string
	}{
		{"203.0.113.1", "", 3, "3"},
		{"192.0.3.1", "", 2, "2/30"},
		{"192.0.2.1", "mail.example.org", 1, "1/1h"},
		{"2001:db8::1", "", 2, "2"},
		{"2001:db8::9", "", 1, "1"},
		{"2001:db8::a", "", 4, "4"},
		{"2001:db9::a", "", 3, "3"},
		{"203.0.113.1", "MX.a.Example.com", 1, "1/10m"},
		{"203.0.113.1", "example.com", 1, "1/10m"},
		{"203.0.113.1", "notexample.com", 3, "3"},
		{"203.0.113.1", "mail.example.org", 2, "2"},
		{"203.0.113.1", "example.org", 3, "3"},
		{"203.0.113.1", "mail", 3, "3"},
	} {
		h := newHost(t, text)
		for n := 1; n <= test.most+1; n++ {
			want := ""
			if n > test.most {
				want = tooOften
			}
			c, v := h.arrive(test.addr, test.name)
			expect(t, fmt.Sprintf("connection %d from %s %s", n, test.addr, test.name), v, hook.DenySoftDisconnect, want)
			line := fmt.Sprintf("rate_conn: %d:%s", n, test.shown)
			if want != "" {
				line += ", fail:rate_conn"
			}
			if got := c.results(); got != line {
				t.Errorf("%q, want %q", got, line)
			}
		}
	}
	h := newHost(t, text)
	for range 20 {
		for _, addr := range []string{"127.0.0.1", "198.51.100.7"} {
			_, v := h.arrive(addr, "")
			expect(t, addr, v, 0, "")
		}
	}
}

// All hosts below a key count together, and time makes room.
func TestRateConnWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "[rate_conn]\nenabled=true\ndefault=2\nexample.com=2/10m\n")
		for _, wait := range []time.Duration{0, 61 * time.Second, 2 * time.Minute} {
			time.Sleep(wait)
			for _, want := range []string{"", "", tooOften} {
				_, v := h.arrive("192.0.2.1", "")
				expect(t, "by address", v, hook.DenySoftDisconnect, want)
			}
		}
		for i, want := range []string{"", "", tooOften} {
			_, v := h.arrive(fmt.Sprint("203.0.113.", i), fmt.Sprintf("mx%d.example.com", i))
			expect(t, "by name", v, hook.DenySoftDisconnect, want)
		}
	})
}

func TestRateRcptHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "[rate_rcpt_host]\nenabled=true\ndefault=3/5m\n192.0.2=0\n")
		c, v := h.arrive("203.0.113.1", "")
		expect(t, "at first", v, 0, "")
		for range 4 { // on one connection it may send what it likes
			expect(t, "recipient", c.rcpt("a@example.com"), 0, "")
		}
		c, v = h.arrive("203.0.113.1", "")
		expect(t, "after four", v, hook.DenySoft, tooManyByHost)
		if got, want := c.results(), "rate_rcpt_host: 203.0.113.1:4:3/5m, fail:rate_rcpt_host"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		_, v = h.arrive("203.0.113.2", "")
		expect(t, "another address", v, 0, "")
		for range 9 {
			c, v = h.arrive("192.0.2.1", "")
			expect(t, "unlimited", v, 0, "")
			c.rcpt("a@example.com")
		}
		time.Sleep(5 * time.Minute)
		_, v = h.arrive("203.0.113.1", "")
		expect(t, "five minutes later", v, 0, "")
	})
}

// The rates at RCPT: by sender, user and recipient.
func TestRateRcpt(t *testing.T) {
	type step struct{ from, to, want string }
	for name, test := range map[string]struct {
		ini, user, result string
		steps             []step
	}{
		"sender": {"[rate_rcpt_sender]\nenabled=true\ndefault=2/1h\n", "", "rate_rcpt_sender: 2/1h, fail:rate_rcpt_sender", []step{
			{"a@b.example", "1@x.example", ""}, {"A@B.example", "2@x.example", ""}, {"a@b.example", "3@x.example", tooManyBy}, {"c@b.example", "4@x.example", ""},
		}},
		"sender's domain": {"[rate_rcpt_sender]\nenabled=true\nexample.com=1\nlist@example.com=2\n", "", "rate_rcpt_sender: 1, fail:rate_rcpt_sender", []step{
			{"list@example.com", "1@x.example", ""}, {"list@example.com", "2@x.example", ""}, {"a@sub.example.com", "3@x.example", ""}, {"b@example.com", "4@x.example", tooManyBy},
		}},
		"reports have no sender": {"[rate_rcpt_sender]\nenabled=true\ndefault=1\n", "", "", []step{{"", "1@x.example", ""}, {"", "2@x.example", ""}}},
		"user": {"[rate_rcpt_user]\nenabled=true\ndefault=2/1d\n", "Joe", "rate_rcpt_user: 2/1d, fail:rate_rcpt_user", []step{
			{"a@b.example", "1@x.example", ""}, {"b@b.example", "2@x.example", ""}, {"c@b.example", "3@x.example", tooManyByUser},
		}},
		"user's domain": {"[rate_rcpt_user]\nenabled=true\nexample.com=1\n", "joe@mail.example.com", "rate_rcpt_user: 1, fail:rate_rcpt_user", []step{
			{"a@b.example", "1@x.example", ""}, {"b@b.example", "2@x.example", tooManyByUser},
		}},
		"nobody": {"[rate_rcpt_user]\nenabled=true\ndefault=1\n", "", "", []step{{"a@b.example", "1@x.example", ""}, {"a@b.example", "1@x.example", ""}}},
		"recipient": {"[rate_rcpt]\nenabled=true\ndefault=1\n", "", "rate_rcpt: 1, fail:rate_rcpt", []step{
			{"a@b.example", "u@x.example", ""}, {"c@d.example", "U@X.example", tooManyTo}, {"a@b.example", "v@x.example", ""}, {"", "u@x.example", tooManyTo},
		}},
		"recipient without": {"[rate_rcpt]\nenabled=true\ndefault=1\nx.example=0\n", "", "rate_rcpt: 0", []step{
			{"a@b.example", "u@x.example", ""}, {"c@d.example", "u@x.example", ""},
		}},
		"report": {"[rate_rcpt_null]\nenabled=true\n", "", "rate_rcpt_null: 1, fail:rate_rcpt_null", []step{
			{"", "u@x.example", ""}, {"a@b.example", "u@x.example", ""}, {"a@b.example", "u@x.example", ""}, {"", "u@x.example", tooManyNull}, {"", "v@x.example", ""},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := newHost(t, test.ini).arrive("192.0.2.1", "", func(c *hook.Connection) { c.AuthUser = test.user })
			for n, s := range test.steps {
				expect(t, fmt.Sprintf("%d: %s to %s", n, s.from, s.to), c.from(s.from).rcpt(s.to), hook.DenySoft, s.want)
			}
			if got := c.results(); !strings.HasPrefix(got, test.result) {
				t.Errorf("%q, want %q", got, test.result)
			}
		})
	}
}

// The first limit that is exceeded refuses, and the later ones do not count.
func TestRcptOrder(t *testing.T) {
	h := newHost(t, "[rate_rcpt_sender]\nenabled=true\ndefault=1\n[rate_rcpt]\nenabled=true\ndefault=2\n")
	c, _ := h.arrive("192.0.2.1", "")
	expect(t, "first", c.from("a@b.example").rcpt("u@x.example"), 0, "")
	for range 5 {
		expect(t, "too much of one sender", c.rcpt("u@x.example"), hook.DenySoft, tooManyBy)
	}
	expect(t, "another sender", c.from("b@b.example").rcpt("u@x.example"), 0, "")
	expect(t, "a third", c.from("c@b.example").rcpt("u@x.example"), hook.DenySoft, tooManyTo)
}

// A refusal waits, but not for a client that has gone.
func TestTarpit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHost(t, "[recipients]\nenabled=true\nmax=1\n")
		h.chain = plugintest.Chain(t, New, plugintest.Own(readINI(t, "[recipients]\nenabled=true\nmax=1\n")), plugin.Services{})
		c, _ := h.arrive("192.0.2.1", "")
		began := time.Now()
		expect(t, "the first", c.rcpt("a@example.com"), 0, "")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("waited %s", waited)
		}
		expect(t, "the second", c.rcpt("a@example.com"), hook.DenySoft, tooManyRcpts)
		if waited := time.Since(began); waited != 3*time.Second {
			t.Errorf("waited %s", waited)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h.chain.Run(ctx, hook.OnRcpt, &hook.Event{Conn: c.conn.View(), Tx: c.tx.View(), Recipient: mail.Recipient{Address: plugintest.Address(t, "a@example.com")}})
		if waited := time.Since(began); waited != 4*time.Second {
			t.Errorf("waited %s", waited)
		}
	})
}
