// Package plugin turns the lines of config/plugins into plugins and their
// handlers in the hook chain.
//
// A plugin is a folder below this one: its code, its settings, a README in the form
// of a manual page, its tests. Its Factory, New, is known under the plugin's Haraka
// name; it gets everything it needs through an Env and imports no role: no listener,
// no queue. A plugin has a life:
//
//	New(env)     reads the settings and makes the plugin. It is pure: it opens
//	             nothing, starts nothing and waits for nothing, so that a check of
//	             the configuration can run it.
//	Register(h)  names the handlers, for each hook chain that the plugin is part of.
//	Start(ctx)   optional (Starter): opens files and connections, starts goroutines.
//	Reload(env)  optional (Reloader): takes new settings over while the daemon runs.
//	             A plugin without it is replaced by a new instance.
//	Close()      optional (io.Closer): ends what Start began.
//
// A Loader finds the plugin of a name, and makes a Set of those that are listed: one
// generation. There is no global registry: plugin/all adds the built-in plugins to a
// Registry that its caller owns.
package plugin

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/redis"
	"tarishi/internal/result"
	"tarishi/internal/route"
	"tarishi/internal/tlsconf"
)

// Plugin is one instance of a plugin. It may also be a Starter, a Reloader or an
// io.Closer.
type Plugin interface {
	// Register names the plugin's handlers. It is called after New and after each
	// Reload, from one goroutine at a time.
	Register(h Host)
}

// Hooks is a Plugin that is nothing but its handlers.
type Hooks func(h Host)

// Register implements Plugin.
func (f Hooks) Register(h Host) { f(h) }

// Starter is a Plugin with something to open or to run.
type Starter interface {
	// Start is called once, before the first handler runs. ctx ends just before the
	// plugin is closed, also if Start has failed. An error stops the start of the
	// daemon, or keeps the generation before.
	Start(ctx context.Context) error
}

// Reloader is a Plugin that goes on with new settings: one with connections or a
// memory that a new instance would lose.
type Reloader interface {
	// Reload looks at the new settings and changes nothing. If they are good it
	// returns a function that puts them in force, for handlers that run too, and
	// cannot fail; it is called when the whole new generation is good. HTTP
	// handlers are given to the Mux of env anew.
	Reload(env Env) (swap func(), err error)
}

// Factory makes one plugin: see the package comment. An error stops the start of the
// daemon.
type Factory func(env Env) (Plugin, error)

// Shared are settings that plugins share with the rest of the daemon.
type Shared struct {
	Me     string // this host's name
	Routes *route.Settings
	TLS    *tlsconf.Settings
	Redis  *redis.Settings // nil: no server is named
}

// Config is what a generation of plugins is made from.
type Config struct {
	Dir string // the instance; "": there is none, and no files of plugins
	Settings
	Shared
	Own map[string]ini.Declarer // what plugins declared, by their names
}

// Env is what one plugin may use. No field is nil but those that say so; what needs a
// running daemon is not for use in New.
type Env struct {
	Shared
	Settings ini.Declarer // what the plugin declared, as it was read; nil: it declared nothing
	Log      *zap.Logger  // named after the plugin
	// Results is what results.ini says of the plugin: see NewRecorder.
	Results result.Format

	Resolver  Resolver  // nil: nothing can be looked up
	Forwarder Forwarder // nil: nothing can be relayed in session
	Submitter Submitter // nil: no mail can be sent; not for use in New
	Store     Store     // the plugin's own part of it; not for use in New
	Mux       Mux
	Metrics   Metrics
	// Title sets the title of the process, for one goroutine at a time. nil: it
	// cannot be set.
	Title func(string)
}

// Resolver asks the DNS. Its errors are those of package dns.
type Resolver interface {
	MX(ctx context.Context, domain string) ([]dns.MX, error)
	Addrs(ctx context.Context, host string) ([]netip.Addr, error)
	IPv4(ctx context.Context, name string) ([]netip.Addr, error)
	PTR(ctx context.Context, addr netip.Addr) ([]string, error)
	TXT(ctx context.Context, name string) ([]string, error)
}

// Forwarder relays a message to the hosts of a route while its client waits,
// and answers as a handler of queue does: OK when the message has left our
// hands, DenySoft or Deny with the reply for the client.
type Forwarder interface {
	Forward(ctx context.Context, c hook.ConnectionView, t hook.TransactionView, r *route.Route) hook.Verdict
	// Queue takes the message into the outbound queue instead: the hook get_mx
	// says where it goes. OK when it is durable there.
	Queue(ctx context.Context, c hook.ConnectionView, t hook.TransactionView) hook.Verdict
}

// Submitter sends a message that a plugin makes, through the outbound queue.
type Submitter interface {
	// Submit runs pre_send_trans_email and returns the message's ID when it is
	// durable in the queue, not when it is delivered: the hooks delivered and
	// bounce report that. The error is a *reply.Reply: class 5 for what would
	// never be taken, class 4 for what may be later. Nothing is in the queue then.
	Submit(ctx context.Context, s hook.Submission) (mail.ID, error)
}

// Store is what a plugin remembers across restarts, by key. Values are copied in
// and out. A crash may cost the writes of the last ten seconds. The errors are
// those of package kv.
type Store interface {
	// Get returns the value of a key; ok is false if there is none.
	Get(key string) (value []byte, ok bool, err error)
	// Put sets the value of a key, for as long as lifetime says; 0 is for ever.
	Put(key string, value []byte, lifetime time.Duration) error
	Delete(key string) error
	// Update replaces a value by what change makes of it, with no other write in
	// between; keep=false deletes the key. change must not block.
	Update(key string, change func(old []byte, ok bool) (value []byte, lifetime time.Duration, keep bool)) error
	// Range visits the keys that begin with prefix until visit returns false.
	Range(prefix string, visit func(key string, value []byte) bool) error
}

// Mux takes HTTP handlers.
type Mux interface {
	// Handle adds a handler below /plugins/NAME. pattern is that of http.ServeMux
	// without a host: "GET /list" is GET /plugins/NAME/list.
	Handle(pattern string, h http.Handler)
}

// Metrics makes figures of the plugin; their names begin with tarishi_plugin_NAME_. A
// name that is asked for again, by a new instance too, is the same figure.
type Metrics interface {
	Counter(name, help string, labels ...string) Counter
	// Gauge has read called whenever somebody reads the metrics, and from the moment on at
	// which the plugin's generation is in force. It may be called after Close, until a newer
	// instance gives another.
	Gauge(name, help string, read func() float64)
}

// Counter is a figure that grows.
type Counter interface {
	// Add adds n, to the series with these values of the labels.
	Add(n float64, values ...string)
}

// Host is where a plugin registers its handlers.
type Host interface {
	// On adds a handler at a point. function is its name in logs and
	// listings; a lower priority (-100 to 100, usually 0) runs earlier.
	On(p hook.Point, function string, priority int, h hook.Handler)
	// Seal adds a signature; function is as in On. A message that leaves in our name is
	// passed to s when its bytes are final: behind all hooks that may change it, and just
	// before it is stored or relayed.
	Seal(function string, s Seal)
	// Timeout sets the plugin's own default for each of its handlers instead
	// of config/plugin_timeout; 0 is none. config/NAME.timeout wins over it. A
	// plugin with handlers that neither wait nor compute for long sets 0: they
	// then run without a separate goroutine.
	Timeout(d time.Duration)
}

// Registry knows the built-in plugins by name. The zero value is empty and ready to
// use.
type Registry struct {
	factories map[string]Factory
	declared  map[string]func() ini.Declarer
}

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

// Declare adds the settings of a plugin, which its Factory gets as Env.Settings:
// settings makes those of one generation.
func (r *Registry) Declare(name string, settings func() ini.Declarer) {
	if r.declared == nil {
		r.declared = make(map[string]func() ini.Declarer)
	}
	r.declared[name] = settings
}

// Declared returns new settings of every plugin that has some, by name.
func (r *Registry) Declared() map[string]ini.Declarer {
	all := make(map[string]ini.Declarer, len(r.declared))
	for name, settings := range r.declared {
		all[name] = settings()
	}
	return all
}

// Names returns the names of all known plugins in alphabetical order.
func (r *Registry) Names() []string { return slices.Sorted(maps.Keys(r.factories)) }
