package conf

import (
	"io/fs"
	"slices"
	"strings"
)

// What Haraka can do and this server cannot is no matter as long as it protects
// nothing. Where somebody relies on it, a start without it would be an open door:
// below are the settings that stop the start and are more than one key.

// proxy reads [haproxy] of connection.ini and the flat file haproxy_hosts of old.
// Behind a balancer every client has the balancer's address, which may well be
// allowed to relay.
func (l *loader) proxy() {
	const file, name, old = "connection.ini", "haproxy", "haproxy_hosts"
	const refusal = "cannot be honoured: the PROXY protocol is not supported, and every client behind the balancer would seem to be the balancer itself"
	s := l.parsed(file).section(name)
	at := Problem{File: place(file), Line: s.line, Section: name}
	enabled := true // Haraka's default
	var hosts *iniKey
	for _, k := range s.keys {
		p := at
		p.Line, p.Key = k.line, k.name
		switch k.name {
		case "enabled":
			if p, ok := assign(p, boolean(&enabled), k); !ok {
				l.add(p)
			}
			enabled = enabled && !k.bare
		case "hosts":
			if anything(k.values) {
				hosts = k
			}
		default:
			p.Text, p.Nearest = "unknown", Nearest(k.name, []string{"enabled", "hosts"})
			l.add(p)
		}
	}
	switch {
	case enabled && hosts != nil:
		at.Line, at.Key, at.Text = hosts.line, hosts.name, refusal+". [haproxy] enabled=false starts without it"
		l.add(at)
	case len(s.keys) > 0:
		at.Text, at.Warning = "has no effect: the PROXY protocol is not supported", true
		l.add(at)
	}
	if data, _ := l.read(old); enabled && len(parseList(data)) > 0 {
		l.add(Problem{File: place(old), Line: parseList(data)[0].line, Text: refusal})
	}
}

// relayDestinations looks for next hops in the file of Haraka's plugin relay,
// which routes by them unless force_routing is switched off.
func (l *loader) relayDestinations() {
	const file = "relay_dest_domains.ini"
	if !slices.ContainsFunc(l.c.Plugins, func(p PluginName) bool { return p.Name == "relay" }) {
		return
	}
	if k := l.parsed("relay.ini").section("relay").key("force_routing"); k != nil {
		return // complained of already, or switched off
	}
	if _, err := fs.Stat(l.fs, file); err != nil {
		return
	}
	for _, k := range l.parsed(file).section("domains").keys {
		if strings.Contains(strings.Join(k.values, ""), "nexthop") {
			l.add(Problem{File: place(file), Line: k.line, Section: "domains", Key: k.name, Text: noDestinations + ". [relay] force_routing=false starts without it"})
			return
		}
	}
}

// certificateFolder looks for certificates where only Haraka finds them.
func (l *loader) certificateFolder() {
	entries, err := fs.ReadDir(l.fs, "tls")
	if err != nil || !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return !strings.HasPrefix(e.Name(), ".") }) {
		return
	}
	l.add(Problem{
		File: place("tls"), Text: "is not read: name the files with key[] and cert[] in " + place("tls.ini"),
		Warning: l.c.TLS.Explicit, // else nobody would be offered STARTTLS
	})
}
