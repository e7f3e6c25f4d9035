package conf

import (
	"fmt"
	"slices"
	"strings"

	"tarishi/internal/mail"
)

// nowhere looks for recipients that are accepted and whose mail no backend is there
// for: host_list names their domain, and smtp_forward.ini has neither a section for
// it nor a host above its sections. Their senders would come back for days.
func (l *loader) nowhere() {
	c := l.c
	listed := func(name string) bool {
		return slices.ContainsFunc(c.Plugins, func(p PluginName) bool { return p.Name == name })
	}
	f := &c.Forward
	elsewhere := f.Main.Queue != "" && f.Main.Queue != "smtp_forward" // another plugin, or the queue
	if !listed("queue/smtp_forward") || !listed("rcpt_to.in_host_list") || !f.Configured || len(f.Main.Hosts) > 0 || elsewhere {
		return
	}
	p := Problem{Text: "goes nowhere: " + place(forwardFile) + " has no host above its sections"}
	// Of these it is known that they take no message.
	takesNone := []string{"queue/smtp_forward", "rcpt_to.in_host_list", "relay", "auth/flat_file", "tls", "record_envelope_addresses", "process_title"}
	if slices.ContainsFunc(c.Plugins, func(o PluginName) bool { return !slices.Contains(takesNone, o.Name) }) {
		p.Warning = true
		p.Text += ", unless another plugin takes it"
	}
	if f.DomainSelector == "mail_from" {
		if k := l.parsed(forwardFile).section("main").key("domain_selector"); k != nil && (len(c.HostList) > 0 || len(c.HostListRegex) > 0) {
			p.File, p.Line, p.Key = place(forwardFile), k.line, k.name
			p.Text = "mail from senders without a section " + p.Text
			l.add(p)
		}
		return
	}
	data, _ := l.read("host_list")
	var lost []listLine
	for _, line := range parseList(data) {
		if d := mail.CanonicalDomain(line.text); slices.Contains(c.HostList, d) && !f.hasSection(d) {
			lost = append(lost, line)
		}
	}
	switch {
	case len(lost) > 0:
		p.File, p.Line = place("host_list"), lost[0].line
		subject := "mail for " + lost[0].text
		if n := len(lost) - 1; n > 0 {
			subject += fmt.Sprintf(" and %d more", n)
		}
		p.Text = subject + " " + strings.Replace(p.Text, " has no host above its sections", " has neither a section for it nor a host above the sections", 1)
		l.add(p)
	case len(c.HostListRegex) > 0: // which may match no other domains than the sections'
		data, _ := l.read("host_list_regex")
		p.File, p.Line, p.Warning = place("host_list_regex"), parseList(data)[0].line, true
		p.Text = "mail for a domain without a section " + p.Text
		l.add(p)
	}
}

// hasSection reports whether a section is for a domain, by its name or by that of
// a domain above it.
func (f *Forward) hasSection(domain string) bool {
	if f.Routes[domain] != nil {
		return true
	}
	for _, parent, ok := strings.Cut(domain, "."); ok; _, parent, ok = strings.Cut(parent, ".") {
		if f.Routes["*."+parent] != nil {
			return true
		}
	}
	return false
}
