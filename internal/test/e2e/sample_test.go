package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"tarishi/internal/test/load/instance"
)

// The plugin that docs/plugins.md writes, step by step: it compiles in the tree,
// all tests of plugins pass with it, and the daemon runs it.
func TestLongPluginSample(t *testing.T) {
	long(t)
	t.Parallel()
	root, err := filepath.Abs(filepath.Join("..", "..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "plugins.md"))
	if err != nil {
		t.Fatal(err)
	}
	samples := regexp.MustCompile("(?ms)^[^\n]*`(internal/plugin/[^`]+)`[^`]*:\\n\\n```\\w+\\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(samples) != 4 {
		t.Fatalf("%d samples in docs/plugins.md, want 4", len(samples))
	}
	list := samples[3][1]
	text, err := os.ReadFile(filepath.Join(root, list))
	if err != nil {
		t.Fatal(err)
	}
	const lastLine, lastImport = "\n}\n", "\n)\n"
	files := map[string]string{
		list: strings.Replace(strings.TrimSuffix(string(text), lastLine)+"\n"+samples[3][2]+"}\n",
			lastImport, "\n\t\"tarishi/internal/plugin/noinvalid\""+lastImport, 1),
	}
	for _, sample := range samples[:3] {
		files[sample[1]] = sample[2]
	}

	// The files lie over the tree, so that all else is compiled already.
	dir := t.TempDir()
	if err := instance.WriteFiles(dir, files); err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = map[string]string{}
	for name := range files {
		overlay.Replace[filepath.Join(root, name)] = filepath.Join(dir, name)
	}
	laid, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	over := filepath.Join(dir, "overlay.json")
	writeFile(t, over, string(laid))
	run := func(in, program string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = in
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", program, args, err, out)
		}
	}
	// The tests of all plugins look for the manual page of each.
	pages, err := filepath.Glob(filepath.Join(root, "internal", "plugin", "*", "README.md"))
	if err != nil || len(pages) == 0 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		plugin := filepath.Join(dir, "internal", "plugin", filepath.Base(filepath.Dir(page)))
		if err := os.MkdirAll(plugin, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(page, filepath.Join(plugin, "README.md")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"noinvalid", "all"} {
		program := filepath.Join(dir, name+".test")
		run(root, "go", "test", "-c", "-overlay", over, "-vet=off", "-ldflags=-s -w", "-o", program, "./internal/plugin/"+name)
		run(filepath.Join(dir, "internal", "plugin", name), program)
	}
	run(root, "go", "build", "-overlay", over, "-buildvcs=false", "-ldflags=-s -w", "-o", filepath.Join(dir, "tarishi"), "./cmd/tarishi")

	s, err := instance.Tarishi(t.Context(), filepath.Join(dir, "tarishi"), folder(t, map[string]string{"plugins": "noinvalid\n"}), 1)
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{Server: s, t: t}
	t.Cleanup(d.Stop)
	c := dial(t, d.Addr())
	c.say("MAIL FROM:<a@b.invalid>", "550 5.7.1 nobody can have an address below .invalid")
	c.say("MAIL FROM:<a@example.com>", "250")
	c.say("QUIT", "221")
}
