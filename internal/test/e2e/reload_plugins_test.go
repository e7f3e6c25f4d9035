package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fate sends a message for probe.test in a session and returns what became of it.
func (s *site) fate(d *dialog, subject string) string {
	s.t.Helper()
	d.say("MAIL FROM:<from@client.test>", "250")
	if d.answer("RCPT TO:<to@probe.test>") == "550" {
		d.say("RSET", "250")
		return "refused"
	}
	d.say("DATA", "354")
	d.send("Subject: " + subject + "\r\n\r\nHello.\r\n")
	reply := d.say(".", "250")
	content := s.arrived(subject)
	switch {
	case strings.Contains(reply, "Queued to /"):
		return "filed"
	case strings.Contains(content, "X-Envelope-To: "):
		return "marked"
	case content != "":
		return "relayed"
	}
	return reply
}

// A line of config/plugins that is added, removed or moved is in force for the next
// connection. A connection that is open keeps the plugins that it began with.
func TestReloadPlugins(t *testing.T) {
	t.Parallel()
	s := startSite(t, []string{"env", "TMPDIR=" + t.TempDir()}, "plugins", basePlugins)
	s.startFlows()
	first := s.visit()
	between := s.visit() // its transaction lasts over all changes
	between.say("MAIL FROM:<from@client.test>", "250")
	between.say("RCPT TO:<to@probe.test>", "250")

	fate := "relayed"
	for i, step := range []struct{ plugins, fate string }{
		{"record_envelope_addresses\n" + basePlugins, "marked"},
		{basePlugins, "relayed"},
		{strings.Replace(basePlugins, "queue/", "queue/test\nqueue/", 1), "filed"},
		{basePlugins + "queue/test\n", "relayed"},
		{"# nothing but a comment is new\n" + basePlugins + "queue/test\n", "relayed"},
		{strings.Replace(basePlugins, "rcpt_to.in_host_list\n", "", 1), "refused"},
		{basePlugins + "record_envelope_addresses\n", "marked"},
		{"process_title\n" + basePlugins, "relayed"},
	} {
		before := s.visit()
		s.configs.write("plugins", step.plugins)
		s.command()
		subject := func(who string) string { return fmt.Sprintf("%s at step %d", who, i) }
		if got := s.fate(s.visit(), subject("new")); got != step.fate {
			t.Errorf("step %d: a new connection's message was %s, want %s", i, got, step.fate)
		}
		if got := s.fate(before, subject("old")); got != fate {
			t.Errorf("step %d: the message of a connection from before was %s, want %s", i, got, fate)
		}
		if got := s.fate(first, subject("first")); got != "relayed" {
			t.Errorf("step %d: the message of the first connection was %s", i, got)
		}
		fate = step.fate
		s.flowOn(10)
	}

	between.say("DATA", "354")
	between.send("Subject: between\r\n\r\nHello.\r\n")
	between.say(".", "250")
	if got := s.arrived("between"); got == "" || strings.Contains(got, "X-Envelope") {
		t.Errorf("the message whose transaction was open: %q", got)
	}
	s.endFlows()
}

// rcpt returns the code of the answer to RCPT for a domain.
func rcpt(d *dialog, domain string) string {
	d.t.Helper()
	d.say("MAIL FROM:<from@client.test>", "250")
	defer d.say("RSET", "250")
	return d.answer("RCPT TO:<to@" + domain + ">")
}

// login returns the code of the answer to AUTH with the password secret.
func login(d *dialog, user string) string {
	d.t.Helper()
	return d.answer("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00"+user+"\x00secret")))
}

// Each file that a connection depends on is in force for the next connection, and for
// no connection that is open.
func TestReloadSettings(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := folder(t, with(s.siteFiles(), "plugins", "tls\n"+basePlugins, "auth_flat_file.ini", "[users]\none=secret\n"))
	certify(t, filepath.Join(dir, "config"), "tls", "mx.test", 80*days)
	for from, to := range map[string]string{"tls.key": "tls_key.pem", "tls.crt": "tls_cert.pem"} {
		if err := os.Rename(filepath.Join(dir, "config", from), filepath.Join(dir, "config", to)); err != nil {
			t.Fatal(err)
		}
	}
	s.startIn(dir)
	s.startFlows()

	offer := func(text string) func(*dialog) string {
		return func(d *dialog) string {
			return fmt.Sprint(strings.Contains(d.say("EHLO client.test", "250"), text))
		}
	}
	to := func(domain string) func(*dialog) string { return func(d *dialog) string { return rcpt(d, domain) } }
	as := func(user string) func(*dialog) string { return func(d *dialog) string { return login(d, user) } }
	for _, step := range []struct {
		file, text string // "": the file is removed
		look       func(*dialog) string
		old, now   string
	}{
		{"host_list", "probe.test\nother.test\n", to("other.test"), "550", "250"},
		{"host_list", "probe.test\n", to("other.test"), "250", "550"},
		{"host_list_regex", "oth.*test\n", to("other.test"), "550", "250"},
		{"host_list_regex", "", to("other.test"), "250", "550"},
		{"host_list.anti_spoof", "1\n", func(d *dialog) string { return d.answer("MAIL FROM:<from@probe.test>") }, "250", "550"},
		{"relay_acl_allow", trusted + "\n" + stranger + "\n", to("sink.test"), "550", "250"},
		{"relay_acl_allow", trusted + "\n", to("sink.test"), "250", "550"},
		{"relay.ini", "[relay]\nall=true\n", to("sink.test"), "550", "250"},
		{"relay.ini", "", to("sink.test"), "250", "550"},
		{"auth_flat_file.ini", "[users]\none=secret\ntwo=secret\n", as("two"), "535", "235"},
		{"auth_flat_file.ini", "[users]\none=other\ntwo=secret\n", as("one"), "235", "535"},
		{"auth_flat_file.ini", "[core]\nmethods=LOGIN\n[users]\ntwo=secret\n", offer("PLAIN"), "true", "false"},
		{"connection.ini", "[max]\nbytes=1234567\n", offer("SIZE 1234567"), "false", "true"},
		{"connection.ini", "smtputf8=false\n", offer("SMTPUTF8"), "true", "false"},
		{"connection.ini", "[message]\nhelo=Good day.\n", offer("Good day."), "false", "true"},
		{"me", "renamed.test\n", offer("250-renamed.test"), "false", "true"},
		{"tls.ini", "[no_tls_hosts]\n" + stranger + "\n", offer("STARTTLS"), "true", "false"},
		{"tls.ini", "", offer("STARTTLS"), "false", "true"},
		{"smtp_forward.ini", "check_recipient=true\n" + s.configs.read("smtp_forward.ini") + "[third.test]\nhost=" + s.probes.Addr() + "\n", to("third.test"), "550", "250"},
	} {
		before, witness := s.visit(), s.visit()
		if got := step.look(before); got != step.old {
			t.Fatalf("%s before the change: %s, want %s", step.file, got, step.old)
		}
		if step.text == "" {
			s.configs.remove(step.file)
		} else {
			s.configs.write(step.file, step.text)
		}
		s.reload()
		if got := step.look(s.visit()); got != step.now {
			t.Errorf("%s, changed to %q: %s, want %s", step.file, step.text, got, step.now)
		}
		if got := step.look(witness); got != step.old {
			t.Errorf("%s, changed to %q, for a connection from before: %s, want %s", step.file, step.text, got, step.old)
		}
	}
	s.flowOn(10)
	s.endFlows()
}
