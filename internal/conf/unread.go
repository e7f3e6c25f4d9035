package conf

import (
	"io/fs"
	"path"
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

// unlisted warns of what somebody wrote for plugins that are not in config/plugins: lists
// of those who may do something or may not, and switches without which mail is not
// protected as they say.
func (l *loader) unlisted() {
	if len(l.c.Plugins.Listed) == 0 {
		return
	}
	for _, name := range []string{"access", "aliases", "relay"} {
		own := l.c.Own[name]
		if own == nil || l.c.Plugins.Has(name) {
			continue
		}
		for _, t := range own.Tables() {
			for _, file := range append([]string{t.File}, t.Reads...) {
				if one := l.record.Read[file]; path.Ext(file) != ".ini" && one.SaysSomething() {
					l.Add(ini.Problem{File: ini.Place(file), Warning: true, Text: "has no effect: the plugin " + name + " is not listed in " + ini.Place("plugins")})
				}
			}
		}
	}
	for _, s := range []struct{ plugin, section, key string }{{"dkim", "sign", "enabled"}, {"dmarc", "main", "enforce"}} {
		k := l.File(s.plugin + ".ini").Section(s.section).Key(s.key)
		if k != nil && !l.c.Plugins.Has(s.plugin) && ini.SwitchedOn(k.Values) {
			l.Add(ini.Problem{
				File: ini.Place(s.plugin + ".ini"), Line: k.Line, Section: ini.Shown(s.section), Key: k.Name, Warning: true,
				Text: "has no effect: the plugin " + s.plugin + " is not listed in " + ini.Place("plugins"),
			})
		}
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
