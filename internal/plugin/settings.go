package plugin

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/result"
)

// Settings is config/plugins and the files beside it that bound the time of plugins.
type Settings struct {
	Listed   []Listed                 // in the order of config/plugins
	Timeout  time.Duration            // for one hook of one plugin; 0: none
	Timeouts map[string]time.Duration // by canonical name, over Timeout
	Results  result.Formats           // how the log shows the results of each
}

// Listed is one line of config/plugins.
type Listed struct {
	Name string // canonical
	As   string // as written
	File string
	Line int
}

// renamed reports whether the line has an old name of the plugin.
func (l Listed) renamed() bool {
	_, old := aliases[strings.TrimPrefix(l.As, "haraka-plugin-")]
	return old
}

// Tables declares config/plugins, plugin_timeout and results.ini.
func (s *Settings) Tables() []*ini.Table {
	tables := []*ini.Table{
		{
			File: "plugins",
			Doc:  "Plugins, in the order in which they run; docs/plugins.md lists them.",
			Line: s.line,
			Lines: func() []string {
				var names []string
				for _, p := range s.Listed {
					names = append(names, p.Name)
				}
				return names
			},
		},
		{
			File: "plugin_timeout", Default: "30",
			Doc: `How long one hook of one plugin may take; then the message is deferred. 0: for ever. The file NAME.timeout says
				it of one plugin.`,
			Value:  ini.Duration(&s.Timeout, 0),
			Finish: s.timeouts,
		},
	}
	for _, name := range ini.SortedKeys(s.Timeouts) { // to be printed
		limit := s.Timeouts[name]
		tables = append(tables, &ini.Table{File: name + ".timeout", Value: ini.Duration(&limit, 0)})
	}
	return append(tables, s.Results.Tables()...)
}

// line reads one line of config/plugins.
func (s *Settings) line(r *ini.Reader, text string, no int) error {
	if !isPluginName(text) {
		return fmt.Errorf("%s is no name of a plugin: one name on each line, comments on their own lines", grammar.Quote(text))
	}
	p := ini.Problem{File: ini.Place("plugins"), Line: no, Key: text, Warning: true}
	listed := Listed{Name: Canonical(text), As: text, File: p.File, Line: no}
	// An old name may be another name of a plugin that is listed already.
	same := slices.IndexFunc(s.Listed, func(o Listed) bool { return o.Name == listed.Name })
	renamed := listed.renamed()
	if notice, ok := servedAnyway[listed.Name]; ok {
		p.Text = notice
		r.Add(p)
		return nil
	}
	switch {
	case same >= 0 && (renamed || s.Listed[same].renamed()):
		p.Text = fmt.Sprintf("is part of %s today, which stands on line %d already", listed.Name, s.Listed[same].Line)
		if !renamed {
			p.Text = fmt.Sprintf("stands on line %d already, as %s: that line counts", s.Listed[same].Line, s.Listed[same].As)
		}
		r.Add(p)
		return nil
	case renamed && notBuiltIn[listed.Name] != "": // Build says that there is none
	case renamed:
		p.Text = "is called " + listed.Name + " today, and may need other settings"
		r.Add(p)
	case same >= 0:
		p.Text = fmt.Sprintf("stands on line %d already: its hooks run twice", s.Listed[same].Line)
		r.Add(p)
	}
	s.Listed = append(s.Listed, listed)
	return nil
}

// timeouts reads the time limits of single plugins.
func (s *Settings) timeouts(r *ini.Reader) {
	s.Timeouts = map[string]time.Duration{}
	for _, p := range s.Listed {
		limit := s.Timeout
		if r.Value(p.Name+".timeout", ini.Duration(&limit, 0)) || p.As != p.Name && r.Value(p.As+".timeout", ini.Duration(&limit, 0)) {
			s.Timeouts[p.Name] = limit
		}
	}
}

// Has reports whether a plugin is listed, by its canonical name.
func (s *Settings) Has(name string) bool {
	return slices.ContainsFunc(s.Listed, func(p Listed) bool { return p.Name == name })
}

// isPluginName accepts relative paths without blanks that stay where they are.
func isPluginName(s string) bool {
	return !strings.ContainsFunc(s, grammar.IsBlank) && !strings.Contains(s, `\`) && !path.IsAbs(s) && path.Clean(s) == s &&
		s != "." && s != ".." && !strings.HasPrefix(s, "../")
}
