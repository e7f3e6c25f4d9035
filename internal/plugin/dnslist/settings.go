package dnslist

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
)

// Settings is dns-list.ini, with dnsbl.zones and dnswl.zones.
type Settings struct {
	Lists       []*List // those that every client is looked up in
	DNSWL       *List   // list.dnswl.org, which may also be one of Lists
	Backscatter *List   // ips.backscatterer.org, which is asked about the senders of reports
	First       bool    // the first listing that refuses ends the search
	Interval    time.Duration
	Timeout     time.Duration // of all look-ups of a client together

	search, minutes     string
	zones               []string // of dns-list.ini
	blockLines, allowed []string // of the files with Haraka's older names
	sections            map[string]*List
}

const (
	file            = "dns-list.ini"
	blockFile       = "dnsbl.zones"
	allowFile       = "dnswl.zones"
	zoneDNSWL       = "list.dnswl.org"
	zoneBackscatter = "ips.backscatterer.org"
)

// Tables declares the keys of dns-list.ini, and the older lists of zones, which are read
// first because it has the settings of each.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{
		zoneTable(blockFile, &s.blockLines, "Lists of clients that are not wanted, besides those in dns-list.ini."),
		zoneTable(allowFile, &s.allowed, "Lists of clients that are known as good, besides those in dns-list.ini."),
		{
			File: file, Since: "0.3.0",
			Doc:  "The lists in the DNS in which the plugin dns-list looks clients up.",
			Rows: append(s.rows(), statsRows()...),
			Many: &ini.Many{
				Title: "Sections for lists",
				Doc: `A section is named after the zone of a list. The lists that are asked by default have settings, which a section
					changes key by key. A key that is an address, 127.0.0.2=text, is a remark on that answer for the results.`,
				Example: "[bl.example.com]", Rows: newList("").rows(), Sections: s.parts,
			},
			Begin:  func(*ini.Reader) { s.sections = map[string]*List{} },
			Finish: s.finish,
		},
	}
}

// zoneTable declares a file with the names of zones.
func zoneTable(name string, zones *[]string, doc string) *ini.Table {
	return &ini.Table{
		File: name, Since: "0.3.0", Doc: doc,
		Line: func(_ *ini.Reader, text string, _ int) error {
			zone, err := parseZone(text)
			if err == nil {
				*zones = append(*zones, zone)
			}
			return err
		},
		Lines: func() []string { return *zones },
		Begin: func(*ini.Reader) { *zones = nil },
	}
}

// rows are the keys that hold for all lists.
func (s *Settings) rows() []ini.Row {
	return []ini.Row{
		{
			Key: "zones", Kind: zoneNames(&s.zones), Default: strings.Join(usualZones(), " "),
			Doc: "The zones of the lists, with blanks or commas between them, or as zones[]=, a line for each.",
		},
		{
			Key: "search", Kind: ini.Choice(&s.search, "all", "first"), Default: "all",
			Doc: `all: every list is waited for. first: the first listing that refuses ends the search. A client that is on an allow
				list is let in at once in both cases.`,
		},
		{
			Key: "periodic_checks", Kind: ini.Scalar("minutes, a whole number, at least 0", s.setMinutes, func() string { return s.minutes }), Default: "30",
			Doc: `How often each list is tested (RFC 5782 section 5), in minutes: it is asked only while it passes. 1 to 4: it is asked
				from the start, and tested once. 0: it is not tested. A list that answers wrongly, or not at all, is disabled in any
				case, and tried again in the background.`,
		},
		{
			Key: "timeout", Kind: ini.Duration(&s.Timeout, time.Second), Default: "25", Haraka: ini.None,
			Doc: `How long all lists together are waited for. A list that has not answered by then is disabled, and the client counts as
				not listed there.`,
		},
	}
}

// statsRows are Haraka's figures in Redis.
func statsRows() []ini.Row {
	const note = "has no effect: 'tarishi metrics' shows the look-ups in each list"
	return ini.Within("stats", ini.Row{Key: "enable", Note: note}, ini.Row{Key: "redis_host", Note: note})
}

// setMinutes reads periodic_checks.
func (s *Settings) setMinutes(text string) error {
	var minutes int
	err := ini.Int(&minutes, 0, 365*24*60).Set([]string{text})
	if err == nil {
		s.minutes, s.Interval = text, time.Duration(minutes)*time.Minute
	}
	return err
}

// zoneNames is a list of zones, split as Haraka does.
func zoneNames(p *[]string) ini.Kind {
	return ini.Joined("names of zones, with blanks between them", func(values []string) error {
		var all []string
		isBetween := func(c rune) bool { return c == ',' || c == ';' || grammar.IsBlank(c) }
		for _, text := range strings.FieldsFunc(strings.Join(values, ","), isBetween) {
			zone, err := parseZone(text)
			if err != nil {
				return err
			}
			all = append(all, zone)
		}
		*p = all
		return nil
	}, func() []string { return []string{strings.Join(*p, " ")} })
}

// parseZone reads the name of a zone.
func parseZone(text string) (string, error) {
	zone := strings.TrimSuffix(text, ".")
	if a, err := mail.ParseAddress("postmaster@" + zone); err != nil || a.Domain != zone || strings.HasPrefix(zone, "[") {
		return "", fmt.Errorf("%s is no name of a zone in the DNS", grammar.Quote(text))
	}
	return mail.CanonicalDomain(zone), nil
}

// finish reads the sections, and makes the lists that are asked.
func (s *Settings) finish(r *ini.Reader) {
	s.First = s.search == "first"
	for _, section := range r.File(file).Sections {
		if section.Name != "main" && section.Name != "stats" {
			s.readSection(r, section)
		}
	}

	// A zone that stands in several files is one list. What dnswl.zones names is an allow
	// list, whatever its section says, as in Haraka.
	s.Lists = nil
	for _, zone := range slices.Concat(s.zones, s.blockLines, s.allowed) {
		if slices.ContainsFunc(s.Lists, func(l *List) bool { return l.Zone == zone }) {
			continue
		}
		l := s.list(zone)
		if slices.Contains(s.allowed, zone) {
			l.Type = Allow
		}
		s.Lists = append(s.Lists, l)
	}
	s.DNSWL, s.Backscatter = s.list(zoneDNSWL), s.list(zoneBackscatter)
	if len(s.Lists) == 0 {
		r.Add(ini.Problem{File: ini.Place(file), Key: "zones", Text: "names no list: no client is looked up", Warning: true})
	}
}

// readSection reads what a section says of a list.
func (s *Settings) readSection(r *ini.Reader, section *grammar.Section) {
	zone, err := parseZone(section.Name)
	if err != nil {
		r.Add(ini.Problem{File: ini.Place(file), Line: section.Line, Section: section.Name, Text: err.Error()})
		return
	}
	// Any address can be a key.
	l := s.list(zone)
	rows := l.rows()
	for _, k := range section.Keys {
		if _, err := netip.ParseAddr(k.Name); err == nil && l.Texts[k.Name] == "" {
			rows = append(rows, l.textRow(k.Name))
		}
	}
	r.Section(file, section, rows, s.rows(), "lists")

	// Settings of a list that nobody asks are seldom meant.
	asked := slices.Concat(usualZones(), s.zones, s.blockLines, s.allowed, []string{zoneBackscatter})
	if !slices.Contains(asked, zone) {
		r.Add(ini.Problem{
			File: ini.Place(file), Line: section.Line, Section: section.Name, Warning: true,
			Text: "this list is not among zones: it is not asked", Nearest: ini.Nearest(zone, s.zones),
		})
	}
}

// list returns the list of a zone, with what is known and said of it.
func (s *Settings) list(zone string) *List {
	l := s.sections[zone]
	if l == nil {
		l = newList(zone)
		s.sections[zone] = l
	}
	return l
}

// parts are the sections as they are printed.
func (s *Settings) parts() []ini.Part {
	var all []ini.Part
	for _, zone := range ini.SortedKeys(s.sections) {
		all = append(all, ini.Part{Name: zone, Rows: s.sections[zone].rows()})
	}
	return all
}
