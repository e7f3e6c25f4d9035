package plugin_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
)

// journal notes what happens to plugins, in order.
type journal struct{ events []string }

func (j *journal) note(event string) { j.events = append(j.events, event) }

// take returns the events since the last call.
func (j *journal) take() string {
	all := strings.Join(j.events, " ")
	j.events = nil
	return all
}

// part is a plugin that notes its life. setting is what it was made with.
type part struct {
	j          *journal
	name       string
	setting    string
	startError error
	life       context.Context
}

func (p *part) Register(h plugin.Host) {
	p.j.note("register-" + p.name)
	h.On(hook.OnMail, p.setting, 0, proceed)
}

func (p *part) Start(ctx context.Context) error {
	p.j.note("start-" + p.name)
	p.life = ctx
	return p.startError
}

func (p *part) Close() error {
	p.j.note("close-" + p.name)
	if p.life.Err() == nil {
		return errors.New("closed before its context ended")
	}
	return nil
}

// lasting is a part that can be reloaded.
type lasting struct{ part }

func (p *lasting) Reload(env plugin.Env) (func(), error) {
	if env.Me == "refused" {
		return nil, errors.New("settings refused")
	}
	return func() {
		p.j.note("swap-" + p.name)
		p.setting = env.Me
	}, nil
}

// loader knows the plugins a, b and c, of which b can be reloaded and c fails to
// start where the host name is "nostart".
func loader(j *journal) *plugin.Loader {
	var r plugin.Registry
	for _, name := range []string{"a", "c"} {
		r.Register(name, func(env plugin.Env) (plugin.Plugin, error) {
			j.note("new-" + name)
			if env.Me == "bad" {
				return nil, errors.New("no such thing")
			}
			p := &part{j: j, name: name, setting: env.Me}
			if name == "c" && env.Me == "nostart" {
				p.startError = errors.New("no port")
			}
			return p, nil
		})
	}
	r.Register("b", func(env plugin.Env) (plugin.Plugin, error) {
		j.note("new-b")
		return &lasting{part{j: j, name: "b", setting: env.Me}}, nil
	})
	return &plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop()}}
}

// named is config with a host name, which stands for all settings.
func named(me string, plugins ...string) *plugin.Config {
	c := config(plugins...)
	c.Me = me
	return c
}

// settings are those that the handlers of a set work with.
func settings(s *plugin.Set) string {
	var all []string
	for _, reg := range s.Registrations() {
		all = append(all, reg.Plugin+"="+reg.Function)
	}
	return strings.Join(all, " ")
}

func TestLife(t *testing.T) {
	j := &journal{}
	set, err := loader(j).Load(named("one", "a", "b", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := j.take(); got != "new-a new-b new-c register-a register-b register-c" {
		t.Errorf("loaded: %s", got)
	}
	if err := set.Start(t.Context()); err != nil || j.take() != "start-a start-b start-c" {
		t.Errorf("started: %v", err)
	}
	if err := set.Close(); err != nil {
		t.Error(err)
	}
	if got := j.take(); got != "close-c close-b close-a" {
		t.Errorf("closed: %s", got)
	}
}

// TestStartFails: what has been started is closed again.
func TestStartFails(t *testing.T) {
	j := &journal{}
	set, err := loader(j).Load(named("nostart", "a", "c", "b"))
	if err != nil {
		t.Fatal(err)
	}
	j.take()
	if err := set.Start(t.Context()); err == nil || err.Error() != "config/plugins:2: plugin c: no port" {
		t.Errorf("%v", err)
	}
	if got := j.take(); got != "start-a start-c close-c close-a" {
		t.Errorf("%s", got)
	}
	if err := set.Close(); err != nil || j.take() != "" {
		t.Errorf("closed again: %v", err)
	}
}

func TestReload(t *testing.T) {
	j := &journal{}
	l := loader(j)
	first, err := l.Load(named("one", "a", "b"))
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	j.take()

	// Whatever is wrong with the next generation, the running one stays as it is.
	for _, bad := range []*plugin.Config{
		named("bad", "b", "a"), named("refused", "a", "b"), named("two", "a", "nothing"), named("nostart", "b", "a", "c"),
	} {
		if _, err := l.Prepare(t.Context(), first, bad); err == nil {
			t.Errorf("%s is good", bad.Me)
		}
		if events := j.take(); strings.Contains(events, "swap") || strings.Count(events, "start-") != strings.Count(events, "close-") || strings.Contains(events, "close-b") {
			t.Errorf("%s: %s", bad.Me, events)
		}
	}

	second, err := l.Prepare(t.Context(), first, named("two", "b", "a", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if got := settings(second); got != "a=two c=two" {
		t.Errorf("the new plugins of the second generation have %s", got)
	}
	second.Commit()
	if got := j.take(); got != "new-a new-c register-a register-c start-a start-c swap-b register-b" {
		t.Errorf("reloaded: %s", got)
	}
	if got := settings(first); got != "a=one b=one" {
		t.Errorf("the first generation has %s", got)
	}
	if got := settings(second); got != "b=two a=two c=two" {
		t.Errorf("the second has %s", got)
	}
	if err := first.Close(); err != nil || j.take() != "close-a" {
		t.Errorf("retired: %v", err)
	}

	// A generation that is given up ends what is new in it, and nothing else.
	dropped, err := l.Prepare(t.Context(), second, named("never", "a", "b", "c"))
	if err != nil {
		t.Fatal(err)
	}
	j.take()
	if err := dropped.Close(); err != nil || j.take() != "close-c close-a" || settings(second) != "b=two a=two c=two" {
		t.Errorf("given up: %v, %s", err, settings(second))
	}
	_, err = l.Prepare(t.Context(), second, named("three"))
	if err != nil {
		t.Fatal(err)
	}
	j.take()
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	if got := j.take(); got != "close-c close-a close-b" {
		t.Errorf("retired: %s", got)
	}
}

// TestClosedInAnyOrder: a plugin that several generations have ends with the last of them.
func TestClosedInAnyOrder(t *testing.T) {
	j := &journal{}
	l := loader(j)
	all := []*plugin.Set{nil}
	for _, me := range []string{"one", "two", "three", "four"} {
		next, err := l.Prepare(t.Context(), all[len(all)-1], named(me, "a", "b"))
		if err != nil {
			t.Fatal(err)
		}
		next.Commit()
		all = append(all, next)
	}
	j.take()
	for _, step := range []struct {
		set  int
		want string
	}{{3, "close-a"}, {2, "close-a"}, {2, ""}, {4, "close-a"}, {1, "close-b close-a"}} {
		if err := all[step.set].Close(); err != nil {
			t.Error(err)
		}
		if got := j.take(); got != step.want {
			t.Errorf("generation %d: %s, want %s", step.set, got, step.want)
		}
	}
}

// TestJavaScript: a file of the site's own stands before the built-in plugin of its
// name, and is reported, since it cannot be run.
func TestJavaScript(t *testing.T) {
	dir := t.TempDir()
	for _, file := range []string{
		"plugins/a.js", "plugins/auth/site.js", "plugins/folder/package.json", "plugins/old.js",
		"node_modules/haraka-plugin-karma/package.json", "node_modules/b/package.json", "node_modules/other/package.json",
	} {
		path := filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := named("one", "a", "auth/site", "folder", "b", "karma", "other", "c")
	c.Dir = dir
	c.Listed = append(c.Listed, plugin.Listed{Name: "c", As: "old", File: "config/plugins", Line: 8})
	_, err := loader(&journal{}).Load(c)
	const no = "needs JavaScript, which this version does not run"
	want := []string{
		"config/plugins:1: plugin a: plugins/a.js " + no + "; without it the built-in plugin a would be used",
		"config/plugins:2: plugin auth/site: plugins/auth/site.js " + no,
		"config/plugins:3: plugin folder: plugins/folder/package.json " + no,
		"config/plugins:5: there is no plugin karma: clients get no marks (node_modules/haraka-plugin-karma " + no + ")",
		"config/plugins:6: there is no plugin other (node_modules/other " + no + ")",
		"config/plugins:8: plugin old: plugins/old.js " + no + "; without it the built-in plugin c would be used",
	}
	if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// TestEnv: a plugin without services has ones that do nothing, and its own HTTP
// handlers below its name.
func TestEnv(t *testing.T) {
	var r plugin.Registry
	r.Register("queue/web", func(env plugin.Env) (plugin.Plugin, error) {
		if err := env.Store.Put("k", nil, 0); !errors.Is(err, plugin.ErrNoStore) {
			t.Errorf("%v", err)
		}
		env.Metrics.Counter("n", "Counts.", "label").Add(1, "x")
		env.Metrics.Gauge("g", "Shows.", func() float64 { return 1 })
		hello := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }
		env.Mux.Handle("GET /hello", http.HandlerFunc(hello))
		return plugin.Hooks(func(plugin.Host) {}), nil
	})
	set, err := (&plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop()}}).Load(config("queue/web", "queue/web"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{"GET /plugins/queue/web/hello": 200, "POST /plugins/queue/web/hello": 405, "GET /hello": 404} {
		method, target, _ := strings.Cut(path, " ")
		w := httptest.NewRecorder()
		set.Handler().ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != want {
			t.Errorf("%s: %d, want %d", path, w.Code, want)
		}
	}
}

// shown are Metrics that remember the gauges.
type shown map[string]func() float64

func (shown) Counter(string, string, ...string) plugin.Counter { return nil }
func (s shown) Gauge(name, _ string, read func() float64)      { s[name] = read }

// TestGauges: those of a generation that is prepared count when it is in force, and those
// of one that comes to nothing never.
func TestGauges(t *testing.T) {
	figures, made := shown{}, 0.0
	var r plugin.Registry
	r.Register("a", func(env plugin.Env) (plugin.Plugin, error) {
		made++
		mine := made
		env.Metrics.Gauge("which", "Tells the instance.", func() float64 { return mine })
		return plugin.Hooks(func(plugin.Host) {}), nil
	})
	l := &plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.NewNop(), Metrics: func(string) plugin.Metrics { return figures }}}
	first, err := l.Load(config("a"))
	if err != nil || figures["which"]() != 1 {
		t.Fatal(err)
	}
	if _, err := l.Prepare(t.Context(), first, config("a", "nothing")); err == nil || figures["which"]() != 1 {
		t.Errorf("%v, %v", err, figures["which"]())
	}
	next, err := l.Prepare(t.Context(), first, config("a"))
	if err != nil || figures["which"]() != 1 {
		t.Errorf("%v, %v", err, figures["which"]())
	}
	next.Commit()
	if n := figures["which"](); n != 3 {
		t.Errorf("%v", n)
	}
}

// TestSeals: the fields of all seals stand in front of a message, the last one's on top. A
// seal that fails or panics keeps it back, and is logged once.
func TestSeals(t *testing.T) {
	fault := error(nil)
	sealing := func(field string) plugin.Factory {
		return func(plugin.Env) (plugin.Plugin, error) {
			return plugin.Hooks(func(h plugin.Host) {
				h.Seal("sign", func(context.Context, hook.Outgoing) ([]byte, error) {
					if fault == errPanic {
						panic("broken")
					}
					return []byte(field + ": x\r\n"), fault
				})
			}), nil
		}
	}
	var r plugin.Registry
	r.Register("one", sealing("One"))
	r.Register("two", sealing("Two"))
	core, log := observer.New(zap.InfoLevel)
	set, err := (&plugin.Loader{Registry: &r, Services: plugin.Services{Log: zap.New(core)}}).Load(&plugin.Config{
		Settings: plugin.Settings{Listed: []plugin.Listed{{Name: "one", As: "one"}, {Name: "two", As: "two"}}},
	})
	if err != nil || fmt.Sprint(set.Seals()) != "[[one sign] [two sign]]" {
		t.Fatal(set.Seals(), err)
	}
	tx := &hook.Transaction{}
	seal := func() (string, error) {
		fields, err := set.Seal(t.Context(), tx.View().Outgoing())
		return string(fields), err
	}
	for _, step := range []struct {
		fault, want error
		lines       int // of the log by then
	}{
		{nil, nil, 0}, {errNoKey, errNoKey, 1}, {errNoKey, errNoKey, 1}, {errPanic, nil, 2}, {errNoKey, errNoKey, 3}, {nil, nil, 4},
	} {
		fault = step.fault
		fields, err := seal()
		r := (*reply.Reply)(nil)
		switch {
		case step.fault == nil && (err != nil || fields != "Two: x\r\nOne: x\r\n"):
			t.Errorf("%q, %v", fields, err)
		case step.fault != nil && (fields != "" || !errors.As(err, &r) || !r.Temporary() || step.want != nil && r.Cause != step.want):
			t.Errorf("with %v: %q, %v", step.fault, fields, err)
		}
		if log.Len() != step.lines {
			t.Errorf("with %v: %d lines, want %d", step.fault, log.Len(), step.lines)
		}
	}
}

var errNoKey, errPanic = errors.New("no key"), errors.New("panics")
