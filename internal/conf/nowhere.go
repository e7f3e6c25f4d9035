package conf

import (
	"fmt"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/route"
)

// nowhere looks for accepted recipients with mail that no backend takes: host_list names their domain, and smtp_forward.ini has neither a section for
// it nor a host above its sections. Their senders would come back for days.
func (l *loader) nowhere() {
	// Without these two plugins recipients are not accepted here, or go
	// elsewhere.
	f, plugins := &l.c.Forward, &l.c.Plugins
	elsewhere := f.Main.Queue != "" && f.Main.Queue != "smtp_forward" // another plugin, or the queue
	if !plugins.Has(smtpForward) || !plugins.Has(inHostList) || !f.Configured || len(f.Main.Hosts) > 0 || elsewhere {
		return
	}
	p := ini.Problem{Text: "goes nowhere: " + ini.Place(route.File) + " has no host above its sections"}
	// Of these it is known that they take no message.
	takesNone := []string{smtpForward, inHostList, "relay", "auth/flat_file", "tls", "record_envelope_addresses", "process_title"}
	if slices.ContainsFunc(plugins.Listed, func(o plugin.Listed) bool { return !slices.Contains(takesNone, o.Name) }) {
		p.Warning = true
		p.Text += ", unless another plugin takes it"
	}
	domains, patterns := l.Lines("host_list"), l.Lines("host_list_regex")
	domains = slices.DeleteFunc(domains, func(line grammar.Line) bool { // reported already
		a, err := mail.ParseAddress("postmaster@" + line.Text)
		return err != nil || a.Domain != line.Text
	})
	if f.DomainSelector == "mail_from" {
		if k := l.File(route.File).Section("main").Key("domain_selector"); k != nil && len(domains)+len(patterns) > 0 {
			p.File, p.Line, p.Key = ini.Place(route.File), k.Line, k.Name
			p.Text = "mail from senders without a section " + p.Text
			l.Add(p)
		}
		return
	}
	var lost []grammar.Line
	for _, line := range domains {
		if !f.HasSection(mail.CanonicalDomain(line.Text)) {
			lost = append(lost, line)
		}
	}
	switch {
	case len(lost) > 0:
		p.File, p.Line = ini.Place("host_list"), lost[0].No
		subject := "mail for " + lost[0].Text
		if n := len(lost) - 1; n > 0 {
			subject += fmt.Sprintf(" and %d more", n)
		}
		p.Text = subject + " " + strings.Replace(p.Text, " has no host above its sections", " has neither a section for it nor a host above the sections", 1)
		l.Add(p)
	case len(patterns) > 0: // which may match no other domains than the sections'
		p.File, p.Line, p.Warning = ini.Place("host_list_regex"), patterns[0].No, true
		p.Text = "mail for a domain without a section " + p.Text
		l.Add(p)
	}
}
