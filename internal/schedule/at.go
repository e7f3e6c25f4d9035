package schedule

// DomainsAt returns the domains that have units for a site whose name match
// accepts.
func (s *Schedule) DomainsAt(match func(site string) bool) map[string]bool {
	found := map[string]bool{}
	for _, d := range s.domains {
		if d.units > 0 && d.site != nil && match(d.site.name) {
			found[d.name] = true
		}
	}
	return found
}
