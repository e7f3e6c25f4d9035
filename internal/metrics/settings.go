package metrics

import "tarishi/internal/ini"

// Settings is what http.ini says of the metrics.
type Settings struct {
	Destinations int // so many have metrics of their own
}

// Tables declares the key of http.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "http.ini",
		Rows: []ini.Row{{
			Key: "destinations", Kind: ini.Int(&s.Destinations, 0, 1000), Default: "50", Haraka: ini.None,
			Doc: `How many destination domains have metrics of their own: those with the oldest mail and those with the most.
				All others are summed up as "other".`,
		}},
	}}
}
