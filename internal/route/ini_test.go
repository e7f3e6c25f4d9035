package route

import (
	"os"
	"path/filepath"
	"testing"

	"tarishi/internal/conf"
	"tarishi/internal/mail"
)

// TestFromFile reads the example as an operator writes it, and a wildcard.
func TestFromFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	const ini = "host=1.2.3.4\nport=2525\nauth_type=plain\nauth_user=user\nauth_pass=pass\n" +
		"[example1.com]\nhost=1.2.3.5\n[example2.com]\nhost=1.2.3.5\n[example3.com]\nhost=1.2.3.6\n" +
		"[example4.com]\nenable_outbound=false\n[*.wild.org]\nhost=lmtp://1.2.3.7\n"
	if err := os.WriteFile(filepath.Join(dir, "config", "smtp_forward.ini"), []byte(ini), 0o644); err != nil {
		t.Fatal(err)
	}
	c, problems := conf.Load(dir)
	for _, p := range problems {
		if p.File == "config/smtp_forward.ini" && !p.Warning {
			t.Error(p)
		}
	}
	f := &c.Forward
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
