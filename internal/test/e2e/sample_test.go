package e2e

import (
	"io/fs"
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
func TestPluginSample(t *testing.T) {
	t.Parallel()
	root, tree := filepath.Join("..", "..", ".."), t.TempDir()
	copySource(t, root, tree)
	page, err := os.ReadFile(filepath.Join(root, "docs", "plugins.md"))
	if err != nil {
		t.Fatal(err)
	}
	samples := regexp.MustCompile("(?ms)^[^\n]*`(internal/plugin/[^`]+)`[^`]*:\\n\\n```\\w+\\n(.*?)^```$").FindAllStringSubmatch(string(page), -1)
	if len(samples) != 4 {
		t.Fatalf("%d samples in docs/plugins.md, want 4", len(samples))
	}
	for _, s := range samples[:3] {
		if err := instance.WriteFiles(tree, map[string]string{s[1]: s[2]}); err != nil {
			t.Fatal(err)
		}
	}
	list := filepath.Join(tree, samples[3][1])
	text, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	const lastLine, lastImport = "\n}\n", "\n)\n"
	with := strings.Replace(strings.TrimSuffix(string(text), lastLine)+"\n"+samples[3][2]+"}\n",
		lastImport, "\n\t\"tarishi/internal/plugin/noinvalid\""+lastImport, 1)
	writeFile(t, list, with)

	// Built as make does, so that what is compiled already serves here too.
	run := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go %q: %v\n%s", args, err, out)
		}
	}
	run("test", "-trimpath", "-vet=off", "./internal/plugin/noinvalid", "./internal/plugin/all")
	run("build", "-trimpath", "-buildvcs=false", "-o", "tarishi", "./cmd/tarishi")

	dir := folder(t, map[string]string{"plugins": "noinvalid\n"})
	s, err := instance.Tarishi(t.Context(), filepath.Join(tree, "tarishi"), dir, 1)
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

// copySource copies what a build needs, and the tests of plugins with it.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	for _, top := range []string{"go.mod", "go.sum", "cmd", "config", "internal"} {
		err := filepath.WalkDir(filepath.Join(from, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			if strings.HasSuffix(name, "_test.go") && !strings.Contains(filepath.ToSlash(name), "internal/plugin/") {
				return nil
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return instance.WriteFiles(to, map[string]string{filepath.ToSlash(name): string(b)})
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
