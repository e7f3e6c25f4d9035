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
		if e.IsDir() || strings.HasPrefix(name, ".") || slices.Contains(known, name) || l.namedByTLS(name) ||
			slices.ContainsFunc(looksOdd, func(end string) bool { return strings.HasSuffix(name, end) }) {
			continue
		}
		if info, err := fs.Stat(l.FS(), name); err != nil || info.IsDir() {
			continue // a link to a folder
		}
		// A sentence about the plugin helps more than a name that looks like it.
		p := ini.Problem{File: ini.Place(name), Text: "is not read", Warning: true, Nearest: ini.Nearest(name, known)}
		stem := strings.TrimSuffix(name, filepath.Ext(name))
		today := plugin.Canonical(stem)
		if why := plugin.Advice(stem); why != "" {
			p.Text, p.Nearest = "is not read: "+why, ""
		} else if today != stem && slices.Contains(known, today+".ini") {
			p.Text, p.Nearest = "is not read: its plugin is called "+today+" today, and has "+today+".ini", ""
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

// namedByTLS reports whether a setting names the file as a key, a certificate or
// roots.
func (l *loader) namedByTLS(name string) bool {
	c := l.c
	named := c.TLS.Files()
	for _, o := range []struct{ key, cert, ca string }{
		{c.TLS.Outbound.Key, c.TLS.Outbound.Cert, c.TLS.Outbound.CA}, {c.Forward.TLS.Key, c.Forward.TLS.Cert, c.Forward.TLS.CA},
	} {
		named = append(named, o.key, o.cert, o.ca)
	}
	return slices.Contains(named, filepath.Join(c.ConfigDir, name))
}
