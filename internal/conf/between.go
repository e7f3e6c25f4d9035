package conf

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"tarishi/internal/destination"
	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/route"
)

const (
	smtpForward = "queue/smtp_forward"
	inHostList  = "rcpt_to.in_host_list"
)

// checker is implemented by settings of plugins that have something to check when the
// plugin is listed.
type checker interface{ Check(r *ini.Reader) }

// between holds the files against each other.
func (l *loader) between() {
	for _, p := range l.c.Plugins.Listed {
		l.listed(p.Name, ini.Problem{File: p.File, Line: p.Line, Key: p.As})
	}
	if k := l.File("smtp.ini").Section("main").Key("listen"); k != nil && !l.c.TLS.Explicit {
		// Clients would wait for a handshake that cannot happen.
		port := l.c.Listener.SMTPSPort
		if slices.ContainsFunc(l.c.Listener.Addrs, func(addr string) bool { return strings.HasSuffix(addr, fmt.Sprintf(":%d", port)) }) {
			l.Add(ini.Problem{
				File: ini.Place("smtp.ini"), Line: k.Line, Key: k.Name,
				Text: fmt.Sprintf("port %d begins with TLS, but there is no certificate: see %s", port, ini.Place("tls.ini")),
			})
		}
	}
	l.nowhere()
	for _, r := range l.c.Forward.All() {
		l.route(r, l.File(route.File).Section(r.Name))
	}
	for _, s := range l.File(destination.File).Sections {
		l.smartHosts(s)
	}
	for _, name := range []string{"smtp.json", "smtp.yaml"} {
		if slices.ContainsFunc(l.Entries("."), func(e fs.DirEntry) bool { return e.Name() == name }) {
			l.Add(ini.Problem{File: ini.Place(name), Text: "is not read, and all that it sets is missing: write it into the ini files"})
		}
	}
}

// listed checks what a plugin of config/plugins needs; p is for its line.
func (l *loader) listed(name string, p ini.Problem) {
	switch {
	case name == smtpForward && !l.c.Forward.Configured:
		p.Text = "goes nowhere: " + ini.Place(route.File) + " names no host"
		l.Add(p)
	case name == "tls" && !l.c.TLS.Explicit:
		p.Warning, p.Text = true, "STARTTLS is not offered: there is no certificate, see "+ini.Place("tls.ini")
		l.Add(p)
	case name == inHostList && !l.hasQueue():
		p.Warning, p.Text = true, "accepts recipients whose mail goes nowhere: no plugin queue/… is listed"
		l.Add(p)
	}
	if own, ok := l.c.Own[name].(checker); ok {
		own.Check(l.Reader)
	}
}

// hasQueue reports whether any plugin is listed that takes messages.
func (l *loader) hasQueue() bool {
	for _, p := range l.c.Plugins.Listed {
		if strings.HasPrefix(p.Name, "queue/") {
			return true
		}
	}
	return false
}

// route checks a route of smtp_forward.ini: that the queue plugin which it names is
// there, that the plugin may wait as long as it does, and that it does not lead back.
func (l *loader) route(r *route.Route, s *grammar.Section) {
	problem := func(key, text string) {
		if k := s.Key(key); k != nil {
			l.Add(ini.Problem{File: ini.Place(route.File), Line: k.Line, Section: ini.Shown(s.Name), Key: k.Name, Text: text})
		}
	}
	// The queue and the relay need no line of config/plugins to be named.
	known := r.Queue == "" || r.Queue == "smtp_forward" || r.Queue == "outbound" || len(l.c.Plugins.Listed) == 0
	for _, p := range l.c.Plugins.Listed {
		known = known || p.Name == r.Queue || strings.TrimPrefix(p.Name, "queue/") == r.Queue
	}
	if !known {
		problem("queue", grammar.Quote(r.Queue)+" is no plugin of "+ini.Place("plugins"))
	}

	// A plugin that ends before its backend answers makes the client repeat what
	// the backend may have taken.
	limit := l.c.Plugins.Timeouts[smtpForward]
	own := s.Key("submission_timeout") != nil || r == &l.c.Forward.Main
	if limit > 0 && limit < r.SubmissionTimeout && len(r.Hosts) > 0 && own {
		l.Add(ini.Problem{
			File: ini.Place(smtpForward + ".timeout"), Warning: true,
			Text: fmt.Sprintf("ends the plugin after %s seconds, while submission_timeout of [%s] allows %s: the client is told to send again what the backend may have taken",
				ini.FormatDuration(limit), r.Name, ini.FormatDuration(r.SubmissionTimeout)),
		})
	}
	// A message that comes back to this server goes round until its Received
	// fields are too many.
	key := "host"
	if r.InTurn {
		key = "forwarding_host_pool"
	}
	for _, hop := range r.Hosts {
		if hop.Path == "" && l.c.Listener.ListensOn(hop.Host, hop.Port) {
			problem(key, hop.String()+" is where this server listens")
		}
	}
}

// smartHosts checks that the hosts of a section of outbound.ini do not lead back.
func (l *loader) smartHosts(s *grammar.Section) {
	k := s.Key("host")
	d := l.c.Outbound.Section(s.Name)
	if k == nil || d == nil {
		return
	}
	for _, hop := range d.Hosts {
		if hop.Path == "" && l.c.Listener.ListensOn(hop.Host, hop.Port) {
			l.Add(ini.Problem{
				File: ini.Place(destination.File), Line: k.Line, Section: s.Name, Key: k.Name,
				Text: hop.String() + " is where this server listens",
			})
			return
		}
	}
}
