package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/test/load/instance"
)

// lateBinary builds a daemon whose plugin queue/discard works on behind its
// timeout.
func lateBinary(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	plugin := filepath.Join(root, "internal", "plugin", "discard", "discard.go")
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{
		plugin: filepath.Join(root, "internal", "test", "e2e", "testdata", "late", "discard.go"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay, bin := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tarishi")
	if err := os.WriteFile(overlay, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-overlay", overlay, "-o", bin, "tarishi/cmd/tarishi").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return bin
}

// TestLongLatePlugin: a handler that outlives its timeout and goes on to write notes
// defers what it was asked about, and costs neither its connection nor the process nor
// anybody else's session.
func TestLongLatePlugin(t *testing.T) {
	long(t)
	t.Parallel()
	bin := lateBinary(t)
	dir := folder(t, map[string]string{"plugins": "queue/discard\n", "plugin_timeout": "1\n"})
	s, err := instance.Tarishi(t.Context(), bin, dir, 1)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Server: s, t: t}
	t.Cleanup(d.Stop)

	other := connect(t, d.Addr())
	other.expect("220")
	other.send("EHLO other.test\r\n")
	other.expect("250")
	var all sync.WaitGroup
	for _, point := range []string{"mail", "rcpt", "data", "data_post", "queue"} {
		for range 4 {
			c := connect(t, d.Addr())
			all.Go(func() {
				c.send("EHLO late.test\r\nMAIL FROM:<" + point + "@late.test>\r\nRCPT TO:<a@here.test>\r\nDATA\r\n")
				switch point {
				case "data_post", "queue":
					c.send("Subject: late\r\n\r\n.\r\n")
				}
				c.send(strings.Repeat("NOOP\r\n", 20) + "QUIT\r\n") // while the handler is busy
				got := c.rest()
				late, _, _ := strings.Cut(got, " plugin timeout")
				if late = late[strings.LastIndex(late, "\n")+1:]; strings.Count(got, "plugin timeout") != 1 || !strings.HasPrefix(late, "45") || !strings.Contains(got, "\r\n221 ") {
					t.Errorf("late at %s: %q", point, got)
				}
			})
		}
	}
	all.Wait()
	other.send("MAIL FROM:<a@other.test>\r\nRCPT TO:<b@here.test>\r\nDATA\r\nSubject: x\r\n\r\n.\r\nQUIT\r\n")
	if got := other.rest(); !strings.Contains(got, "\r\n221 ") || strings.Count(got, "250 ") != 3 {
		t.Errorf("another session: %q", got)
	}
}
