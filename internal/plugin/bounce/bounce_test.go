package bounce

import (
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// read reads bounce.ini and the lists.
func read(text string) (*Settings, ini.Problems) {
	s := &Settings{}
	r := ini.NewReader(fstest.MapFS{
		file: {Data: []byte(text)}, listFile: {Data: []byte("List@here.com\n")},
		whitelistFile: {Data: []byte("{\"b@here.com\": [\"Robot@x.org\",\n \"*@y.org\"]}\n")},
	}, "")
	r.Load(s.Tables())
	return s, r.Problems()
}

const secret = "0123456789012345678901234567890123456789"

// quiet is a bounce.ini without checks; what follows it switches some on.
const quiet = "[validation]\nsecret=" + secret + "\n[check]\nsingle_recipient=false\nbounce_spf=false\nhash_date=true\n[reject]\nsingle_recipient=false\nbad_rcpt=false\n"

// found is what the plugin left, without isa.
func found(tx *hook.Transaction) string {
	return tx.Results.Of(Name).Line(result.Format{Hide: []string{"isa"}})
}

// The cases are those of haraka-plugin-bounce 2.2.1 before the content comes, with the
// texts of its replies.
func TestEnvelope(t *testing.T) {
	const rejectAll, noReports, many = "Bounces not accepted here", "List@here.com does not accept bounces", "this bounce message has too many recipients"
	for _, test := range []struct {
		name, ini, from string
		relaying        bool
		point           hook.Point
		to              []string
		want, text      string
	}{
		{"a report", quiet, "", false, hook.OnMail, nil, "", ""},
		{"none wanted", quiet + "all_bounces=true\n", "", false, hook.OnMail, nil, "msg:" + rejectAll + ", fail:bounces_accepted", rejectAll},
		{"none wanted, old key", "[check]\nreject_all=true\n", "", false, hook.OnMail, nil, "msg:" + rejectAll + ", fail:bounces_accepted", rejectAll},
		{"our own", quiet + "all_bounces=true\n", "", true, hook.OnMail, nil, "", ""},
		{"no report", quiet + "all_bounces=true\n", "a@b.com", false, hook.OnMail, nil, "", ""},
		{"recipient", "", "", false, hook.OnRcptOK, []string{"a@here.com"}, "pass:bad_rcpt", ""},
		{"bad recipient", "", "", false, hook.OnRcptOK, []string{"List@here.com"}, "msg:rcpt does not accept bounces, fail:bad_rcpt", noReports},
		{"bad recipient, tolerated", "[reject]\nbad_rcpt=false\n", "", false, hook.OnRcptOK, []string{"List@here.com"}, "", ""},
		{"mail to it", "", "a@b.com", false, hook.OnRcptOK, []string{"List@here.com"}, "", ""},
		{"one recipient", "", "", false, hook.OnData, []string{"a@here.com"}, "pass:single_recipient", ""},
		{"two recipients", "", "", false, hook.OnData, []string{"a@here.com", "b@here.com"}, "msg:too many recipients, fail:single_recipient", many},
		{"two recipients, tolerated", "[reject]\nsingle_recipient=false\n", "", false, hook.OnData, []string{"a@here.com", "b@here.com"}, "msg:too many recipients, fail:single_recipient", ""},
		{"not counted", quiet, "", false, hook.OnData, []string{"a@here.com", "b@here.com"}, "", ""},
		{"mail to two", "", "a@b.com", false, hook.OnData, []string{"a@here.com", "b@here.com"}, "", ""},
		{"our own to two", "", "", true, hook.OnData, []string{"a@here.com", "b@here.com"}, "", ""},
	} {
		s, problems := read(test.ini)
		if len(problems.Errors()) > 0 {
			t.Fatal(problems)
		}
		chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
		c, tx := plugintest.Session(t, test.from, test.to...)
		tx.Relaying = test.relaying
		e := &hook.Event{Conn: c.View(), Tx: tx.View()}
		if test.point == hook.OnRcptOK {
			e.Recipient = mail.Recipient{Address: plugintest.Address(t, test.to[0])}
		}
		v := chain.Run(t.Context(), test.point, e)
		if got := found(tx); v.Text != test.text || (v.Code == hook.Deny) != (test.text != "") || got != test.want {
			t.Errorf("%s: %+v, %q", test.name, v, got)
		}
		if isa := tx.Results.Of(Name).Value("isa"); test.point == hook.OnMail && isa != (test.from == "") {
			t.Errorf("%s: isa is %v", test.name, isa)
		}
	}
}

func TestReturnPath(t *testing.T) {
	const text = "bounce with non-empty Return-Path (RFC 3834)"
	for header, good := range map[string]bool{"": true, "Return-Path: <>\n": true, "Return-Path:\n": true, "Return-Path: <a@b.com>\n": false} {
		for _, switches := range []string{"[check]\nempty_return_path=true\n", "[reject]\nempty_return_path=true\n"} {
			s, _ := read(quiet + switches)
			chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
			c, tx := plugintest.Session(t, "", "b@here.com")
			plugintest.Receive(t, tx, header+"X: y\n\nbody\n")
			v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
			want := "pass:empty_return_path"
			if !good {
				want = "msg:bounce with non-empty Return-Path, fail:empty_return_path"
			}
			refuse := !good && strings.HasPrefix(switches, "[reject]")
			if got := found(tx); got != want || (v.Code == hook.Deny) != refuse || refuse && v.Text != text {
				t.Errorf("%q %q: %+v, %q", header, switches, v, got)
			}
		}
	}
}

// sent is the header section of a message of ours from so many days ago.
func sent(days int) string {
	return "From: =?utf-8?q?J=C3=B6?= <b@here.com>\nDate: " + time.Now().Add(-time.Duration(days)*24*time.Hour).Format(time.RFC1123Z) + "\nMessage-ID:\n <1@here.com>\nSubject: x\n"
}

// marked is such a section with the mark that the plugin makes.
func marked(t *testing.T, section string) string {
	t.Helper()
	s, _ := read(quiet + "[check]\nhash_validation=true\n")
	chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
	c, tx := plugintest.Session(t, "b@here.com", "x@there.com")
	tx.Relaying = true
	plugintest.Receive(t, tx, section+"\nbody\n")
	if v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont || !tx.Header.Has(markField) {
		t.Fatalf("%+v, %s", v, tx.Header.Bytes())
	}
	return strings.ReplaceAll(strings.TrimSuffix(string(tx.Header.Bytes()), "\r\n"), "\r\n", "\n")
}

// report is a report that returns a message, as part of a type.
func report(partType, returned string) string {
	return "From: MAILER-DAEMON <robot@there.com>\nContent-Type: multipart/report; boundary=x\n\n--x\n\nIt could not be delivered.\n--x\nContent-Type: " +
		partType + "\n\n" + returned + "\n--x--\n"
}

func TestValidation(t *testing.T) {
	const on = quiet + "[check]\nhash_validation=true\n"
	good := marked(t, sent(1))
	mark := good[strings.Index(good, markField):]
	for _, test := range []struct {
		name, message, want string
		rejects             string // the key that refuses it
	}{
		{"enclosed", report("message/rfc822", good+"\nbody\n"), "pass:validate_bounce", ""},
		{"header alone", report("text/rfc822-headers", good), "pass:validate_bounce", ""},
		{"in the text", "From: a@b.com\n\nSorry.\n\n" + good + "\nbody\n", "pass:validate_bounce", ""},
		{"folded anew", report("text/rfc822-headers", strings.ReplaceAll(good, "Date: ", "Date:\n\t ")), "pass:validate_bounce", ""},
		{"encoded part", "From: a@b.com\nContent-Transfer-Encoding: quoted-printable\n\n" + strings.ReplaceAll(good, "=", "=3D"), "pass:validate_bounce", ""},
		{"fields in the text too", strings.Replace(report("text/rfc822-headers", good), "It could", "From: x@x.com\nIt could", 1), "pass:validate_bounce", ""},
		{"no fields", report("text/plain", "nothing"), "msg:missing all headers, skip:validate_bounce", ""},
		{"mark alone", report("text/rfc822-headers", mark), "msg:missing headers, fail:validate_bounce", "hash_validation"},
		{"short mark", report("text/rfc822-headers", sent(1)+markField+": abc\n"), "msg:hash length mismatch, fail:validate_bounce", "hash_validation"},
		{"wrong mark", report("text/rfc822-headers", strings.Replace(good, "1@here", "2@here", 1)), "msg:hash does not match, fail:validate_bounce", "hash_validation"},
		{"old mark", report("text/rfc822-headers", marked(t, sent(8))), "msg:hash is too old, fail:bounce_date", "hash_date"},
		{"no date", report("text/rfc822-headers", marked(t, strings.Replace(sent(1), "Date: ", "Date: x", 1))), "msg:invalid date header, fail:bounce_date", "hash_date"},
		{"no mark", report("text/rfc822-headers", sent(1)), "msg:missing validation hash, fail:validate_bounce", "hash_validation"},
		{"no mark, listed", strings.Replace(report("text/rfc822-headers", sent(1)), "robot@there.com", "robot@X.org", 1), "msg:whitelisted, skip:validate_bounce", ""},
		{"no mark, domain listed", strings.Replace(report("text/rfc822-headers", sent(1)), "robot@there.com", "any@y.org", 1), "msg:whitelisted, skip:validate_bounce", ""},
		{"no mark, no author", strings.Replace(report("text/rfc822-headers", sent(1)), "<robot@there.com>", "", 1), "msg:invalid from header, skip:validate_bounce", ""},
	} {
		for _, reject := range []string{"", "hash_validation", "hash_date"} {
			text := on
			if reject != "" {
				text += "[reject]\n" + reject + "=true\n"
			}
			s, problems := read(text)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			chain := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{})
			c, tx := plugintest.Session(t, "", "b@here.com")
			plugintest.Receive(t, tx, test.message)
			v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if got := found(tx); got != test.want {
				t.Errorf("%s: %q, want %q", test.name, got, test.want)
			}
			if refuse := test.rejects != "" && test.rejects == reject; (v.Code == hook.Deny) != refuse || refuse && v.Text != "invalid bounce" {
				t.Errorf("%s, reject %q: %+v", test.name, reject, v)
			}
		}
	}

	// A valid report may be spared the later plugins, and its date be left alone.
	for text, want := range map[string]hook.Code{on + "[skip]\nremaining_plugins=true\n": hook.OK, on: hook.Cont} {
		s, _ := read(text)
		c, tx := plugintest.Session(t, "", "b@here.com")
		plugintest.Receive(t, tx, report("message/rfc822", good+"\n"))
		if v := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != want {
			t.Errorf("%+v", v)
		}
	}
	s, _ := read(on + "hash_date=false\n")
	c, tx := plugintest.Session(t, "", "b@here.com")
	plugintest.Receive(t, tx, report("message/rfc822", marked(t, sent(100))+"\n"))
	plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
	if got := found(tx); got != "pass:validate_bounce" {
		t.Errorf("%q", got)
	}
}

// Only mail that goes out is marked, and only what can be recognized.
func TestMark(t *testing.T) {
	for _, test := range []struct {
		from     string
		relaying bool
		section  string
		want     bool
	}{
		{"b@here.com", true, sent(0), true},
		{"b@here.com", false, sent(0), false},
		{"", true, sent(0), false},
		{"b@here.com", true, strings.Replace(sent(0), "Date:", "X-Date:", 1), false},
	} {
		s, _ := read(quiet + "[check]\nhash_validation=true\n")
		c, tx := plugintest.Session(t, test.from, "x@there.com")
		tx.Relaying = test.relaying
		plugintest.Receive(t, tx, test.section+"\nbody\n")
		plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{}).Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
		if tx.Header.Has(markField) != test.want {
			t.Errorf("%+v", test)
		}
	}

	// The mark is the one that Haraka makes of the same message.
	c := checker{Settings: &Settings{Secret: "k", Algorithm: "sha256"}}
	if got := c.hash(identity{"a@b.c", "Mon, 1 Jan 2024 10:00:00 +0000", "<1@b.c>"}); got != "d65517239aa0a275792a26b1c49aa822b0bc510b9f0efa9ddfa777d195f4a994" {
		t.Errorf("%s", got)
	}
}

func TestOrigin(t *testing.T) {
	world := &plugintest.DNS{
		Texts: map[string][]string{"here.com": {"v=spf1 ip4:8.8.8.8 ip6:2a00::/16 -all"}, "soft.com": {"v=spf1 ~all"}, "wrong.com": {"v=spf1 nonsense -all"}},
		Addresses: map[string][]string{
			"none.com": {"8.8.8.8"},
		},
		Errors: map[string]error{"broken.com": plugintest.ErrBroken},
	}
	trace := func(addrs ...string) string {
		text := ""
		for _, addr := range addrs {
			text += "Received: from x (name)\n\tby y " + addr + " with z\n"
		}
		return report("message/rfc822", text+"Subject: x\n\nbody\n")
	}
	const spoofed = "Invalid bounce (spoofed sender)"
	for _, test := range []struct{ to, message, want, text string }{
		{"b@here.com", trace("[8.8.8.8]"), "pass:bounce_spf", ""},
		{"b@here.com", trace("[9.9.9.9]", "(8.8.8.8)"), "pass:bounce_spf", ""},
		{"b@here.com", trace("[IPv6:2a00::1]"), "pass:bounce_spf", ""},
		{"b@here.com", trace("[192.168.0.1]", "[9.9.9.9]"), "msg:invalid bounce (spoofed sender), fail:bounce_spf", spoofed},
		{"b@soft.com", trace("[9.9.9.9]"), "msg:invalid bounce (spoofed sender), fail:bounce_spf", spoofed},
		{"b@here.com", trace("[192.168.0.1]"), "msg:no IP addresses found in message, skip:bounce_spf", ""},
		{"b@here.com", report("text/plain", "nothing"), "msg:no IP addresses found in message, skip:bounce_spf", ""},
		{"b@here.com", "X: y\n\nReceived: from x ([8.8.8.8])\n", "pass:bounce_spf", ""},
		{"b@none.com", trace("[9.9.9.9]"), "msg:SPF returned None, skip:bounce_spf", ""},
		{"b@wrong.com", trace("[9.9.9.9]"), "msg:SPF returned PermError, skip:bounce_spf", ""},
		{"b@broken.com", trace("[9.9.9.9]"), "msg:SPF returned TempError, skip:bounce_spf", ""},
	} {
		for _, reject := range []bool{false, true} {
			text := quiet + "[check]\nbounce_spf=true\n"
			if reject {
				text = quiet + "bounce_spf=true\n"
			}
			s, _ := read(text)
			c, tx := plugintest.Session(t, "", test.to)
			plugintest.Receive(t, tx, test.message)
			v := plugintest.Chain(t, New, plugintest.Own(s), plugin.Services{Resolver: world}).Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if got := found(tx); got != test.want {
				t.Errorf("%s: %q, want %q", test.to, got, test.want)
			}
			want := test.text
			if !reject {
				want = ""
			}
			if v.Text != want || (v.Code == hook.Deny) != (want != "") {
				t.Errorf("%s, reject %v: %+v", test.to, reject, v)
			}
		}
	}
}

func TestSettings(t *testing.T) {
	s, problems := read("")
	if len(problems) > 0 || s.Check != (Checks{SingleRecipient: true, SPF: true, HashDate: true}) || s.MaxAgeDays != 6 || s.Algorithm != "sha256" ||
		s.Reject != (Rejections{Checks: Checks{SingleRecipient: true}, BadRcpt: true}) || !slices.Equal(s.Whitelist["b@here.com"], []string{"robot@x.org", "*@y.org"}) {
		t.Errorf("%+v, %v", s, problems)
	}

	// A mark without a good secret stops the start, as does a wrong word.
	for text, line := range map[string]int{
		"[check]\nhash_validation=true\n": 0, "[validation]\nsecret=short\n[reject]\nhash_validation=true\n": 2, "[validation]\nhash_algorithm=rot13\n": 2,
	} {
		if s, problems := read(text); len(problems.Errors()) != 1 || problems[0].Line != line || s.Check.HashValidation {
			t.Errorf("%q: %v", text, problems)
		}
	}
	if s, problems := read("[validation]\nhash_algorithm=SHA512\nsecret=" + secret + "\n[reject]\nhash_validation=true\nhash_date=true\n[check]\nhash_date=false\n"); len(problems) > 0 || !s.Check.HashValidation || !s.Check.HashDate || s.Algorithm != "sha512" {
		t.Errorf("%+v, %v", s, problems)
	}
	bad := &Settings{}
	r := ini.NewReader(fstest.MapFS{whitelistFile: {Data: []byte("{\n")}}, "")
	r.Load(bad.Tables())
	if len(r.Problems().Errors()) != 1 {
		t.Errorf("%v", r.Problems())
	}
}

// FuzzReport: whatever a report holds, it is searched.
// The text of a report may be one field of nothing but folds: the memory for its value must not
// grow with the square of their number.
func TestManyFolds(t *testing.T) {
	x := excerpt{lines: append([]string{"Received: a"}, slices.Repeat([]string{" b"}, 20_000)...)}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	got := x.values("received")
	runtime.ReadMemStats(&after)
	if len(got) != 1 || len(got[0]) != 1+2*20_000 {
		t.Errorf("%d values", len(got))
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 16<<20 {
		t.Errorf("%d bytes for %d", used, len(got[0]))
	}
}

func FuzzReport(f *testing.F) {
	f.Add(report("message/rfc822", "Received: from x ([8.8.8.8])\nFrom: a@b.c\nDate: 1\n\n"))
	f.Add("Content-Type: multipart/mixed; boundary=x\n\n--x\n\nFrom\n :\nX-Haraka-Bounce-Validation: =?utf-8?q?=?=\n")
	s, _ := read(quiet + "[check]\nhash_validation=true\nbounce_spf=true\n")
	chain := plugintest.Chain(f, New, plugintest.Own(s), plugin.Services{Resolver: &plugintest.DNS{}})
	f.Fuzz(func(t *testing.T, text string) {
		c, tx := plugintest.Session(t, "", "b@here.com")
		plugintest.Receive(t, tx, text)
		if v := chain.Run(t.Context(), hook.OnDataPost, &hook.Event{Conn: c.View(), Tx: tx.View()}); v.Code != hook.Cont {
			t.Errorf("%+v", v)
		}
	})
}
