package conf

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// parsed returns an ini file, read once; a missing one is empty.
func (l *loader) parsed(name string) *iniFile {
	if f, ok := l.files[name]; ok {
		return f
	}
	data, _ := l.read(name)
	f := parseINI(data)
	for _, b := range f.bad {
		l.add(Problem{File: place(name), Line: b.line, Text: cmp.Or(l.wordOf(name, b.source), b.text)})
	}
	l.files[name] = f
	return f
}

// ini reads the file of s.
func (l *loader) ini(s *schema) { l.apply(s, l.parsed(s.file)) }

// apply gives what f says to the entries of s.
func (l *loader) apply(s *schema, f *iniFile) {
	for _, sec := range f.sections {
		if slices.Contains(s.free, sec.name) || s.named && sec.name != "main" {
			continue
		}
		note, idle := s.idle[sec.name]
		refusal, refused := s.refused[sec.name]
		switch {
		case idle:
		case refused:
			note = refusal
		case s.knows(sec.name):
			continue
		case s.perName != "" && strings.Contains(sec.name, "."):
			note = s.perName
		default:
			l.add(Problem{
				File: place(s.file), Line: sec.line, Section: sec.name, Text: "unknown",
				Nearest: Nearest(sec.name, s.sectionNames()),
			})
			continue
		}
		if len(sec.keys) > 0 {
			l.add(Problem{File: place(s.file), Line: sec.line, Section: sec.name, Text: note, Warning: idle})
		}
	}
	// In the table's order, so that what a later entry says wins.
	for i := range s.entries {
		e := &s.entries[i]
		if k := f.section(e.sectionName()).key(e.key); k != nil {
			l.key(s.file, e, k)
		}
		l.old(s.file, e)
	}
	for _, sec := range f.sections {
		if !s.knows(sec.name) {
			continue
		}
		for _, k := range sec.keys {
			if !slices.ContainsFunc(s.entries, func(e entry) bool { return e.sectionName() == sec.name && e.key == k.name }) {
				l.add(s.unknown(sec.name, k))
			}
		}
	}
}

// mayBeSecret reports whether the name of an unknown key may be a password: that of
// a line without an equals sign in a file that holds some.
func mayBeSecret(file string, k *iniKey) bool { return k.bare && private[file] }

const noKey = "a line that is no key=value: skipped"

// unknown is the Problem of a key that the file does not know.
func (s *schema) unknown(section string, k *iniKey) Problem {
	p := Problem{File: place(s.file), Line: k.line, Section: shown(section), Key: k.name, Text: "unknown"}
	if why := foreignWord(s.file, k.name); why != "" {
		p.Text = why
		return p
	}
	if mayBeSecret(s.file, k) {
		p.Key, p.Text = "", noKey
	}
	var here []string
	for _, e := range s.entries {
		if e.sectionName() == section {
			here = append(here, e.key)
		} else if e.key == k.name && e.active() {
			p.Text = "unknown here, it belongs to [" + e.sectionName() + "]"
			return p
		}
	}
	p.Nearest = Nearest(k.name, here)
	return p
}

// shown is a section's name in a Problem: main is not named.
func shown(section string) string {
	if section == "main" {
		return ""
	}
	return section
}

func (e *entry) sectionName() string {
	if e.section == "" {
		return "main"
	}
	return e.section
}

func (s *schema) knows(section string) bool {
	return section == "main" || slices.ContainsFunc(s.entries, func(e entry) bool { return e.sectionName() == section })
}

func (s *schema) sectionNames() []string {
	var names []string
	for _, e := range s.entries {
		if !slices.Contains(names, e.sectionName()) {
			names = append(names, e.sectionName())
		}
	}
	names = append(names, s.free...)
	for _, sections := range []map[string]string{s.idle, s.refused} {
		for name := range sections {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// key applies k to e, and says what is wrong with it.
func (l *loader) key(file string, e *entry, k *iniKey) {
	p := Problem{File: place(file), Line: k.line, Section: shown(e.sectionName()), Key: k.name}
	if !e.active() {
		if e.note != "" {
			p.Text, p.Warning = e.note, e.stops == nil || !e.stops(k.values)
			l.add(p)
		}
		return
	}
	if n := len(k.lines); !k.array && n > 1 {
		again := p
		again.Line, again.Warning = k.lines[n-1], true
		if e.once != "" {
			again.Warning, again.Nearest = false, e.once
			again.Text = fmt.Sprintf("stands on line %d already", k.lines[n-2])
			l.add(again)
			return
		}
		again.Text = fmt.Sprintf("stands on line %d already, this one counts", k.lines[n-2])
		l.add(again)
	}
	if p, ok := assign(p, e.field, k); !ok {
		l.add(p)
	}
}

// assign sets f from k. If it cannot, or something is odd, it returns a Problem
// made of p and false.
func assign(p Problem, f field, k *iniKey) (Problem, bool) {
	values := k.values
	if k.bare {
		if !f.yesNo || f.set([]string{""}) != nil {
			p.Text = "has no value"
			return p, false
		}
		p.Text, p.Warning = "without a value means false: write "+k.name+"=true or "+k.name+"=false", true
		return p, false
	}
	if !k.array && values[0] == "" && !f.yesNo {
		return p, true // set to nothing: the default
	}
	if err := f.set(values); err != nil {
		p.Text = err.Error()
		var element *elementError
		if errors.As(err, &element) && element.index < len(k.at) {
			p.Line = k.at[element.index]
		}
		var word *choiceError
		if errors.As(err, &word) {
			p.Nearest = Nearest(word.value, word.known)
		}
		return p, false
	}
	return p, true
}

// old reads the older places of e, unless the file itself sets it. The first
// place that says something wins.
func (l *loader) old(file string, e *entry) {
	newer := place(file)
	set := l.parsed(file).section(e.sectionName()).key(e.key) != nil
	for _, where := range e.was {
		name, section, key, inINI := splitOld(where)
		k, p := &iniKey{}, Problem{File: place(name)}
		if inINI {
			if k = l.parsed(name).section(section).key(key); k == nil {
				continue
			}
			p.Line, p.Section, p.Key = k.line, shown(section), key
		} else {
			data, ok := l.read(name)
			lines := parseList(data)
			if !ok || len(lines) == 0 {
				continue
			}
			if !e.field.list {
				lines = lines[:1]
			}
			k = &iniKey{name: e.key, line: lines[0].line, array: e.field.list}
			for _, line := range lines {
				k.values, k.at = append(k.values, line.text), append(k.at, line.line)
			}
			p.Line = k.line
		}
		note := p
		note.Warning = true
		target := e.key
		if e.section != "" {
			target = "[" + e.section + "] " + e.key
		}
		switch {
		case !e.active():
			note.Text, note.Warning = e.note, e.stops == nil || !e.stops(k.values)
		case set && !(e.either && isTrue(k.values[0])):
			note.Text = "is not read: " + newer + " sets " + target
		default:
			set = true
			note.Text = "is the old place of " + newer + " " + target + ", still read"
			if p, ok := assign(p, e.field, k); !ok {
				l.add(p)
			}
		}
		l.add(note)
	}
}

// splitOld takes an older place apart: FILE.ini:SECTION:KEY or a flat file.
func splitOld(where string) (file, section, key string, inINI bool) {
	file, rest, inINI := strings.Cut(where, ":")
	section, key, _ = strings.Cut(rest, ":")
	if section == "" {
		section = "main"
	}
	return file, section, key, inINI
}

// crossChecks holds the files against each other.
func (l *loader) crossChecks() {
	c := l.c
	for _, p := range c.Plugins {
		switch {
		case p.Name == "queue/smtp_forward" && !c.Forward.Configured:
			l.add(Problem{File: p.File, Line: p.Line, Key: p.As, Text: "goes nowhere: " + place(forwardFile) + " names no host"})
		case p.Name == "tls" && !c.TLS.Explicit:
			l.add(Problem{
				File: p.File, Line: p.Line, Key: p.As, Warning: true,
				Text: "STARTTLS is not offered: there is no certificate, see " + place("tls.ini"),
			})
		case p.Name == "rcpt_to.in_host_list" && !slices.ContainsFunc(c.Plugins, func(o PluginName) bool { return strings.HasPrefix(o.Name, "queue/") }):
			l.add(Problem{
				File: p.File, Line: p.Line, Key: p.As, Warning: true,
				Text: "accepts recipients whose mail goes nowhere: no plugin queue/… is listed",
			})
		}
	}
	if k := l.parsed("smtp.ini").section("main").key("listen"); k != nil && !c.TLS.Explicit {
		for _, addr := range c.SMTP.Listen {
			if strings.HasSuffix(addr, fmt.Sprintf(":%d", c.SMTP.SMTPSPort)) {
				l.add(Problem{
					File: place("smtp.ini"), Line: k.line, Key: k.name,
					Text: fmt.Sprintf("port %d begins with TLS, but there is no certificate: see %s", c.SMTP.SMTPSPort, place("tls.ini")),
				})
				break
			}
		}
	}
	l.nowhere()
	l.relayDestinations()
	l.certificateFolder()
	l.checkForward()
	for _, r := range c.Forward.all() {
		section := l.parsed(forwardFile).section(r.Name)
		k := section.key("host")
		if r.InTurn {
			k = section.key("forwarding_host_pool")
		}
		for _, hop := range r.Hosts {
			if k != nil && hop.Path == "" && c.SMTP.listensOn(hop.Host, hop.Port) {
				l.add(Problem{
					File: place(forwardFile), Line: k.line, Section: shown(r.Name), Key: k.name,
					Text: hop.String() + " is where this server listens",
				})
			}
		}
	}
}

// listensOn reports whether a connection to host and port certainly ends here.
func (s *SMTP) listensOn(host string, port int) bool {
	local := host == "localhost"
	if a, err := netip.ParseAddr(host); err == nil {
		local = a.IsLoopback()
	}
	return slices.ContainsFunc(s.Listen, func(addr string) bool {
		return addr == joinEndpoint(host, port) || local && (addr == joinEndpoint("::", port) || addr == joinEndpoint("0.0.0.0", port))
	})
}

// section reads the keys of a section that is one of many of its kind. Those of
// main are for all of them, which all names, and do not belong there.
func (l *loader) section(file string, s *iniSection, entries, main []entry, all string) {
	for i := range entries {
		entries[i].section = s.name
		if k := s.key(entries[i].key); k != nil {
			l.key(file, &entries[i], k)
		}
	}
	for _, k := range s.keys {
		p := Problem{File: place(file), Line: k.line, Section: s.name, Key: k.name}
		known := func(e entry) bool { return e.key == k.name }
		switch {
		case slices.ContainsFunc(entries, known):
			continue
		case slices.ContainsFunc(main, known):
			p.Text = "belongs above the first section: it holds for all " + all
		case foreignWord(file, k.name) != "":
			p.Text = foreignWord(file, k.name)
		default:
			var names []string
			for _, e := range entries {
				names = append(names, e.key)
			}
			p.Nearest, p.Text = Nearest(k.name, names), "unknown"
			if mayBeSecret(file, k) {
				p.Key, p.Text = "", noKey
			}
		}
		l.add(p)
	}
}
