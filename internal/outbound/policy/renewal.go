package policy

import (
	"strings"

	"tarishi/internal/schedule"
)

// origin is where limits come from.
type origin struct {
	mx  string // the section for mail exchangers; "": none
	cap int    // connections that a next hop of get_mx allows
	hop bool   // there is such a hop
}

// Renewal returns a function that finds the limits of a domain that had those of an
// earlier table. site names the one that the domain shares; "" is one for itself.
//
// Only an attempt knows the mail exchangers of a domain for certain. Until the next one has
// found them they are taken from the name of the site, or from the section that counted
// before, so that the limits of a destination that is being served hold from now on.
func (t *Table) Renewal(before *Table) func(domain, site string, was *schedule.Limits) *schedule.Limits {
	origins := before.origins()
	return func(domain, site string, was *schedule.Limits) *schedule.Limits {
		from := origins[was]
		if from.hop {
			return t.For(domain, nil).capped(from.cap)
		}

		// A site for a section is named after that, all others after their hosts.
		var hosts []string
		switch section, isSection := strings.CutPrefix(site, "[mx:"); {
		case isSection:
			hosts = []string{strings.TrimSuffix(section, "]")}
		case site != "" && !strings.HasPrefix(site, "hop:"):
			hosts = strings.Split(site, ",")
		case from.mx != "":
			hosts = []string{strings.TrimPrefix(from.mx, "mx:")}
		}
		return t.For(domain, hosts).Limits
	}
}

// origins returns where all the limits come from that the table has given.
func (t *Table) origins() map[*schedule.Limits]origin {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[*schedule.Limits]origin, len(t.policies))
	for key, p := range t.policies {
		all[p.Limits] = origin{mx: key.mx}
		p.mu.Lock()
		for n, l := range p.hops {
			all[l] = origin{mx: key.mx, cap: n, hop: true}
		}
		p.mu.Unlock()
	}
	return all
}
