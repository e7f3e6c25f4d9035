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
// no credentials.
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
	syntax.Unimplemented: {"HELP", [...]outcome{{"502", connected}, {"502", greeted}, {"502", authenticated}, {"502", inTransaction}, {"502", receiving}}},
	syntax.Unknown:       {"XYZZY", [...]outcome{{"500", connected}, {"500", greeted}, {"500", authenticated}, {"500", inTransaction}, {"500", receiving}}},
}

// lead brings a new client into a state.
func lead(t *testing.T, r *rig, to state) *client {
	t.Helper()
	c := r.dial()
	c.want("220")
	if to >= greeted {
		c.cmd("EHLO x", "250")
	}
	if to == authenticated {
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
			t.Run(fmt.Sprint(row.line[:4], " ", from), func(t *testing.T) {
				want := row.all[from]
				r := newRig(t, false)
				r.hooks.set(hook.OnCapabilities, func(e *hook.Event) hook.Verdict {
					e.Conn.Auth = append(e.Conn.Auth, users{mechs: []string{"PLAIN"}})
					return hook.Proceed()
				})
				c := lead(t, r, from)
				if verb == syntax.BDAT {
					c.send(row.line)
					c.want(want.code)
				} else {
					c.cmd(row.line, want.code)
				}
				switch want.code {
				case "220":
					c.startTLS(r.pool)
				case "354":
					c.send("\r\n.\r\n")
					c.want("250")
				case "221":
					c.closed()
					return
				}
				if verb == syntax.MAIL && want.code == "250" { // the recipient of the old transaction is gone
					c.cmd("DATA", "503 5.5.1 RCPT required")
				}
				if verb == syntax.RCPT && want.code == "250" || from == inTransaction && want.next == inTransaction && verb != syntax.MAIL {
					c.cmd("BDAT 2\r\n", "250") // it has its recipients
					c.cmd("DATA", "503 5.5.1 DATA not allowed")
					return
				}
				if got := find(c); got != want.next {
					t.Errorf("the session is %s, want %s", got, want.next)
				}
			})
		}
	}
}

// TestRefusedGreeting: a refused EHLO takes back an earlier greeting, and leaves
// credentials as they are.
func TestRefusedGreeting(t *testing.T) {
	r := authRig(t, users{mechs: []string{"PLAIN"}})
	c := lead(t, r, authenticated)
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
