// Package plugin turns the lines of config/plugins into the handlers of the
// hook chain.
//
// A plugin is a Factory under its Haraka name, in a folder of its own below
// this one, with its tests and a README in the form of a manual page. It gets
// everything it needs through Services, registers its handlers with Host.On
// while the Factory runs, and imports no role: no listener, no queue. A Factory
// opens nothing and starts nothing.
//
// There is no global registry: plugin/all adds the built-in plugins to a
// Registry that its caller owns.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
)

// Services is what plugins may use.
type Services struct {
	Config    *conf.Config
	Log       *zap.Logger // named after the plugin when a Factory gets it
	Resolver  Resolver
	Forwarder Forwarder // nil: nothing can be relayed in session
	Submitter Submitter // nil: no mail can be sent; not for use in a Factory
	// Title sets the title of the process, for one goroutine at a time. nil: it
	// cannot be set.
	Title func(string)
}

// Resolver asks the DNS. Its errors are those of package dns.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	TXT(ctx context.Context, name string) ([]string, error)
}

// Forwarder relays a message to the hosts of a route while its client waits,
// and answers as a handler of queue does: OK when the message has left our
// hands, DenySoft or Deny with the reply for the client.
type Forwarder interface {
	Forward(ctx context.Context, c *hook.Connection, t *hook.Transaction, r *conf.ForwardRoute) hook.Verdict
	// Queue takes the message into the outbound queue instead: the hook get_mx
	// says where it goes. OK when it is durable there.
	Queue(ctx context.Context, t *hook.Transaction) hook.Verdict
}

// Submitter sends a message that a plugin makes, through the outbound queue.
type Submitter interface {
	// Submit runs pre_send_trans_email and returns the message's ID when it is
	// durable in the queue, not when it is delivered: hooks delivered and bounce
	// tell of that. The error is a *reply.Reply: class 5 for what would never be
	// taken, class 4 for what may be later. Nothing is in the queue then.
	Submit(ctx context.Context, s hook.Submission) (mail.ID, error)
}

// Host is where a plugin registers its handlers.
type Host interface {
	// On adds a handler at a point. function is its name in logs and
	// listings; a lower priority (-100 to 100, usually 0) runs earlier.
	On(p hook.Point, function string, priority int, h hook.Handler)
	// Timeout sets the plugin's own default for each of its handlers instead
	// of config/plugin_timeout; 0 is none. config/NAME.timeout wins over it. A
	// plugin whose handlers neither wait nor compute for long sets 0: they then
	// run without a goroutine of their own.
	Timeout(d time.Duration)
}

// Factory makes one plugin. An error stops the start of the daemon.
type Factory func(s Services, h Host) error

// Registry knows plugins by name. The zero value is empty and ready to use.
type Registry struct{ factories map[string]Factory }

// Register adds a plugin. It panics when the name is taken or f is nil.
func (r *Registry) Register(name string, f Factory) {
	if _, taken := r.factories[name]; taken || f == nil || name == "" {
		panic("plugin: " + name + " registered twice, or without a name or a factory")
	}
	if r.factories == nil {
		r.factories = make(map[string]Factory)
	}
	r.factories[name] = f
}

// Names returns the names of all known plugins in alphabetical order.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.factories)) }

// Build makes the plugins that c.Plugins lists and returns their handlers in
// that order, as hook.NewChain wants them. A plugin that is listed twice is
// made twice, with a warning. The error names every line that could not be
// served, with the file and line that it stands on.
func (r *Registry) Build(c *conf.Config, s Services) ([]hook.Registration, error) {
	if s.Config == nil {
		s.Config = c
	}
	var (
		all      []hook.Registration
		problems []error
		lines    = make(map[string]int, len(c.Plugins))
	)
	for _, p := range c.Plugins {
		f := r.factories[p.Name]
		if f == nil {
			problems = append(problems, r.unknown(p))
			continue
		}
		if first, again := lines[p.Name]; again {
			s.Log.Warn("plugin is listed twice: each of its hooks will run twice", zap.String("plugin", p.Name),
				zap.String("file", p.File), zap.Int("line", p.Line), zap.Int("first", first))
		} else {
			lines[p.Name] = p.Line
		}
		h := host{plugin: p.Name, timeout: c.PluginTimeout}
		own := s
		own.Log = s.Log.Named(p.Name)
		if err := f(own, &h); err != nil {
			problems = append(problems, fmt.Errorf("%s:%d: plugin %s: %w", p.File, p.Line, p.Name, err))
			continue
		}
		if d, set := c.PluginTimeouts[p.Name]; set {
			h.timeout = d
		}
		for _, reg := range h.regs {
			if !slices.Contains(hook.Points(), reg.Point) {
				problems = append(problems, fmt.Errorf("%s:%d: plugin %s: there is no hook %s", p.File, p.Line, p.Name, reg.Point))
			}
			reg.Timeout = h.timeout
			all = append(all, reg)
		}
	}
	return all, errors.Join(problems...)
}

// unknown says that there is no plugin of a name, and what to do instead.
func (r *Registry) unknown(p conf.PluginName) error {
	problem := conf.Problem{File: p.File, Line: p.Line, Text: "there is no plugin " + p.As}
	if advice := conf.PluginAdvice(p.Name); advice != "" {
		if p.As != p.Name {
			problem.Text = fmt.Sprintf("there is no plugin %s (%s)", p.Name, p.As)
		}
		problem.Text += ": " + advice
	} else {
		problem.Nearest = r.nearest(p.Name)
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
	if near := conf.Nearest(base, beside); near != "" {
		return folder + near
	}
	return ""
}

// host collects what one plugin registers.
type host struct {
	plugin  string
	timeout time.Duration
	regs    []hook.Registration
}

func (h *host) On(p hook.Point, function string, priority int, f hook.Handler) {
	h.regs = append(h.regs, hook.Registration{Point: p, Plugin: h.plugin, Function: function, Priority: priority, Handler: f})
}

func (h *host) Timeout(d time.Duration) { h.timeout = d }
