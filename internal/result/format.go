package result

import (
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// Format is how the findings of one plugin are shown in a line.
type Format struct {
	Order []string // of the lists; nil: msg, pass, fail, skip, err
	Hide  []string // lists and named values that are left out
}

// Or returns f, with the parts that it leaves open taken from a plugin's usual format.
func (f Format) Or(usual Format) Format {
	if f.Order == nil {
		f.Order = usual.Order
	}
	if f.Hide == nil {
		f.Hide = usual.Hide
	}
	return f
}

// Formats is results.ini: how the findings of each plugin are shown, by the names of
// plugins.
type Formats map[string]Format

const file = "results.ini"

// Tables declares the keys of results.ini.
func (f *Formats) Tables() []*ini.Table {
	return []*ini.Table{{
		File: file, Since: "0.3.0",
		Doc: `What the log shows of the results of plugins, which is one line for each plugin: a section for each, called like
			the plugin.`,
		Quiet: true,
		Rows: []ini.Row{{
			Key:  "redis_publish",
			Note: "has no effect: results are not published, plugins read them where they are",
		}},
		Many: &ini.Many{
			Title:   "Sections of plugins",
			Doc:     "A section for each plugin.",
			Example: "[fcrdns]",
			Rows:    rows(&Format{}),
			Sections: func() []ini.Part {
				var parts []ini.Part
				for _, name := range ini.SortedKeys(*f) {
					format := (*f)[name]
					parts = append(parts, ini.Part{Name: name, Rows: rows(&format)})
				}
				return parts
			},
		},
		Begin:  func(*ini.Reader) { *f = Formats{} },
		Finish: f.finish,
	}}
}

// rows are those of one section, bound to a format.
func rows(f *Format) []ini.Row {
	return []ini.Row{
		{
			Key: "order", Kind: words(&f.Order, "pass", "fail", "msg", "err", "skip"), Example: "fail,pass,msg,err,skip",
			Doc: "The lists that are shown, in this order. Without it: msg, pass, fail, skip, err.",
		},
		{
			Key: "hide", Kind: words(&f.Hide), Example: "ptr_names,pass",
			Doc: "Lists and named values that are left out.",
		},
		{Key: "debug", Note: "has no effect: the line of a plugin is logged once, when its checks are done"},
	}
}

// words is a list of words with commas, semicolons or blanks between them; known are
// those that there are, none: any.
func words(p *[]string, known ...string) ini.Kind {
	return ini.Joined("words with commas between them", func(values []string) error {
		// Haraka splits at commas, semicolons and blanks, one or more of them.
		all := strings.FieldsFunc(strings.Join(values, ","), func(c rune) bool { return c == ',' || c == ';' || grammar.IsBlank(c) })
		for _, word := range all {
			if len(known) > 0 && !slices.Contains(known, word) {
				return &ini.ChoiceError{Value: word, Known: known}
			}
		}
		*p = all
		return nil
	}, func() []string { return []string{strings.Join(*p, ",")} })
}

// finish reads the sections.
func (f *Formats) finish(r *ini.Reader) {
	for _, s := range r.File(file).Sections {
		// The keys above the first section are those of the table itself.
		if s.Name == "main" {
			continue
		}
		var format Format
		r.Section(file, s, rows(&format), nil, "")
		(*f)[s.Name] = format
	}
}
