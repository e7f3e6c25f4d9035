package conf

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tarishi/config"
	"tarishi/internal/ini/manual"
)

var update = flag.Bool("update", false, "write config/*.ini and docs/config.md from the tables")

const referenceHead = `# Settings

This page is made from the tables in which the packages declare their settings (` + "`go generate ./internal/conf`" + `), as the
files in ` + "`config/`" + ` are: ` + "`tarishi init DIR`" + ` writes them. ` + "`tarishi check`" + ` reports what is wrong with an instance's, and
` + "`tarishi check --print`" + ` what is in force. ` + "`tarishi settings`" + ` prints every key in one line.

Names, keys and defaults are Haraka's where it has them; *Haraka: none* marks the others, and
[haraka-differences.md](haraka-differences.md) says what is different. In all ini files comments stand on lines of their own,
quotes are part of a value, ` + "`key[]=`" + ` adds one value more, and what stands above the first section is the main section.
Booleans are true or false (also yes/no, on/off, 1/0). A duration is a number of seconds, or has units: 90, 30s, 5m, 1h30m, 5d.
`

// TestGenerated holds the shipped ini files and docs/config.md to the tables.
func TestGenerated(t *testing.T) {
	c, _ := Load("", own())
	tables := c.Tables()
	var names []string
	for _, table := range tables {
		if strings.HasSuffix(table.File, ".ini") && !slices.Contains(names, table.File) {
			names = append(names, table.File)
			generated(t, filepath.Join("../../config", table.File), manual.Ship(tables, table.File))
		}
	}
	shipped, err := fs.Glob(config.FS, "*.ini")
	if err != nil || len(names) < 8 {
		t.Fatal(names, err)
	}
	for _, name := range shipped {
		if !slices.Contains(names, name) {
			t.Errorf("config/%s is shipped, and nothing declares it", name)
		}
	}
	generated(t, "../../docs/config.md", []byte(referenceHead+manual.Reference(tables)))
}

// generated compares a file with what it should be, or writes it.
func generated(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not as the tables say (%v): go generate ./internal/conf", path, err)
	}
}

// TestRows: every key that users are shown says what it means, and its default can
// be written and read.
func TestRows(t *testing.T) {
	c, _ := Load("", own())
	for _, s := range manual.Settings(c.Tables()) {
		if len(s.Doc) < 5 {
			t.Errorf("%s [%s] %s has no documentation", s.File, s.Section, s.Key)
		}
	}
}
