package testqueue

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
)

func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	chain := plugintest.Chain(t, New, nil, plugin.Services{})
	c, tx := plugintest.Session(t, "a@b.c", "d@e.f")
	tx.ID = mail.NewID("ABC", 1)
	tx.Content = mail.Memory{[]byte("A: b\r\n\r\n.dot\r\n"), []byte("end\r\n")}
	v := chain.Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()})
	path := filepath.Join(dir, "mail_"+string(tx.ID)+".eml")
	if v.Code != hook.OK || v.Text != "Queued to "+path {
		t.Errorf("verdict %+v", v)
	}
	if got, err := os.ReadFile(path); string(got) != "A: b\r\n\r\n.dot\r\nend\r\n" {
		t.Errorf("%q, %v", got, err)
	}
	if names := files(t, dir); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
	// What a client sends out is for the outbound queue.
	if chain.Has(hook.OnQueueOutbound) {
		t.Error("outgoing mail becomes a file")
	}
}

// broken is a content that fails half-way.
type broken struct{}

func (broken) Size() int64 { return 10 }

func (broken) Open() (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(strings.NewReader("half"), errReader{})), nil
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("disk") }

func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	for name, change := range map[string]func(*hook.Transaction){
		"content": func(tx *hook.Transaction) { tx.Content = broken{} },
		"id":      func(tx *hook.Transaction) { tx.ID = "../escape" },
		"folder":  func(*hook.Transaction) { t.Setenv("TMPDIR", filepath.Join(dir, "missing")) },
	} {
		t.Run(name, func(t *testing.T) {
			c, tx := plugintest.Session(t, "a@b.c", "d@e.f")
			tx.Content = mail.Memory{[]byte("x")}
			change(tx)
			v := plugintest.Chain(t, New, nil, plugin.Services{}).Run(t.Context(), hook.OnQueue, &hook.Event{Conn: c.View(), Tx: tx.View()})
			if v.Code != hook.DenySoft || v.Reply == nil || !v.Reply.Temporary() || v.Reply.Cause == nil || strings.Contains(v.Reply.String(), dir) {
				t.Errorf("verdict %+v %v", v, v.Reply)
			}
			if names := files(t, dir); len(names) != 0 {
				t.Errorf("left behind: %q", names)
			}
		})
	}
}

// Who forgets the plugin in the configuration is told at each start.
func TestWarning(t *testing.T) {
	core, logged := observer.New(zap.WarnLevel)
	plugintest.Chain(t, New, nil, plugin.Services{Log: zap.New(core)})
	if all := logged.All(); len(all) != 1 || !strings.Contains(all[0].Message, "delivered to nobody") {
		t.Errorf("%+v", all)
	}
}
