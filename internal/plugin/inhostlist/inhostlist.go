// Package inhostlist is the plugin rcpt_to.in_host_list: it accepts recipients
// in our own domains. See README.md.
//
// New settings make a new instance, which holds nothing but its lists.
package inhostlist

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
)

// Name is the plugin's name in config/plugins.
const Name = "rcpt_to.in_host_list"

// New is the plugin's factory. An expression of host_list_regex that cannot be
// compiled is an error.
func New(env plugin.Env) (plugin.Plugin, error) { return newList(env.Settings.(*Settings), env.Me) }

// Register implements plugin.Plugin.
func (l *list) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnMail, "hook_mail", 0, l.mail)
	h.On(hook.OnRcpt, "hook_rcpt", 0, l.rcpt)
}

// list is the plugin: the set of our domains.
type list struct {
	domains   map[string]bool
	patterns  []*regexp.Regexp
	antiSpoof bool
	me        string // our hostname
}

func newList(s *Settings, me string) (*list, error) {
	l := &list{domains: make(map[string]bool, len(s.Domains)), antiSpoof: s.AntiSpoof, me: mail.CanonicalDomain(me)}
	for _, d := range s.Domains {
		l.domains[mail.CanonicalDomain(d)] = true
	}
	// Expressions were checked when they were read; here one fails only if nobody did.
	for _, line := range s.Patterns {
		p, err := compile(line)
		if err != nil {
			return nil, fmt.Errorf("host_list_regex: %w", err)
		}
		l.patterns = append(l.patterns, p)
	}
	return l, nil
}

func (l *list) has(a mail.Address) bool {
	domain := a.Host()
	return domain != "" && (l.domains[domain] ||
		slices.ContainsFunc(l.patterns, func(p *regexp.Regexp) bool { return p.MatchString(domain) }))
}

// mail marks senders in our domains, and refuses them from strangers where
// host_list.anti_spoof says so.
func (l *list) mail(_ context.Context, e *hook.Event) hook.Verdict {
	if !l.has(e.Sender) {
		return hook.Proceed()
	}
	if l.antiSpoof && !e.Tx.Relaying() {
		return hook.Verdict{Code: hook.Deny, Reply: reply.Newf(550, "5.7.1",
			"Mail from domain '%s' is not allowed from your host", e.Sender.Host())}
	}
	e.Tx.Notes().Set("local_sender", true)
	return hook.Proceed()
}

func (l *list) rcpt(_ context.Context, e *hook.Event) hook.Verdict {
	if a := e.Recipient.Address; l.has(a) || l.isPostmaster(a) {
		return hook.Answer(hook.OK, "")
	}
	return hook.Proceed()
}

// isPostmaster reports whether a is this host's postmaster, which is also what
// RCPT TO:<postmaster> means. It must be accepted (RFC 5321 section 4.5.1).
func (l *list) isPostmaster(a mail.Address) bool {
	return strings.EqualFold(a.Local, "postmaster") && l.me != "" && a.Host() == l.me
}
