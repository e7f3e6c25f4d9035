package plugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/hook"
)

// Set is one generation of plugins: those that config/plugins lists, in that order,
// with their handlers. Its methods are for one goroutine at a time, but for those
// of the handler that Handler returns. A plugin that is in several sets ends with the last
// of them.
type Set struct {
	instances []*instance
	routes    *routes
	held      held // until Commit
	seals     seals
}

// instance is one plugin of a set. One that was reloaded has an instance in several
// sets.
type instance struct {
	listed  Listed
	timeout time.Duration  // of a handler, unless the plugin says otherwise
	limit   *time.Duration // what the administrator says; nil: nothing
	plugin  Plugin
	regs    []hook.Registration
	seals   []seal
	cancel  context.CancelFunc // of what Start got; nil: it has not started, or its set is closed
	users   *atomic.Int32      // started sets that the plugin is in, whose instances share it
	swap    func()             // puts new settings in force; nil: they are, or it is new
}

// failed says which plugin an error is about.
func (i *instance) failed(err error) error {
	return fmt.Errorf("%s:%d: plugin %s: %w", i.listed.File, i.listed.Line, i.listed.Name, err)
}

// Load makes the plugins that c lists. It opens and starts nothing. A plugin that is
// listed twice is made twice, with a warning. The error names every line that could
// not be served, with the file and line that it stands on.
func (l *Loader) Load(c *Config) (*Set, error) {
	next, problems := l.build(c, nil)
	problems = append(problems, next.register())
	next.seals.use(next.instances)
	next.held.release()
	return next, errors.Join(problems...)
}

// Prepare makes the next generation beside the running one and starts it: plugins that
// can take new settings over are in both, the others are made anew. Either Commit puts it
// in force, or its Close ends what is new in it. On an error there is nothing to end. In
// both cases the running one is as it was.
func (l *Loader) Prepare(ctx context.Context, running *Set, c *Config) (*Set, error) {
	next, problems := l.build(c, running)
	if problems = append(problems, next.register()); errors.Join(problems...) != nil {
		return nil, errors.Join(problems...)
	}
	next.seals.use(next.instances)
	if err := next.Start(ctx); err != nil {
		return nil, err
	}
	for _, one := range next.instances {
		if one.swap != nil {
			one.users.Add(1)
		}
	}
	return next, nil
}

// Commit puts the new settings of plugins that were reloaded in force, at once and for
// the connections of the generation before too. That cannot fail: every plugin has looked
// at its settings. Then Registrations is complete.
func (s *Set) Commit() {
	for _, one := range s.instances {
		if one.swap != nil {
			one.swap()
			one.swap = nil
			_ = one.register() // the hooks that a plugin has at all were checked when it was new
		}
	}
	s.seals.use(s.instances)
	s.held.release()
}

// build makes a set without handlers. Plugins of running that can be reloaded are
// asked to prepare for it.
func (l *Loader) build(c *Config, running *Set) (*Set, []error) {
	next := &Set{routes: newRoutes(), seals: seals{log: l.Services.Log}}
	var problems []error
	lines := make(map[string]int, len(c.Listed))
	used := map[*instance]bool{}
	for _, listed := range c.Listed {
		// A bad line does not hide the problems of the others.
		f, err := l.findFactory(c, listed)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		if first, again := lines[listed.Name]; again {
			l.Services.Log.Warn("plugin is listed twice: each of its hooks will run twice", zap.String("plugin", listed.Name),
				zap.String("file", listed.File), zap.Int("line", listed.Line), zap.Int("first", first))
		} else {
			lines[listed.Name] = listed.Line
		}

		// An instance that lives on has the new generation's entry, for its line
		// in config/plugins may be another one.
		one := &instance{listed: listed, timeout: c.Timeout, users: new(atomic.Int32)}
		if limit, set := c.Timeouts[listed.Name]; set {
			one.limit = &limit
		}
		env := l.Services.newEnv(c, listed.Name, next)
		if before := running.reloadable(listed.Name, used); before != nil {
			used[before] = true
			one.plugin, one.cancel, one.users = before.plugin, before.cancel, before.users
			one.swap, err = before.plugin.(Reloader).Reload(env)
		} else {
			one.plugin, err = f(env)
		}
		if err != nil {
			problems = append(problems, one.failed(err))
			continue
		}
		next.instances = append(next.instances, one)
	}
	return next, problems
}

// reloadable returns the first instance of a plugin that can go on with new settings
// and is not used yet; nil: there is none.
func (s *Set) reloadable(name string, used map[*instance]bool) *instance {
	if s == nil {
		return nil
	}
	for _, one := range s.instances {
		if _, can := one.plugin.(Reloader); can && one.listed.Name == name && !used[one] {
			return one
		}
	}
	return nil
}

// register collects the handlers of the plugins that are new.
func (s *Set) register() error {
	var problems []error
	for _, one := range s.instances {
		if one.swap == nil {
			problems = append(problems, one.register())
		}
	}
	return errors.Join(problems...)
}

// register collects the handlers of one plugin.
func (i *instance) register() error {
	h := host{plugin: i.listed.Name, timeout: i.timeout}
	i.plugin.Register(&h)

	// The administrator has the last word on timeouts.
	if i.limit != nil {
		h.timeout = *i.limit
	}
	var problems []error
	for k := range h.regs {
		if !slices.Contains(hook.Points(), h.regs[k].Point) {
			problems = append(problems, i.failed(fmt.Errorf("there is no hook %s", h.regs[k].Point)))
		}
		h.regs[k].Timeout = h.timeout
	}
	i.regs, i.seals = h.regs, h.seals
	return errors.Join(problems...)
}

// Registrations returns the handlers of all plugins in their order, as hook.NewChain
// wants them. Before Commit those that were reloaded have none.
func (s *Set) Registrations() []hook.Registration {
	var all []hook.Registration
	for _, one := range s.instances {
		all = append(all, one.regs...)
	}
	return all
}

// Handler serves what the plugins have given to Env.Mux.
func (s *Set) Handler() http.Handler { return &s.routes.mux }

// Start starts the plugins that have not started, in order. When one fails, those
// that this call has started are closed again, the one that failed included.
func (s *Set) Start(ctx context.Context) error {
	var started []*instance
	for _, one := range s.instances {
		if one.cancel != nil {
			continue
		}
		// A signal to stop ends sessions first, and plugins behind them.
		life, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one.cancel = cancel
		one.users.Add(1)
		started = append(started, one)
		starter, ok := one.plugin.(Starter)
		if !ok {
			continue
		}
		if err := starter.Start(life); err != nil {
			return errors.Join(one.failed(err), closeAll(started))
		}
	}
	return nil
}

// Close ends the plugins that no other set has, the last one first. Sets may be closed in
// any order, and while another one is prepared.
func (s *Set) Close() error { return closeAll(s.instances) }

// closeAll ends plugins that were started and are in no other set, the last one first.
func closeAll(all []*instance) error {
	var problems []error
	for _, one := range slices.Backward(all) {
		if one.cancel == nil {
			continue
		}
		cancel := one.cancel
		one.cancel = nil
		if one.users.Add(-1) > 0 {
			continue
		}
		cancel()
		if closer, ok := one.plugin.(io.Closer); ok {
			if err := closer.Close(); err != nil {
				problems = append(problems, one.failed(err))
			}
		}
	}
	return errors.Join(problems...)
}

// host collects what one plugin registers.
type host struct {
	plugin  string
	timeout time.Duration
	regs    []hook.Registration
	seals   []seal
}

func (h *host) On(p hook.Point, function string, priority int, f hook.Handler) {
	h.regs = append(h.regs, hook.Registration{Point: p, Plugin: h.plugin, Function: function, Priority: priority, Handler: f})
}

func (h *host) Seal(function string, s Seal) {
	h.seals = append(h.seals, seal{plugin: h.plugin, function: function, sign: s})
}

func (h *host) Timeout(d time.Duration) { h.timeout = d }

// routes are the HTTP handlers of a set.
type routes struct {
	mu    sync.Mutex
	known map[string]bool
	mux   http.ServeMux
}

func newRoutes() *routes { return &routes{known: map[string]bool{}} }
