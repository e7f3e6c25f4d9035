package conf

import (
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/plugin"
)

// looksOdd are endings of files that nobody expects to be read as settings: keys and
// certificates, notes, source, and what editors and package managers leave behind.
var looksOdd = []string{
	".pem", ".crt", ".cer", ".key", ".csr", ".p12", ".pfx", ".md", ".txt", ".go", ".sh",
	"~", ".bak", ".orig", ".old", ".swp", ".tmp", ".rej", ".rpmnew", ".rpmsave", ".dpkg-dist", ".dpkg-new", ".dpkg-old",
}

// unread warns of files in config/ that nothing reads, although somebody may believe
// it: a name with a slip, the settings of a plugin that is not there.
func (l *loader) unread() {
	// Folders hold the files of plugins, which plugins read; only the top is
	// looked at.
	known := l.knownFiles()
	for _, e := range l.Entries(".") {
		name := e.Name()
		if e.IsDir() || strings.HasPrefix(name, ".") || slices.Contains(known, name) || slices.Contains(l.c.namedFiles(), filepath.Join(l.c.ConfigDir, name)) ||
			slices.ContainsFunc(looksOdd, func(end string) bool { return strings.HasSuffix(name, end) }) {
			continue
		}
		if info, err := fs.Stat(l.FS(), name); err != nil || info.IsDir() {
			continue // a link to a folder
		}
		// A sentence about the plugin helps more than a name that looks like it.
		p := ini.Problem{File: ini.Place(name), Text: "is not read", Warning: true, Nearest: ini.Nearest(name, known)}
		if why := plugin.AboutFile(name, known); why != "" {
			p.Text, p.Nearest = "is not read: "+why, ""
		}
		l.Add(p)
	}
}

// knownFiles are the files of config/ that something reads, in places of today or of
// old, or that were complained of already.
func (l *loader) knownFiles() []string {
	known := []string{"smtp.json", "smtp.yaml"}
	for _, t := range l.Tables() {
		known = append(append(known, t.File), t.Reads...)
		for i := range t.Rows {
			for _, old := range t.Rows[i].Was {
				name, _, _ := strings.Cut(old, ":")
				known = append(known, name)
			}
		}
	}
	for _, p := range l.c.Plugins.Listed {
		known = append(known, p.Name+".timeout", p.As+".timeout")
	}
	return known
}
