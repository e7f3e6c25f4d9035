package all

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Every folder with a manual page is a plugin that is registered.
func TestRegister(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	pages, err := filepath.Glob("../*/README.md")
	if err != nil || len(pages) == 0 || len(pages) != len(r.Names()) {
		t.Errorf("%d plugins are registered, %d folders have a manual page, %v", len(r.Names()), len(pages), err)
	}
}

// Every built-in plugin can be built from defaults and without services, as a
// check of the configuration does.
func TestBuildAll(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	c, _ := conf.Load("")
	for _, n := range r.Names() {
		c.Plugins = append(c.Plugins, conf.PluginName{Name: n, As: n})
	}
	regs, err := r.Build(c, plugin.Services{Config: c, Log: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	chain := hook.NewChain(regs, zap.NewNop())
	for _, p := range []hook.Point{hook.OnConnectInit, hook.OnCapabilities, hook.OnMail, hook.OnRcpt, hook.OnDataPost, hook.OnQueue, hook.OnQueueOutbound, hook.OnGetMX} {
		if !chain.Has(p) {
			t.Errorf("nobody is at %s", p)
		}
	}
	// These never wait: a timeout would cost each call a goroutine for nothing.
	instant := []string{
		"auth/flat_file", "queue/discard", "queue/smtp_forward", "queue/test", "rcpt_to.in_host_list",
		"record_envelope_addresses", "relay", "tls",
	}
	for _, reg := range regs {
		if reg.Timeout != 0 && slices.Contains(instant, reg.Plugin) {
			t.Errorf("%s %s costs a goroutine", reg.Plugin, reg.Point)
		}
	}
}

// Each plugin's folder has a manual page that begins with the plugin's name.
func TestManualPages(t *testing.T) {
	var r plugin.Registry
	Register(&r)
	described := map[string]bool{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Name() == "README.md" {
			page, err := os.ReadFile(filepath.Join("..", path))
			if err != nil {
				return err
			}
			first, _, _ := strings.Cut(string(page), "\n")
			described[strings.TrimPrefix(first, "# ")] = true
			for _, section := range []string{"\n## Name\n", "\n## Hooks\n", "\n## Configuration\n", "\n## See also\n"} {
				if !strings.Contains(string(page), section) {
					t.Errorf("%s has no section %q", path, strings.TrimSpace(section))
				}
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range r.Names() {
		if !described[n] {
			t.Errorf("%s has no manual page", n)
		}
	}
}
