package plugin

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/ini"
)

// Services is what the daemon gives to its plugins: Env for one of them is made of
// it. Log is needed.
type Services struct {
	Log       *zap.Logger
	Resolver  Resolver
	Forwarder Forwarder
	Submitter Submitter
	Store     func(plugin string) Store   // nil: nothing is remembered
	Metrics   func(plugin string) Metrics // nil: nobody reads them
	Title     func(string)
}

// newEnv returns what one plugin of a set gets.
func (s *Services) newEnv(c *Config, name string, set *Set) Env {
	env := Env{
		Shared: c.Shared, Settings: c.Own[name], Log: s.Log.Named(name), Results: c.Results[name], Resolver: s.Resolver, Forwarder: s.Forwarder, Submitter: s.Submitter,
		Store: noStore{}, Mux: prefixed{set.routes, name}, Metrics: unread{}, Title: s.Title,
	}

	// What the daemon does not give is there and does nothing, so that plugins need
	// not ask.
	if s.Store != nil {
		env.Store = s.Store(name)
	}
	if s.Metrics != nil {
		env.Metrics = heldMetrics{s.Metrics(name), &set.held}
	}
	return env
}

// Loader turns names into plugins. A name is looked for in this order, DIR being
// the instance:
//
//	DIR/plugins/NAME.js
//	DIR/plugins/NAME/package.json
//	the registry of built-in plugins
//	DIR/node_modules/NAME, DIR/node_modules/haraka-plugin-NAME
//
// What is found in a folder is JavaScript. It is reported and not run: never does
// another plugin silently take the place of a site's own.
type Loader struct {
	Registry *Registry
	Services Services
}

// needsJavaScript is the verdict about plugins in files.
const needsJavaScript = "needs JavaScript, which this version does not run"

// findFactory returns the factory of a plugin, or an error that names the line which lists
// it and says what to do instead.
func (l *Loader) findFactory(c *Config, p Listed) (Factory, error) {
	f := l.Registry.factories[p.Name]

	// A site that has written a plugin must not get another one unasked.
	if script := siteScript(c, p); script != "" {
		problem := ini.Problem{File: p.File, Line: p.Line, Text: "plugin " + p.As + ": " + script + " " + needsJavaScript}
		if f != nil {
			problem.Text += "; without it the built-in plugin " + p.Name + " would be used"
		}
		return nil, errors.New(problem.String())
	}
	if f == nil {
		return nil, l.unknown(p, installed(c, p))
	}
	return f, nil
}

// siteScript returns the file below DIR/plugins that a plugin's name stands for, relative
// to DIR; "": there is none.
func siteScript(c *Config, p Listed) string {
	for _, name := range spellings(p) {
		if script := existing(c, "plugins/"+name+".js", "plugins/"+name+"/package.json"); script != "" {
			return script
		}
	}
	return ""
}

// installed returns the package below DIR/node_modules that a plugin's name stands
// for, relative to DIR; "": there is none.
func installed(c *Config, p Listed) string {
	for _, name := range spellings(p) {
		folder := "node_modules/" + name
		prefixed := "node_modules/haraka-plugin-" + name
		if at := existing(c, folder+"/package.json", prefixed+"/package.json"); at != "" {
			return path.Dir(at)
		}
	}
	return ""
}

// spellings are the names under which a plugin may be found in a folder: as it is written,
// and the newest of Haraka's names for it.
func spellings(p Listed) []string {
	if p.As == p.Name {
		return []string{p.Name}
	}
	return []string{p.As, p.Name}
}

// existing returns the first of some files of the instance that is there.
func existing(c *Config, files ...string) string {
	if c.Dir == "" { // defaults without an instance
		return ""
	}
	for _, file := range files {
		if info, err := os.Stat(filepath.Join(c.Dir, filepath.FromSlash(file))); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return ""
}

// unknown says that there is no plugin of a name, and what to do instead. script is
// where one is installed that cannot be run.
func (l *Loader) unknown(p Listed, script string) error {
	problem := ini.Problem{File: p.File, Line: p.Line, Text: "there is no plugin " + p.As}
	advice := notBuiltIn[p.Name]

	// Of Haraka's plugins it is known what stands in for them; another name may be
	// misspelt, unless such a package is installed.
	switch {
	case advice != "":
		if p.As != p.Name {
			problem.Text = fmt.Sprintf("there is no plugin %s (%s)", p.Name, p.As)
		}
		problem.Text += ": " + advice
	case script == "":
		problem.Nearest = l.Registry.nearest(p.Name)
	}
	if script != "" {
		problem.Text += fmt.Sprintf(" (%s %s)", script, needsJavaScript)
	}
	return errors.New(problem.String())
}

// nearest returns the plugin that a name was probably meant to be: the one with
// the same last part, or else one like it in the same folder. "": none.
func (r *Registry) nearest(name string) string {
	folder, base := path.Split(name)
	var beside []string
	for _, known := range r.Names() {
		if strings.HasSuffix(known, "/"+base) || strings.HasSuffix(known, "."+base) {
			return known
		}
		if at, last := path.Split(known); at == folder {
			beside = append(beside, last)
		}
	}
	if near := ini.Nearest(base, beside); near != "" {
		return folder + near
	}
	return ""
}
