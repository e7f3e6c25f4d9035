package schedule

// DomainsAt returns the domains that have units for a site with a name that match
// accepts.
func (s *Schedule) DomainsAt(match func(site string) bool) map[string]bool {
	found := map[string]bool{}
	for _, d := range s.domains {
		if d.Units > 0 && d.HasSite() && match(d.SiteName()) {
			found[d.Name] = true
		}
	}
	return found
}
