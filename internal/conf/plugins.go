package conf

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"tarishi/internal/mail"
)

// aliases are the old names of Haraka's plugins and the ones that replaced them.
var aliases = map[string]string{
	"auth/auth_ldap": "auth-ldap",
	"backscatterer":  "dns-list", "dnsbl": "dns-list", "dnswl": "dns-list",
	"connect.asn": "asn", "connect.fcrdns": "fcrdns", "connect.geoip": "geoip", "connect.p0f": "p0f",
	"connect.rdns_access": "access", "mail_from.access": "access", "mail_from.blocklist": "access",
	"rcpt_to.access": "access", "rcpt_to.blocklist": "access", "rdns.regexp": "access",
	"data.headers": "headers", "data.nomsgid": "headers", "data.noreceived": "headers", "data.rfc5322_header_checks": "headers",
	"dkim_sign": "dkim", "dkim_verify": "dkim",
	"data.uribl":                "uribl",
	"deliver":                   "queue/deliver",
	"log.elasticsearch":         "elasticsearch",
	"log.syslog":                "syslog",
	"mail_from.nobounces":       "bounce",
	"max_unrecognized_commands": "limit", "rate_limit": "limit", "rcpt_to.max_count": "limit",
	"rcpt_to.ldap":              "rcpt-ldap",
	"rcpt_to.qmail_deliverable": "qmail-deliverable",
	"rcpt_to.routes":            "recipient-routes",
	"test_queue":                "queue/test",
	"relay_acl":                 "relay", "relay_all": "relay", "relay_force_routing": "relay",
}

// CanonicalPlugin returns the name under which a plugin is registered: without
// the prefix haraka-plugin-, and the newest one of Haraka's names for it.
func CanonicalPlugin(name string) string {
	scope, base := "", name
	if strings.HasPrefix(name, "@") {
		if i := strings.IndexByte(name, '/'); i > 0 {
			scope, base = name[:i+1], name[i+1:]
		}
	}
	name = scope + strings.TrimPrefix(base, "haraka-plugin-")
	if newer, ok := aliases[name]; ok {
		return newer
	}
	return name
}

// pluginList reads config/plugins and the time limits.
func (l *loader) pluginList() {
	const file = "plugins"
	data, _ := l.read(file)
	for _, line := range parseList(data) {
		p := Problem{File: place(file), Line: line.line, Key: line.text}
		if !isPluginName(line.text) {
			p.Key, p.Text = "", excerpt(line.text)+" is no name of a plugin: one name on each line, comments on their own lines"
			l.add(p)
			continue
		}
		plugin := PluginName{Name: CanonicalPlugin(line.text), As: line.text, File: place(file), Line: line.line}
		same := slices.IndexFunc(l.c.Plugins, func(o PluginName) bool { return o.Name == plugin.Name })
		_, renamed := aliases[strings.TrimPrefix(plugin.As, "haraka-plugin-")]
		p.Warning = true
		if notice, ok := servedAnyway[plugin.Name]; ok {
			p.Text = notice
			l.add(p)
			continue
		}
		switch {
		case renamed && same >= 0:
			p.Text = fmt.Sprintf("is part of %s today, which stands on line %d already", plugin.Name, l.c.Plugins[same].Line)
			l.add(p)
			continue
		case renamed && notBuiltIn[plugin.Name] != "": // the one who makes the plugins says that there is none
		case renamed:
			p.Text = "is called " + plugin.Name + " today, and may need other settings"
			l.add(p)
		case same >= 0:
			p.Text = fmt.Sprintf("stands on line %d already: its hooks run twice", l.c.Plugins[same].Line)
			l.add(p)
		}
		l.c.Plugins = append(l.c.Plugins, plugin)
	}
	l.value("plugin_timeout", duration(&l.c.PluginTimeout, 0))
	for _, p := range l.c.Plugins {
		limit := l.c.PluginTimeout
		if l.value(p.Name+".timeout", duration(&limit, 0)) || p.As != p.Name && l.value(p.As+".timeout", duration(&limit, 0)) {
			l.c.PluginTimeouts[p.Name] = limit
		}
	}
}

// isPluginName accepts relative paths without blanks that stay where they are.
func isPluginName(s string) bool {
	return !strings.ContainsFunc(s, isBlank) && !strings.Contains(s, `\`) && !path.IsAbs(s) && path.Clean(s) == s &&
		s != "." && s != ".." && !strings.HasPrefix(s, "../")
}

// value sets f from the first line of a flat file. It reports whether it did.
func (l *loader) value(name string, f field) bool {
	data, ok := l.read(name)
	lines := parseList(data)
	if !ok || len(lines) == 0 {
		return false
	}
	if err := f.set([]string{lines[0].text}); err != nil {
		l.add(Problem{File: place(name), Line: lines[0].line, Text: err.Error()})
		return false
	}
	return true
}

// lists reads the list, value and template files.
func (l *loader) lists() {
	c := l.c
	l.value("me", scalar(func(s string) error {
		err := ownName(s)
		if err == nil {
			c.Me = s
		}
		return err
	}, nil))
	l.value("queue_dir", scalar(func(s string) error {
		if !path.IsAbs(s) {
			s = path.Join(c.Dir, s)
		}
		c.QueueDir = s
		return nil
	}, nil))
	l.list("host_list", func(s string, _ int) error {
		if a, err := mail.ParseAddress("postmaster@" + s); err != nil || a.Domain != s {
			return fmt.Errorf("%s is no domain", excerpt(s))
		}
		if d := mail.CanonicalDomain(s); !slices.Contains(c.HostList, d) {
			c.HostList = append(c.HostList, d)
		}
		return nil
	})
	l.list("host_list_regex", func(s string, line int) error {
		pattern, err := HostListPattern(s)
		if err != nil {
			return err
		}
		l.anyDomain(pattern, s, line)
		c.HostListRegex = append(c.HostListRegex, s)
		return nil
	})
	var relays []relayLine
	l.list("relay_acl_allow", func(s string, line int) error {
		s, _, _ = strings.Cut(s, "#") // the one list with comments behind its entries
		p, err := relayPrefix(strings.TrimSpace(s))
		if err == nil {
			c.Relay.Allow = append(c.Relay.Allow, p)
			relays = append(relays, relayLine{p, line})
		}
		return err
	})
	l.openRelay(relays)
	const antiSpoof = "host_list.anti_spoof"
	if data, _ := l.read(antiSpoof); len(parseList(data)) > 0 {
		first := parseList(data)[0]
		c.HostListAntiSpoof = first.text != "0"
		if first.text != "0" && isFalse(first.text) {
			l.add(Problem{File: place(antiSpoof), Line: first.line, Text: "any word but 0 means yes, this one too", Warning: true})
		}
	}
	for name, p := range map[string]*[]string{
		"outbound.bounce_message": &c.BounceMessage, "outbound.bounce_message_html": &c.BounceMessageHTML,
		"outbound.bounce_message_image": &c.BounceMessageImage,
	} {
		if data, ok := l.read(name); ok && len(data) > 0 {
			*p = parseData(data)
		}
	}
	for _, name := range []string{"smtp.json", "smtp.yaml"} {
		if _, err := fs.Stat(l.fs, name); err == nil {
			l.add(Problem{File: place(name), Text: "is not read, and all that it sets is missing: write it into the ini files"})
		}
	}
}

// list gives every line of a list file to one, with its number.
func (l *loader) list(name string, one func(string, int) error) {
	data, _ := l.read(name)
	for _, line := range parseList(data) {
		if err := one(line.text, line.line); err != nil {
			l.add(Problem{File: place(name), Line: line.line, Text: err.Error()})
		}
	}
}
