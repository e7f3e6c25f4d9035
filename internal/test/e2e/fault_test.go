package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/test/smtptest"
)

// faultRow is one thing that a backend does wrong, once, and what then becomes
// of the message that met it and of the connection.
type faultRow struct {
	name    string
	section string // further lines of its route
	peer    []smtptest.Option
	content string // of the first message; "": oneMessage
	want    string // pattern of the reply to the first message
	kept    bool   // the second message goes over the same connection
	twice   bool   // the backend may see the first twice: it had it and did not say so
	atOnce  bool   // the second message is taken at the first try, if the first was not deferred
	rests   bool   // the second one is tried when the backend was left alone for ten seconds
	failed  bool
}

type fault struct {
	name   string
	action smtptest.Action
}

// refusals are replies that are in order; each is passed on as far as it makes
// sense to a client.
var refusals = []struct {
	fault
	passed string
}{
	{fault{"4yz", smtptest.Reply("450 4.2.0 not now")}, "450 4.2.0 not now "},
	{fault{"452", smtptest.Reply("452 4.3.1 full")}, "450 4.3.1 full "},
	{fault{"5yz", smtptest.Reply("550 5.1.1 never")}, "550 5.1.1 never "},
	{fault{"554", smtptest.Reply("554 5.7.1 never")}, "550 5.7.1 never "},
	{fault{"8-bit text", smtptest.Reply("550 5.7.1 gr\xc3\xbc\xdfe")}, "550 5.7.1 [\x20-\x7e]+\r\n$"},
	{fault{"several lines", smtptest.Reply("550-5.7.1 one\n550 5.7.1 two")}, "550 5.7.1 one two "},
}

// breaks end the connection, and so do replies that are none.
var breaks = []fault{
	{"421", smtptest.Reply("421 4.3.2 closing").ThenClose()},
	{"silence", smtptest.Silence()},
	{"stall", smtptest.Stall()},
	{"garbage", smtptest.Garbage()},
	{"half a line, silence", smtptest.HalfLine()},
	{"half a line, close", smtptest.Raw("250 2.0").ThenClose()},
	{"half a reply, close", smtptest.Raw("250-2.0.0 one\r\n").ThenClose()},
	{"two codes in one reply", smtptest.Raw("250-2.0.0 one\r\n550 5.0.0 two\r\n")},
	{"100 kB in lines", smtptest.Huge("250")},
	{"100 kB in one line", smtptest.LongLine("250")},
	{"close", smtptest.Close()},
	{"reset", smtptest.Reset()},
	{"1yz", smtptest.Reply("150 what")},
	{"code 999", smtptest.Reply("999 what")},
}

// limits are a route's timeouts: long, so that only a fault reaches them, unless
// the fault is that nothing comes.
func limits(name string) string {
	seconds := 60
	if strings.Contains(name, "silence") || strings.Contains(name, "stall") {
		seconds = 6
	}
	return fmt.Sprintf("connect_timeout=%[1]d\ncommand_timeout=%[1]d\nsubmission_timeout=%[1]d\n", seconds)
}

// endless reports whether a fault is a reply that says what it means, and only
// goes on for too long. To the final dot that is as good as any.
func (f fault) endless() bool { return strings.HasPrefix(f.name, "100 kB") }

func faultTable() []faultRow {
	var rows []faultRow
	once := func(stage smtptest.Stage, a smtptest.Action) smtptest.Option {
		return smtptest.On(stage, smtptest.First(1, a))
	}
	add := func(name, section, want string, peer ...smtptest.Option) *faultRow {
		rows = append(rows, faultRow{name: name, section: section, want: want, peer: peer})
		return &rows[len(rows)-1]
	}
	const (
		encrypt     = "enable_tls=true\nrequire_tls=true\n"
		tls         = "enable_tls=true\n"
		auth        = "auth_type=plain\nauth_user=u\nauth_pass=p\n"
		unreachable = `451 4\.4\.[12] `
	)
	// Before MAIL every refusal is a reason to come back later.
	stages := map[smtptest.Stage]string{
		smtptest.Connect: `451 4\.4\.1 `, smtptest.Hello: `451 4\.4\.1 `, smtptest.StartTLS: `451 4\.7\.5 `, smtptest.Auth: `451 4\.7\.0 `,
	}
	insecure, anonymous := stages[smtptest.StartTLS], stages[smtptest.Auth]
	for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.StartTLS, smtptest.Auth} {
		section, peer := "", []smtptest.Option(nil)
		switch stage {
		case smtptest.StartTLS:
			section, peer = tls, append(peer, smtptest.TLS())
		case smtptest.Auth:
			section, peer = auth, append(peer, smtptest.Credentials("u", "p"))
		}
		for _, f := range refusals {
			r := add(string(stage)+": "+f.name, section, stages[stage], append(peer, once(stage, f.action))...)
			permanent := strings.HasPrefix(f.passed, "5")
			if stage == smtptest.Hello && permanent { // HELO is next
				r.want, r.kept = "250 ", true
			}
			r.rests = stage == smtptest.Auth && permanent // or the account might be locked
			if stage == smtptest.StartTLS {               // goes on in clear
				r.want, r.kept = "250 ", true
				add("starttls required: "+f.name, encrypt, insecure, append(peer, once(stage, f.action))...)
			}
		}
		for _, f := range breaks {
			r := add(string(stage)+": "+f.name, section, stages[stage], append(peer, once(stage, f.action))...)
			if stage == smtptest.StartTLS { // as a handshake that fails
				r.want = "250 "
				add("starttls required: "+f.name, encrypt, `451 4\.[57]\.[05] `, append(peer, once(stage, f.action))...)
			}
		}
	}
	add("handshake fails", tls, "250 ", smtptest.TLS(), once(smtptest.StartTLS, smtptest.BreakTLS()))
	add("handshake fails, TLS required", encrypt, insecure, smtptest.TLS(), once(smtptest.StartTLS, smtptest.BreakTLS()))
	add("STARTTLS not offered, TLS required", encrypt, insecure, smtptest.TLS(), once(smtptest.Hello, smtptest.Reply("250-mx.test\n250 PIPELINING")))
	injected := smtptest.Extra("250-mx.test\r\n250 AUTH PLAIN\r\n")
	add("plaintext behind STARTTLS", tls, insecure, smtptest.TLS(), once(smtptest.StartTLS, injected))
	add("plaintext behind STARTTLS, TLS required", encrypt, insecure, smtptest.TLS(), once(smtptest.StartTLS, injected))
	add("AUTH not offered", auth, anonymous, smtptest.Credentials("u", "p"), once(smtptest.Hello, smtptest.Reply("250-mx.test\n250 PIPELINING")))

	for _, pipelining := range []bool{true, false} {
		suffix, peer := "", []smtptest.Option(nil)
		if !pipelining {
			suffix, peer = " (no PIPELINING)", append(peer, smtptest.Without("PIPELINING"))
		}
		for _, stage := range []smtptest.Stage{smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot} {
			for _, f := range refusals {
				add(string(stage)+": "+f.name+suffix, "", f.passed, append(peer, once(stage, f.action))...).kept = true
			}
			for _, f := range breaks {
				r := add(string(stage)+": "+f.name+suffix, "", unreachable, append(peer, once(stage, f.action))...)
				r.twice = stage == smtptest.Dot
				if f.name == "421" { // is a reply as well
					r.want = `45[01] 4\.[34]\.[0-9] `
				}
				if stage == smtptest.Dot && f.endless() {
					r.want, r.twice = "250 ", false
				}
			}
		}
		for _, f := range append(breaks[1:], fault{"550", smtptest.Reply("550 5.0.0 unasked")}) {
			add("content: "+f.name+suffix, "", unreachable, append(peer, once(smtptest.Body, f.action))...).twice = true
		}
		for _, f := range breaks[1:3] {
			add("large content: "+f.name+suffix, "", unreachable, append(peer, once(smtptest.Body, f.action))...).content = largeMessage
		}
		add("large content: reset"+suffix, "", unreachable, append(peer, once(smtptest.Body, smtptest.Reset()))...).content = largeMessage
		for _, stage := range []smtptest.Stage{smtptest.Mail, smtptest.Rcpt} {
			add(string(stage)+": extra reply"+suffix, "", unreachable, append(peer, once(stage, smtptest.Extra("250 2.0.0 once more\r\n")))...)
		}
		add("data: extra reply"+suffix, "", unreachable, append(peer, once(smtptest.Data, smtptest.Extra("250 2.0.0 early\r\n")))...)
	}
	// The same for what is sent in chunks.
	for _, stage := range []smtptest.Stage{smtptest.Chunk, smtptest.Dot} {
		for _, f := range refusals {
			r := add("bdat, "+string(stage)+": "+f.name, "", f.passed, smtptest.With("CHUNKING"), once(stage, f.action))
			r.content, r.kept = chunkedMessage, true
		}
		for _, f := range breaks {
			r := add("bdat, "+string(stage)+": "+f.name, "", unreachable, smtptest.With("CHUNKING"), once(stage, f.action))
			r.content, r.twice = chunkedMessage, true // the last chunk may be on its way already
			if f.name == "421" {
				r.want = `45[01] 4\.[34]\.[0-9] `
			}
			if stage == smtptest.Dot && f.endless() {
				r.want, r.twice = "250 ", false
			}
		}
	}
	// Telling the backend where the mail comes from. It may do without XFORWARD;
	// with XCLIENT refused the message would pass for ours.
	for stage, section := range map[smtptest.Stage]string{smtptest.XForward: "forward_client=xforward\n", smtptest.XClient: "forward_client=xclient\n"} {
		offer := smtptest.With(strings.ToUpper(string(stage)) + " NAME ADDR PORT PROTO HELO")
		for _, f := range refusals {
			r := add(string(stage)+": "+f.name, section, unreachable, offer, once(stage, f.action))
			if stage == smtptest.XForward {
				r.want, r.kept = "250 ", true
			}
		}
		for _, f := range breaks {
			add(string(stage)+": "+f.name, section, unreachable, offer, once(stage, f.action))
		}
	}
	// By LMTP, where the final reply is one recipient's.
	for _, f := range refusals {
		add("lmtp, dot: "+f.name, "using_lmtp=true\n", f.passed, smtptest.LMTP(), once(smtptest.Dot, f.action)).kept = true
	}
	for _, f := range breaks {
		r := add("lmtp, dot: "+f.name, "using_lmtp=true\n", unreachable, smtptest.LMTP(), once(smtptest.Dot, f.action))
		r.twice = true
		if f.name == "421" {
			r.want = `45[01] 4\.[34]\.[0-9] `
		}
		if f.endless() {
			r.want, r.twice = "250 ", false
		}
	}
	// What comes after the reply that counts changes nothing for its message.
	for _, f := range []fault{
		{"extra reply", smtptest.Extra("250 2.0.0 once more\r\n")},
		{"421 behind the reply", smtptest.Extra("421 4.3.2 closing\r\n").ThenClose()},
		{"close behind the reply", smtptest.Reply("250 2.0.0 mine").ThenClose()},
		{"reset behind the reply", smtptest.Reply("250 2.0.0 mine").ThenReset()},
		{"garbage behind the reply", smtptest.Extra("\xff\x00\r\n")},
	} {
		add("dot: "+f.name, "", "250 ", once(smtptest.Dot, f.action)).atOnce = true
	}
	for _, f := range slices.Concat(breaks, []fault{refusals[0].fault, refusals[2].fault}) {
		add("quit: "+f.name, "max_messages=1\n", "250 ", once(smtptest.Quit, f.action)).atOnce = true
		// A recipient that is refused leaves a transaction to be reset.
		add("rset: "+f.name, "", "550 5.1.1 ", once(smtptest.Rcpt, refusals[2].action), once(smtptest.Rset, f.action)).atOnce = false
	}
	// A connection that died meanwhile costs one repetition, not a message.
	for _, f := range breaks[:2] {
		add("second mail: "+f.name, "", "250 ", secondMail(f.action)).atOnce = true
	}
	for _, f := range breaks[10:12] {
		add("second mail: "+f.name, "", "250 ", secondMail(f.action)).atOnce = true
	}
	for _, f := range refusals { // the first message's fault, maybe
		add("second mail: "+f.name, "", "250 ", secondMail(f.action)).atOnce = true
	}
	return rows
}

// peer is a server at an address of loopback at which no other test knocks by
// mistake, as one does whose own server has gone.
func peer(t *testing.T, options ...smtptest.Option) *smtptest.Server {
	t.Helper()
	return smtptest.New(t, slices.Concat([]smtptest.Option{smtptest.Listen("tcp", "127.0.0.20:0")}, options)...)
}

// secondMail does a at the second transaction of the first connection.
func secondMail(a smtptest.Action) smtptest.Option {
	return smtptest.On(smtptest.Mail, func(e smtptest.Event) smtptest.Action {
		if e.Conn == 1 && e.Transaction == 2 {
			return a
		}
		return smtptest.Action{}
	})
}

// More than sockets hold, and enough for some chunks.
var largeMessage, chunkedMessage = lines(120_000), lines(20_000)

func lines(n int) string {
	return strings.Replace(oneMessage, "Hello.", strings.Repeat(strings.Repeat("x", 70)+"\r\n", n), 1)
}

// Whatever a backend does wrong: its client is answered as the table says, no
// message is lost, none is sent twice unless the backend kept to itself whether
// it has it, and the next message finds a connection in order.
func TestFaults(t *testing.T) {
	t.Parallel()
	rows := faultTable()
	peers := make([]*smtptest.Server, len(rows))
	var ini, domains strings.Builder
	for i, r := range rows {
		peers[i] = peer(t, r.peer...)
		fmt.Fprintf(&domains, "row%d.test\n", i)
		fmt.Fprintf(&ini, "[row%d.test]\nhost=%s\n%s%s", i, peers[i].Addr(), limits(r.name), r.section)
	}
	d := Start(t, map[string]string{
		"plugins": "rcpt_to.in_host_list\nqueue/smtp_forward\n", "host_list": domains.String(), "smtp_forward.ini": ini.String(),
	})
	// They wait much and work little.
	slots, wide := make(chan struct{}, 100), make(chan struct{}, 8) // wide: for much content
	var running sync.WaitGroup
	logged := make([]string, len(rows))
	for i := range rows {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			if rows[i].content != "" {
				wide <- struct{}{}
				defer func() { <-wide }()
			}
			logged[i] = rows[i].run(t, d, peers[i], fmt.Sprintf("row%d.test", i))
		})
	}
	running.Wait()
	d.Stop()
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m) (forwarded|forward failed) .*\bdomain="?(row\d+\.test)\b`).FindAllStringSubmatch(d.Log(), -1) {
		found[m[2]+" "+m[1]] = true
	}
	for i, event := range logged {
		if rows[i].failed {
			t.Log(strings.Join(regexp.MustCompile(fmt.Sprintf(`(?m)^.*\brow%d\.test\b.*$`, i)).FindAllString(d.Log(), -1), "\n"))
		}
		if !found[fmt.Sprintf("row%d.test %s", i, event)] {
			t.Errorf("row%d.test %s: no line %q in the log", i, rows[i].name, event)
		}
	}
	if len(rows) < 250 {
		t.Errorf("only %d rows", len(rows))
	}
}

// run sends the row's messages and returns what the log has to say of the first.
func (r *faultRow) run(t *testing.T, d *Daemon, s *smtptest.Server, domain string) (event string) {
	bad := func(format string, args ...any) {
		r.failed = true
		t.Errorf(domain+" "+r.name+": "+format, args...)
	}
	message := r.content
	if message == "" {
		message = oneMessage
	}
	began := time.Now()
	first, err := letter(d.Addr(), "to@"+domain, message)
	if err != nil {
		bad("%v", err)
		return ""
	}
	if !regexp.MustCompile("^(?:" + r.want + ")").MatchString(first) {
		bad("reply %q, want %s", first, r.want)
	}
	deferred := first[0] == '4'
	event = "forward failed"
	if first[0] == '2' {
		event = "forwarded"
		if seen, _ := tally(s); seen["one message"] != 1 {
			bad("250, and the backend has it %d times", seen["one message"])
		}
	}
	// A client sends again what was deferred, and something else when it is rid
	// of the first.
	if !deferred {
		message = strings.Replace(oneMessage, "one message", "another", 1)
	}
	var second string
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		if second, err = letter(d.Addr(), "to@"+domain, message); err != nil {
			bad("%v", err)
			return event
		}
		if second[0] != '4' || r.atOnce || time.Now().After(end) {
			break
		}
	}
	if second[0] != '2' {
		bad("then %q", second)
	}
	if took := time.Since(began); r.rests && took < 10*time.Second {
		bad("tried again after %v", took)
	}
	most := 1
	if r.twice {
		most = 2
	}
	seen, accepted := tally(s)
	switch {
	case deferred && accepted["one message"] == 0:
		bad("the backend never took the message: %v", seen)
	case deferred && accepted["one message"] > most, seen["another"] > 1:
		bad("the backend took a message more than once: %v", accepted)
	case !deferred && accepted["another"] != 1:
		bad("the backend did not take the second message: %v", seen)
	}
	want := 2
	if r.kept {
		want = 1
	}
	if n := s.Connections(); n != want {
		bad("%d connections, want %d", n, want)
	}
	if v := s.Violations(); len(v) > 0 {
		bad("violations %q", v)
	}
	for _, x := range s.Messages() {
		if strings.Contains(r.section, "auth_user") && x.User == "" {
			bad("a message came without AUTH")
		}
		if strings.Contains(r.section, "require_tls") && !x.TLS {
			bad("a message came in clear")
		}
	}
	return event
}

// tally counts messages by subject: those that arrived whole, and those of them
// that the peer said it took.
func tally(peer *smtptest.Server) (seen, accepted map[string]int) {
	seen, accepted = map[string]int{}, map[string]int{}
	for _, x := range peer.Transactions() {
		_, subject, _ := strings.Cut(string(x.Content), "Subject: ")
		subject, _, _ = strings.Cut(subject, "\r\n")
		seen[subject]++
		accepted[subject] += len(x.Accepted())
	}
	return seen, accepted
}

// With a second host behind the one that does something wrong: until the
// content has gone out the other one takes the message; from then on it must
// not, unless the first has said that it did not take it.
func TestFaultsWithAnotherHost(t *testing.T) {
	t.Parallel()
	type row struct {
		name      string
		bad, good *smtptest.Server
		want      string
		atGood    int
	}
	var rows []row
	var ini strings.Builder
	add := func(name, want string, atGood int, stage smtptest.Stage, a smtptest.Action) {
		r := row{name: string(stage) + ": " + name, want: want, atGood: atGood, good: peer(t)}
		r.bad = peer(t, smtptest.On(stage, smtptest.Always(a)))
		fmt.Fprintf(&ini, "[row%d.test]\nhost=%s,%s\n%s", len(rows), r.bad.Addr(), r.good.Addr(), limits(name))
		rows = append(rows, r)
	}
	for _, f := range breaks {
		for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Data} {
			add(f.name, "250 ", 1, stage, f.action)
		}
		switch {
		case f.endless():
			add(f.name, "250 ", 0, smtptest.Dot, f.action)
		case f.name != "421": // which says that it was not taken
			add(f.name, `451 4\.4\.2 `, 0, smtptest.Dot, f.action)
		}
	}
	for _, f := range refusals {
		add(f.name, "250 ", 1, smtptest.Connect, f.action)
		for _, stage := range []smtptest.Stage{smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot} {
			add(f.name, f.passed, 0, stage, f.action)
		}
	}
	d := Start(t, relayConfig(ini.String()))
	var running sync.WaitGroup
	for i, r := range rows {
		running.Go(func() {
			reply, err := letter(d.Addr(), fmt.Sprintf("to@row%d.test", i), oneMessage)
			if err != nil || !regexp.MustCompile("^(?:"+r.want+")").MatchString(reply) {
				t.Errorf("row%d.test %s: reply %q, %v; want %s", i, r.name, reply, err, r.want)
			}
			if n := len(r.good.Messages()); n != r.atGood {
				t.Errorf("row%d.test %s: %d messages at the other host, want %d", i, r.name, n, r.atGood)
			}
			if n := len(r.bad.Transactions()); n > 1 {
				t.Errorf("row%d.test %s: sent %d times", i, r.name, n)
			}
		})
	}
	running.Wait()
}

// The same peers, with mail from the queue: it is accepted whatever they do, is
// delivered once when they are well again, and given up only when the backend
// refuses the message for good.
func TestFaultsOfQueuedMail(t *testing.T) {
	t.Parallel()
	type row struct {
		name  string
		peer  *smtptest.Server
		lost  bool // refused for good
		twice bool
	}
	var rows []row
	var ini strings.Builder
	add := func(f fault, stage smtptest.Stage) *row {
		r := row{name: string(stage) + ": " + f.name, peer: peer(t, smtptest.On(stage, smtptest.First(1, f.action)))}
		fmt.Fprintf(&ini, "[row%d.test]\nhost=%s\nqueue=outbound\n", len(rows), r.peer.Addr())
		rows = append(rows, r)
		return &rows[len(rows)-1]
	}
	for _, stage := range []smtptest.Stage{smtptest.Connect, smtptest.Hello, smtptest.Mail, smtptest.Rcpt, smtptest.Data, smtptest.Dot} {
		for _, f := range refusals {
			add(f.fault, stage).lost = strings.HasPrefix(f.passed, "5") && stage != smtptest.Connect && stage != smtptest.Hello
		}
		for _, f := range breaks {
			if a := f.action; !strings.Contains(f.name, "silence") && f.name != "stall" { // they would take minutes
				add(fault{f.name, a}, stage).twice = stage == smtptest.Dot && !f.endless()
			}
		}
	}
	d := Start(t, with(relayConfig(ini.String()), "plugins", "relay\nqueue/smtp_forward\n", "relay_acl_allow", "127.0.0.0/8\n",
		"outbound.ini", "temp_fail_intervals=1s*30\n"))
	var running sync.WaitGroup
	slots := make(chan struct{}, 10)
	for i, r := range rows {
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			reply, err := letterFrom(d.Addr(), "127.0.0.1", "", fmt.Sprintf("to@row%d.test", i), oneMessage)
			if err != nil || !strings.HasPrefix(reply, "250 ") {
				t.Errorf("row%d.test %s: reply %q, %v", i, r.name, reply, err)
			}
		})
	}
	running.Wait()
	settled := func() map[string]bool {
		found := map[string]bool{}
		for _, m := range regexp.MustCompile(`(?m) (delivered|bounced|failed) .*\bto@(row\d+\.test)\b`).FindAllStringSubmatch(d.Log(), -1) {
			found[m[2]+" "+m[1]] = true
		}
		return found
	}
	eventually(t, "an end of every message", func() bool { return len(settled()) >= len(rows) })
	end := settled()
	for i, r := range rows {
		bad := func(format string, args ...any) {
			t.Errorf(fmt.Sprintf("row%d.test %s: ", i, r.name)+format, args...)
		}
		seen, accepted := tally(r.peer)
		most, delivered := 1, end[fmt.Sprintf("row%d.test delivered", i)]
		if r.twice {
			most = 2
		}
		switch n := accepted["one message"]; {
		case delivered == r.lost:
			bad("delivered is %t, want %t", delivered, !r.lost)
		case r.lost && n != 0, !r.lost && n == 0, n > most:
			bad("the backend took it %d times of %d", n, seen["one message"])
		}
		if v := r.peer.Violations(); len(v) > 0 {
			bad("violations %q", v)
		}
	}
	d.Stop()
}
