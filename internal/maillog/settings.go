package maillog

import (
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/ini"
)

// Settings is log.ini.
type Settings struct {
	Level      string // data, protocol, debug, info, notice, warn, error, crit, alert, emerg
	Format     string // default, logfmt, json
	Timestamps bool
}

// Tables declares the keys of log.ini.
func (s *Settings) Tables() []*ini.Table {
	return []*ini.Table{{
		File: "log.ini",
		Doc:  "The log, on standard error.",
		Rows: []ini.Row{
			{
				Key: "level", Kind: levelKind(&s.Level), Default: "info", Was: []string{"loglevel"},
				Doc: `What is written, from much to little: protocol, debug, info, notice, warn, error, crit, alert, emerg.
					protocol shows what clients and we say to each other, but no passwords; data is the same. info and
					notice have a line for each event of a message; from warn on only what went wrong is left.`,
			},
			{
				Key: "timestamps", Kind: ini.Bool(&s.Timestamps), Default: "true", Was: []string{"log_timestamps"},
				Doc: "Begin each line with the time (ISO 8601, milliseconds, UTC).",
			},
			{
				Key: "format", Kind: ini.Choice(&s.Format, "default", "logfmt", "json"), Default: "default",
				Doc: "The form of a line:\n" +
					" default: [LEVEL] [ID] [origin] message id=ID key=value ...\n" +
					" logfmt:  level=info uuid=ID origin=... message=... id=ID key=value ...\n" +
					" json:    one object a line, with the same keys.\n" +
					"ID is that of the connection or of the message; - if a line is about neither.\n" +
					` All lines of one: grep -wF id=ID, or in json grep -F '"id":"ID"'.`,
			},
		},
	}}
}

// levelKind is a level by its name, with Haraka's prefix LOG or without, or by its
// number.
func levelKind(p *string) ini.Kind {
	var names []string
	for _, l := range slices.Backward(levelNames) {
		names = append(names, l.name)
	}
	word := ini.Choice(p, names...)
	read := func(s string) error {
		if n, err := strconv.Atoi(s); err == nil && n >= 0 && n < len(names) {
			*p = names[n]
			return nil
		}
		if len(s) > 3 && strings.EqualFold(s[:3], "log") { // LOGINFO, as the old flat file has it
			s = s[3:]
		}
		return word.Set([]string{s})
	}
	return word.WithReader(read)
}
