package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/smtptest"
)

// TestQuotedCredentials: a smart host that quotes our AUTH command gets the
// password neither into the log and the queue nor into the sender's report.
func TestQuotedCredentials(t *testing.T) {
	t.Parallel()
	const user, pass = "account", "the pass phrase"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + pass))
	smart := peer(t, smtptest.Credentials(user, pass), smtptest.On(smtptest.Auth, func(e smtptest.Event) smtptest.Action {
		return smtptest.Reply("502 5.5.2 unknown command: " + e.Line + " (" + pass + ")")
	}))
	home := smtptest.New(t)
	section := func(domain, more string) string {
		return fmt.Sprintf("[%s]\nhost=%s\nauth_type=plain\nauth_user=%s\nauth_pass=%s\n%s\n", domain, smart.Addr(), user, pass, more)
	}
	d := Start(t, with(queueTo(t, home.Port(), section("waits.test", "")+section("fails.test", "temp_fail_intervals=none"), "client.test"),
		"log.ini", "level=protocol\n"))
	mustSend(t, d.Addr(), "to@fails.test", oneMessage)
	mustSend(t, d.Addr(), "to@waits.test", oneMessage)
	report := string(home.WaitMessages(1)[0].Content)
	d.awaitLog(`\bdeferred\b.*waits\.test|waits\.test.*\bdeferred\b`)
	kept := map[string]string{"the report": report, "queue list": execute(t, binary(t), "queue", "list", "-c", d.Dir).out}
	for _, field := range strings.Fields(kept["queue list"]) {
		if id, _, ok := strings.Cut(field, "."); ok && len(id) > 30 {
			kept["queue show"] = execute(t, binary(t), "queue", "show", field, "-c", d.Dir).out
			kept["queue why"] = execute(t, binary(t), "queue", "why", field, "-c", d.Dir).out
		}
	}
	if !strings.Contains(kept["queue show"], "unknown command") || !strings.Contains(report, "unknown command") {
		t.Errorf("the reply is lost: %q", kept)
	}
	kept["the log"] = d.Log()
	filepath.WalkDir(filepath.Join(d.Dir, "queue"), func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			b, _ := os.ReadFile(path)
			kept[path] = string(b)
		}
		return nil
	})
	for where, text := range kept {
		for _, secret := range []string{plain, plain[4:20], pass, base64.StdEncoding.EncodeToString([]byte(pass))} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %q", where, secret)
			}
		}
	}
}
