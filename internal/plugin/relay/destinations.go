package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
	"tarishi/internal/route"
)

// The actions for a domain, with Haraka's words.
const (
	actionAccept   = "accept"   // its recipients are accepted
	actionContinue = "continue" // they are, unless a later plugin refuses them
	actionDeny     = "deny"     // they are refused
)

// Destination is what relay_dest_domains.ini says of a domain.
type Destination struct {
	Action string         // one of the above, "", or a word that is none: its recipients are refused
	Hops   []mail.NextHop // where queued mail for it goes; none: by the DNS

	text string // as it is written
}

// anyDomain is the entry of domains without one of their own. It has a next hop alone.
const anyDomain = "any"

// routeTable declares relay_dest_domains.ini.
func (s *Settings) routeTable() *ini.Table {
	return &ini.Table{
		File: routeFile, Since: "0.3.0",
		Doc: "Domains that clients may send to with dest_domains, and next hops of queued mail with force_routing, both of relay.ini.",
		Free: []ini.Free{{
			Section: "domains",
			Example: `example.com={"action":"accept","nexthop":"192.0.2.10:25"}`,
			Doc: `A line for each domain. action: accept, continue (unless a later plugin refuses the recipient), or deny. nexthop: a host, or
				several, as in smtp_forward.ini. The domain any is the next hop of all others.`,
			Print: func() []string {
				var lines []string
				for _, domain := range ini.SortedKeys(s.Destinations) {
					lines = append(lines, domain+"="+s.Destinations[domain].text)
				}
				return lines
			},
		}},
		Begin:  func(*ini.Reader) { s.Destinations = map[string]Destination{} },
		Finish: s.readDestinations,
	}
}

// readDestinations reads relay_dest_domains.ini. An entry that cannot be read stops the
// start: its mail would be refused, or go elsewhere.
func (s *Settings) readDestinations(r *ini.Reader) {
	for _, k := range r.File(routeFile).Section("domains").Keys {
		p := ini.Problem{File: ini.Place(routeFile), Line: k.Line, Section: "domains", Key: k.Name}
		d, err := parseDestination(strings.Join(k.Values, ""))
		if err != nil {
			p.Text = err.Error()
			r.Add(p)
			continue
		}

		// What is refused for want of an action was probably meant otherwise.
		domain := mail.CanonicalDomain(k.Name)
		switch d.Action {
		case actionAccept, actionContinue, actionDeny:
		default:
			if s.DestDomains && domain != anyDomain {
				p.Warning, p.Text = true, fmt.Sprintf("the action %s is none of accept, continue, deny: with dest_domains its recipients are refused", grammar.Quote(d.Action))
				p.Nearest = ini.Nearest(d.Action, []string{actionAccept, actionContinue, actionDeny})
				r.Add(p)
			}
		}
		if domain == anyDomain && d.Action != "" && s.DestDomains {
			p.Warning, p.Text = true, "is for next hops alone: its action has no effect"
			r.Add(p)
		}
		s.Destinations[domain] = d
	}
}

// parseDestination reads one entry.
func parseDestination(text string) (Destination, error) {
	var entry struct {
		Action  string `json:"action"`
		NextHop string `json:"nexthop"`
	}
	// A misspelt name would leave out its setting.
	const form = `is not of the form {"action":"accept","nexthop":"host:port"}: `
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&entry); err != nil {
		return Destination{}, fmt.Errorf(form+"%w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Destination{}, errors.New(form + "more follows behind it")
	}
	d := Destination{Action: strings.ToLower(entry.Action), text: text}
	if entry.NextHop == "" {
		return d, nil
	}

	// The file is shown as it is, so that no password may stand in it.
	hops, err := route.ParseHops(entry.NextHop)
	if err == nil && slices.ContainsFunc(hops, func(h mail.NextHop) bool { return h.AuthUser != "" }) {
		err = errors.New("credentials belong into a section of outbound.ini")
	}
	if err != nil {
		return Destination{}, fmt.Errorf("nexthop: %w", err)
	}
	d.Hops = hops
	return d, nil
}
