package route

import (
	"testing"
	"testing/fstest"

	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/tlsconf"
)

// TestFromFile reads the example as an operator writes it, and a wildcard.
func TestFromFile(t *testing.T) {
	const text = "host=1.2.3.4\nport=2525\nauth_type=plain\nauth_user=user\nauth_pass=pass\n" +
		"[example1.com]\nhost=1.2.3.5\n[example2.com]\nhost=1.2.3.5\n[example3.com]\nhost=1.2.3.6\n" +
		"[example4.com]\nenable_outbound=false\n[*.wild.org]\nhost=lmtp://1.2.3.7\n"
	f := &Settings{}
	r := ini.NewReader(fstest.MapFS{File: {Data: []byte(text)}}, t.TempDir())
	r.Load(f.Tables(&tlsconf.Outbound{}))
	for _, p := range r.Problems() {
		if !p.Warning {
			t.Error(p)
		}
	}
	for _, tc := range []struct{ to, in, out string }{
		{"a@example1.com b@example2.com", "forward 1.2.3.5:2525", "forward 1.2.3.5:2525"},
		{"a@example1.com b@example3.com", "enqueue", "outbound"},
		{"a@other.com", "forward 1.2.3.4:2525", "forward 1.2.3.4:2525"},
		{"a@example4.com", "forward 1.2.3.4:2525", "outbound"},
		{"a@x.wild.org", "forward 1.2.3.7:24", "forward 1.2.3.7:24"},
		{"a@wild.org", "forward 1.2.3.4:2525", "forward 1.2.3.4:2525"},
	} {
		if got := describe(Decide(f, false, mail.Address{}, rcpts(tc.to), nil)); got != tc.in {
			t.Errorf("%s: %s, want %s", tc.to, got, tc.in)
		}
		if got := describe(Decide(f, true, mail.Address{}, rcpts(tc.to), nil)); got != tc.out {
			t.Errorf("%s relaying: %s, want %s", tc.to, got, tc.out)
		}
	}
	if r := Decide(f, false, mail.Address{}, rcpts("a@example1.com"), nil).Route; r.AuthUser != "" {
		t.Errorf("main's credentials go to another host: %+v", r)
	}
}
