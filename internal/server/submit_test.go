package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

// TestPluginSubmits: a plugin sends a message of its own through the daemon's
// queue, to two domains.
func TestPluginSubmits(t *testing.T) {
	mx := smtptest.New(t)
	names := dnstest.New(t)
	names.SetDefault("mx.test", "127.0.0.1")
	stop, s := launch(t, instance(t, map[string]string{
		"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n", "dns.ini": "servers[]=" + names.Addr() + "\n",
		"outbound.ini": fmt.Sprintf("port=%d\nlocal_mx_ok=true\n", mx.Port()),
	}))
	defer stop()
	notifier := func(env plugin.Env) (plugin.Plugin, error) {
		notify := func(ctx context.Context, e *hook.Event) hook.Verdict {
			id, err := env.Submitter.Submit(ctx, hook.Submission{
				From: "postmaster@me.test", To: []string{"one@a.test", "two@b.test"}, Contents: strings.NewReader("Subject: " + e.Text + "\n\n.Hello\n"),
			})
			if err != nil {
				t.Error(err)
			}
			e.Tx.Notes().Set("id", string(id))
			return hook.Proceed()
		}
		return plugin.Hooks(func(h plugin.Host) { h.On(hook.OnQueueOK, "notify", 0, notify) }), nil
	}
	chain := plugintest.Chain(t, notifier, nil, plugin.Services{Submitter: &late{queue: s.queue, outbound: s.outbound}})
	c, tx := plugintest.Session(t, "s@from.test", "r@to.test")
	chain.Run(t.Context(), hook.OnQueueOK, &hook.Event{Conn: c.View(), Tx: tx.View(), Text: "queued"})
	end := time.Now().Add(time.Minute)
	for len(mx.Messages()) < 2 {
		if time.Now().After(end) {
			t.Fatalf("%d messages", len(mx.Messages()))
		}
		time.Sleep(20 * time.Millisecond)
	}
	for _, m := range mx.Messages() {
		text := string(m.Content)
		for _, want := range []string{"Subject: queued\r\n", "Message-Id: <" + tx.Notes.String("id") + "@me.test>\r\n", "Date: ", "Received: (", "\r\n\r\n.Hello\r\n"} {
			if !strings.Contains(text, want) {
				t.Errorf("no %q in %q", want, text)
			}
		}
	}
}

// instance loads a new instance with these files, whose names are relative to
// its folder config.
func instance(t *testing.T, files map[string]string) *conf.Config {
	t.Helper()
	return instanceIn(t, t.TempDir(), files)
}

// instanceIn is instance in a folder of the caller's.
func instanceIn(t *testing.T, root string, files map[string]string) *conf.Config {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(root, "config", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, problems := Load(root)
	if errs := problems.Errors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	return cfg
}
