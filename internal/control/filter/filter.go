// Package filter selects messages of the queue. Every operation on messages takes
// the same conditions, which are combined with AND:
//
//	of the message    id, sender, older, newer
//	of a recipient    domain, site, recipient, attempts, reason, state
//
// A message is selected if one of its pending recipients meets all the conditions
// of a recipient: domain=a.example with reason=^421 needs a recipient in a.example
// with that reply. Changes are made to the whole message.
//
// In addresses, domains and sites * stands for any characters, also none. Domains
// are compared as A-labels, everything without regard to case.
package filter

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
)

// Set is the name that the parameters have in common.
const Set = "filter"

// Bounds of parameters.
const (
	maxReason   = 1000 // bytes of an expression
	maxAttempts = 1_000_000
	maxLimit    = 1<<31 - 1
)

// Parameters returns the conditions as parameters of an operation.
func Parameters() []control.Parameter {
	all := []control.Parameter{
		{Name: "id", Kind: control.Kind{Placeholder: "ID"}, Several: true, Text: "These messages only, as list prints them."},
		{Name: "domain", Kind: Domain, Text: "Only messages with a pending recipient in this domain."},
		{Name: "site", Kind: control.Kind{Placeholder: "SITE"}, Text: "Only messages with a pending recipient at this site: the name that destinations prints for domains with the same MX."},
		{Name: "sender", Kind: Address, Text: "Only messages from this address; '@DOMAIN' for all of a domain, '<>' for reports.", Empty: "--sender is empty; reports are from '<>'"},
		{Name: "recipient", Kind: Address, Text: "Only messages with this pending recipient; '@DOMAIN' for all of a domain."},
		{Name: "older", Kind: Age, Text: "Only messages that came longer ago than this: 90s, 30m, 12h, 5d, 2w."},
		{Name: "newer", Kind: Age, Text: "Only messages that came within this time."},
		{Name: "attempts", Kind: control.Number(1, maxAttempts), Text: "Only messages with a pending recipient that was deferred at least N times."},
		{Name: "reason", Kind: Expression, Text: "Only messages with a pending recipient whose last reply matches this regular expression (RE2)."},
		{Name: "state", Kind: State, Text: "Only messages with a pending recipient in this state: " + strings.Join(states, ", ") + "."},
		{Name: "limit", Kind: control.Number(1, maxLimit), Text: "Stop after N messages."},
	}
	for i := range all {
		all[i].Shared = Set
	}
	return all
}

// The states of a pending recipient.
const (
	Ready     = "ready"     // due, and waiting for a place
	Active    = "active"    // an attempt runs
	Deferred  = "deferred"  // its next attempt is due later
	Suspended = "suspended" // due, but its destination is suspended
	Held      = "held"      // not attempted until it is released
)

var states = []string{Ready, Active, Deferred, Suspended, Held}

// View is what a filter knows beside the messages themselves, at one moment.
// Without a daemon only Now is known.
type View struct {
	Now       time.Time
	Suspended map[string]bool   // domains that have a suspended site
	Active    map[mail.ID][]int // recipients that an attempt runs for, by index
	// Sites returns the domains with a site that match accepts by its name. nil:
	// none is known.
	Sites func(match func(site string) bool) map[string]bool
}

// state returns the state of a pending recipient.
func (v View) state(p *mail.Pending, r *mail.PendingRecipient) string {
	switch {
	case r.Held:
		return Held
	case slices.Contains(v.Active[p.ID], r.Index):
		return Active
	case r.Next.After(v.Now):
		return Deferred
	case v.Suspended[r.Address.Host()]:
		return Suspended
	}
	return Ready
}

// Filter is conditions on messages. The zero Filter has none.
type Filter struct {
	IDs   []mail.ID // nil: of any ID
	Limit int       // as many messages at most; 0: all

	message   []func(*mail.Pending) bool
	recipient []func(*mail.Pending, *mail.PendingRecipient) bool
}

// New returns the filter that is described by arguments, those of Parameters among
// them. Errors wrap control.ErrInvalid.
func New(a control.Arguments, v View) (*Filter, error) {
	f := &Filter{Limit: a.Number("limit", 0)}
	for _, id := range a["id"] {
		f.IDs = append(f.IDs, mail.ID(id))
	}

	// Which of several IDs a limit would leave out is nobody's guess.
	if len(f.IDs) > 0 && f.Limit > 0 {
		return nil, fmt.Errorf("%w: limit and id exclude each other", control.ErrInvalid)
	}
	for _, add := range []func(control.Arguments, View) error{f.addMessage, f.addRecipient, f.addReply} {
		if err := add(a, v); err != nil {
			return nil, fmt.Errorf("%w: %w", control.ErrInvalid, err)
		}
	}
	return f, nil
}

// Conditions reports whether f asks for more than IDs.
func (f *Filter) Conditions() bool { return len(f.message)+len(f.recipient) > 0 }

// Match reports whether a message meets the conditions; those of IDs and Limit are
// left to the caller.
func (f *Filter) Match(p *mail.Pending) bool {
	for _, ok := range f.message {
		if !ok(p) {
			return false
		}
	}

	// One recipient has to meet all of them, not several together.
	if len(f.recipient) == 0 {
		return true
	}
	for i := range p.Recipients {
		if f.matchRecipient(p, &p.Recipients[i]) {
			return true
		}
	}
	return false
}

func (f *Filter) matchRecipient(p *mail.Pending, r *mail.PendingRecipient) bool {
	for _, ok := range f.recipient {
		if !ok(p, r) {
			return false
		}
	}
	return true
}

// addMessage adds the conditions of the message itself.
func (f *Filter) addMessage(a control.Arguments, v View) error {
	if s := a.Text("sender"); s != "" {
		match, err := parseAddress(s)
		if err != nil {
			return fmt.Errorf("sender %q: %w", s, err)
		}
		f.message = append(f.message, func(p *mail.Pending) bool { return match(p.From) })
	}

	// Ages become points in time, so that a long walk does not move them.
	older, errOlder := parseAge(a.Text("older"))
	newer, errNewer := parseAge(a.Text("newer"))
	if errOlder != nil || errNewer != nil {
		return errAge
	}
	if a.Text("older") != "" {
		before := v.Now.Add(-older)
		f.message = append(f.message, func(p *mail.Pending) bool { return p.Received.Before(before) })
	}
	if a.Text("newer") != "" {
		since := v.Now.Add(-newer)
		f.message = append(f.message, func(p *mail.Pending) bool { return !p.Received.Before(since) })
	}
	return nil
}

// addRecipient adds the conditions of where a recipient is.
func (f *Filter) addRecipient(a control.Arguments, v View) error {
	if s := a.Text("domain"); s != "" {
		match, err := parseDomain(s)
		if err != nil {
			return err
		}
		f.recipient = append(f.recipient, func(_ *mail.Pending, r *mail.PendingRecipient) bool { return match(r.Address.Host()) })
	}
	if s := a.Text("site"); s != "" {
		// Sites are looked up once, domain by domain, not message by message.
		match := parsePattern(strings.ToLower(s)).match
		var at map[string]bool
		if v.Sites != nil {
			at = v.Sites(match)
		}
		f.recipient = append(f.recipient, func(_ *mail.Pending, r *mail.PendingRecipient) bool {
			host := r.Address.Host()
			return at[host] || match(host) // a domain that shares its MX with none is a site
		})
	}
	if s := a.Text("recipient"); s != "" {
		match, err := parseAddress(s)
		if err != nil {
			return fmt.Errorf("recipient %q: %w", s, err)
		}
		f.recipient = append(f.recipient, func(_ *mail.Pending, r *mail.PendingRecipient) bool { return match(r.Address) })
	}
	return nil
}

// addReply adds the conditions of what became of a recipient so far.
func (f *Filter) addReply(a control.Arguments, v View) error {
	if least := a.Number("attempts", 0); least > 0 {
		f.recipient = append(f.recipient, func(_ *mail.Pending, r *mail.PendingRecipient) bool { return r.Attempts >= least })
	}
	if s := a.Text("reason"); s != "" {
		re, err := regexp.Compile(s)
		if err != nil {
			return fmt.Errorf("reason: %w", err)
		}
		f.recipient = append(f.recipient, func(_ *mail.Pending, r *mail.PendingRecipient) bool { return r.Last != "" && re.MatchString(r.Last) })
	}
	if want := a.Text("state"); want != "" {
		f.recipient = append(f.recipient, func(p *mail.Pending, r *mail.PendingRecipient) bool { return v.state(p, r) == want })
	}
	return nil
}
