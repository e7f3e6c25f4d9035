package session

import (
	"strings"
	"testing"

	"tarishi/internal/hook"
)

// What plugins found out stands in one field on top; what the client says of itself in
// our name stands there no more.
func TestAuthenticationResults(t *testing.T) {
	const ours = "Authentication-Results: mx.test;\r\n\tspf=none smtp.helo=client.test;\r\n\tdkim=pass header.d=b.test\r\n"
	for name, tc := range map[string]struct {
		clean    bool
		in, want string // header sections behind our Received
	}{
		"none":            {true, "A: b\r\n", "A: b\r\n"},
		"any":             {true, "Authentication-Results: other.test; spf=pass\r\nA: b\r\n", "A: b\r\nOriginal-Authentication-Results: other.test; spf=pass\r\n"},
		"of others":       {false, "Authentication-Results: other.test; spf=pass\r\nA: b\r\n", "Authentication-Results: other.test; spf=pass\r\nA: b\r\n"},
		"ours":            {false, "authentication-results: (x) MX.test 1; spf=pass\r\nA: b\r\n", "A: b\r\nOriginal-Authentication-Results: (x) MX.test 1; spf=pass\r\n"},
		"without a name":  {false, "Authentication-Results: spf=pass\r\nA: b\r\n", "A: b\r\nOriginal-Authentication-Results: spf=pass\r\n"},
		"folded, in part": {false, "Authentication-Results:\r\n mx.test\r\n ; x=y\r\nAuthentication-Results: b.test; x=y\r\n", "Authentication-Results: b.test; x=y\r\nOriginal-Authentication-Results:\r\n mx.test\r\n ; x=y\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, false, func(o *Options) { o.CleanAuthResults = tc.clean })
			r.hooks.set(hook.OnDataPost, func(e *hook.Event) hook.Verdict {
				e.Tx.AddAuthResult("spf=none smtp.helo=client.test")
				e.Tx.AddAuthResult("dkim=pass header.d=b.test")
				return hook.Proceed()
			})
			c := r.hello()

			// Each message has its own.
			for range 2 {
				c.message(tc.in+"\r\n.\r\n", "250")
			}
			for _, m := range r.intake.messages() {
				got, found := strings.CutPrefix(m.raw, ours)
				got = strings.TrimPrefix(got, received.FindString(got))
				if !found || got != tc.want+"\r\n" {
					t.Errorf("%q\nwant %q and %q", m.raw, ours, tc.want)
				}
			}
		})
	}
}

// Without any result there is no field, and nothing of the header section changes.
func TestNoAuthenticationResults(t *testing.T) {
	r := newRig(t, false)
	r.hello().message("A: b\r\n\r\n.\r\n", "250")
	if m := r.intake.messages()[0]; strings.Contains(m.raw, "Authentication-Results") || m.tx.Header.Changed() {
		t.Errorf("%q", m.raw)
	}
}
