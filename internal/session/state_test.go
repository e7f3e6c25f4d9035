package session

import (
	"fmt"
	"strings"
	"testing"

	"tarishi/internal/hook"
	"tarishi/internal/smtpd/syntax"
)

func (s state) String() string {
	return [...]string{"connected", "greeted", "authenticated", "inTransaction", "receiving", "closing", "accepted"}[s]
}

// outcome is the reply to a command, and the state behind it.
type outcome struct {
	code string
	next state
}

// walk is what each command does in each state, as RFC 5321 section 4.1.4 has it, and
// RFC 3030, RFC 3207 and RFC 4954 for their commands: connected, greeted,
// authenticated, inTransaction, receiving. In the two of a transaction the client has
// no credentials; see expect for one that has.
var walk = map[syntax.Verb]struct {
	line string
	all  [commandStates]outcome
}{
	syntax.HELO:     {"HELO again", [...]outcome{{"250", greeted}, {"250", greeted}, {"250", authenticated}, {"250", greeted}, {"250", greeted}}},
	syntax.EHLO:     {"EHLO again", [...]outcome{{"250", greeted}, {"250", greeted}, {"250", authenticated}, {"250", greeted}, {"250", greeted}}},
	syntax.STARTTLS: {"STARTTLS", [...]outcome{{"220", connected}, {"220", connected}, {"503", authenticated}, {"220", connected}, {"220", connected}}},
	syntax.AUTH: {
		"AUTH PLAIN " + b64("\x00user\x00secret"),
		[...]outcome{{"502", connected}, {"235", authenticated}, {"503", authenticated}, {"503", inTransaction}, {"503", receiving}},
	},
	syntax.MAIL:          {"MAIL FROM:<>", [...]outcome{{"503", connected}, {"250", inTransaction}, {"250", inTransaction}, {"250", inTransaction}, {"503", receiving}}},
	syntax.RCPT:          {"RCPT TO:<c@d.test>", [...]outcome{{"503", connected}, {"503", greeted}, {"503", authenticated}, {"250", inTransaction}, {"503", receiving}}},
	syntax.DATA:          {"DATA", [...]outcome{{"503", connected}, {"503", greeted}, {"503", authenticated}, {"354", greeted}, {"503", receiving}}},
	syntax.BDAT:          {"BDAT 2\r\nxy", [...]outcome{{"503", connected}, {"503", greeted}, {"503", authenticated}, {"250", receiving}, {"250", receiving}}},
	syntax.RSET:          {"RSET", [...]outcome{{"250", connected}, {"250", greeted}, {"250", authenticated}, {"250", greeted}, {"250", greeted}}},
	syntax.NOOP:          {"NOOP", [...]outcome{{"250", connected}, {"250", greeted}, {"250", authenticated}, {"250", inTransaction}, {"250", receiving}}},
	syntax.VRFY:          {"VRFY a", [...]outcome{{"252", connected}, {"252", greeted}, {"252", authenticated}, {"252", inTransaction}, {"252", receiving}}},
	syntax.QUIT:          {"QUIT", [...]outcome{{"221", closing}, {"221", closing}, {"221", closing}, {"221", closing}, {"221", closing}}},
	syntax.PROXY:         {"PROXY UNKNOWN", [...]outcome{{"421", closing}, {"421", closing}, {"421", closing}, {"421", closing}, {"421", closing}}},
	syntax.XCLIENT:       {"XCLIENT ADDR=::1", [...]outcome{{"500", connected}, {"500", greeted}, {"500", authenticated}, {"500", inTransaction}, {"500", receiving}}}, // without its plugin
	syntax.Unimplemented: {"HELP", [...]outcome{{"502", connected}, {"502", greeted}, {"502", authenticated}, {"502", inTransaction}, {"502", receiving}}},
	syntax.Unknown:       {"XYZZY", [...]outcome{{"500", connected}, {"500", greeted}, {"500", authenticated}, {"500", inTransaction}, {"500", receiving}}},
}

// expect is what walk says, for a client with credentials or without.
func expect(verb syntax.Verb, from state, credentials bool) outcome {
	want := walk[verb].all[from]
	switch {
	case credentials && verb == syntax.STARTTLS:
		return outcome{"503", from}
	case credentials && want.next == greeted:
		want.next = authenticated
	}
	return want
}

// lead brings a new client into a state.
func lead(t *testing.T, r *rig, to state, credentials bool) *client {
	t.Helper()
	c := r.dial()
	c.want("220")
	if to >= greeted {
		c.cmd("EHLO x", "250")
	}
	if credentials {
		c.cmd("AUTH PLAIN "+b64("\x00user\x00secret"), "235")
	}
	if to >= inTransaction {
		c.envelope()
	}
	if to == receiving {
		c.cmd("BDAT 2\r\n", "250")
	}
	return c
}

// find tells the state from outside, by commands that change nothing.
func find(c *client) state {
	c.t.Helper()
	c.send("DATA\r\n")
	switch got := c.read(); {
	case got == "":
		return closing
	case strings.HasPrefix(got, "503 5.5.1 DATA not allowed"):
		return receiving
	case !strings.HasPrefix(got, "503 5.5.1 MAIL required"):
		return inTransaction
	}
	c.send("AUTH\r\n")
	switch got := c.read(); {
	case strings.HasPrefix(got, "502 5.5.1"):
		return connected
	case strings.HasPrefix(got, "503"):
		return authenticated
	}
	return greeted
}

// TestStates walks every command in every state over a socket.
func TestStates(t *testing.T) {
	for verb := range syntax.Verb(syntax.Verbs) {
		row, ok := walk[verb]
		if !ok {
			t.Fatalf("verb %d is not walked", verb)
		}
		for from := range state(commandStates) {
			if steps[verb][from] == nil {
				t.Fatalf("%s has no step in %s", row.line, from)
			}
			for _, credentials := range []bool{false, true} {
				if from < inTransaction && credentials != (from == authenticated) {
					continue
				}
				t.Run(fmt.Sprint(row.line[:4], " ", from, " ", credentials), func(t *testing.T) { take(t, verb, from, credentials) })
			}
		}
	}
}

// take has a client in a state say a command, and looks where that leads.
func take(t *testing.T, verb syntax.Verb, from state, credentials bool) {
	want := expect(verb, from, credentials)
	c := lead(t, authRig(t, users{mechs: []string{"PLAIN"}}), from, credentials)
	c.send(strings.TrimSuffix(walk[verb].line+"\r\n", "xy\r\n"))
	if verb == syntax.BDAT {
		c.send("xy")
	}
	c.want(want.code)
	switch {
	case want.code == "220":
		_, pool := testCert()
		c.startTLS(pool)
	case want.code == "354":
		c.send("\r\n.\r\n")
		c.want("250")
	case want.next == closing:
		c.closed()
		return
	case verb == syntax.MAIL && want.next == inTransaction: // a new one, without recipients
		c.cmd("DATA", "503 5.5.1 RCPT required")
	case want.next == inTransaction: // with its recipients still
		c.cmd("BDAT 2\r\n", "250")
		c.cmd("DATA", "503 5.5.1 DATA not allowed")
		return
	}
	if got := find(c); got != want.next {
		t.Errorf("the session is %s, want %s", got, want.next)
	}
}

// TestRefusedGreeting: a refused EHLO takes back an earlier greeting, and leaves
// credentials as they are.
func TestRefusedGreeting(t *testing.T) {
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	c := lead(t, r, authenticated, true)
	r.hooks.answer(hook.OnEhlo, hook.Verdict{Code: hook.Deny})
	c.cmd("EHLO again", "550")
	if got := find(c); got != connected {
		t.Errorf("the session is %s", got)
	}
	c.cmd("MAIL FROM:<>", "503 5.5.1 Use EHLO")
	r.hooks.answer(hook.OnEhlo, hook.Proceed())
	c.cmd("EHLO again", "250")
	if got := find(c); got != authenticated {
		t.Errorf("the session is %s", got)
	}
}
