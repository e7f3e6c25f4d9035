package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/delivery"
	"tarishi/internal/kv"
	"tarishi/internal/listener"
	"tarishi/internal/maillog"
	"tarishi/internal/metrics"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/privilege"
	"tarishi/internal/session"
	"tarishi/internal/store/disk"
	"tarishi/internal/vfs"
	"tarishi/internal/web"
)

// unsafeNoSync is the environment variable that turns durability off, to measure
// its cost. It is no setting: nobody should find it in a configuration.
const unsafeNoSync = "TARISHI_UNSAFE_NOSYNC"

// maxRemembered bounds what plugins remember on the disk, in bytes.
const maxRemembered = 256 << 20

// New builds the daemon: it opens the queue and binds the addresses, but serves
// nobody before Run. Its errors are one line each and name the file, address or
// folder that is at fault.
func New(cfg *conf.Config, o Options) (*Server, error) {
	b := &builder{Server: newServer(cfg, o), first: &generation{cfg: cfg}}

	// First what lives in memory only, so that a bad configuration ends the start
	// before anything is opened. Addresses are bound before the queue is opened: a
	// second daemon on one instance then fails on whichever it meets first, and
	// touches nothing.
	for _, step := range []func() error{
		b.findUser, b.makeGeneration, b.loadPlugins, b.bindMail, b.bindHTTP, b.changeUser, b.openQueue, b.assemble, b.serveControl,
	} {
		if err := step(); err != nil {
			b.undo()
			return nil, err
		}
	}
	return b.Server, nil
}

// newServer makes what cannot fail and needs nothing.
func newServer(cfg *conf.Config, o Options) *Server {
	s := &Server{
		o: o, logCore: maillog.NewCore(cfg.Log, o.Log), notices: maillog.NewCore(noticeSettings(cfg), o.Log),
		metrics: metrics.New(o.Version), late: &late{}, hooks: &failures{},
	}
	s.log, s.notice = zap.New(s.logCore), zap.New(s.notices)
	s.events = maillog.New(s.log, s.metrics)
	s.pool = pool.New(pool.Options{Log: s.log.Named("pool")})
	s.ending, s.endRetiring = context.WithCancel(context.Background())
	return s
}

// builder is a Server in the making.
type builder struct {
	*Server
	user   *privilege.Identity
	first  *generation
	opened []func() // gives up what was opened, the last one first
}

// undo gives up what was opened.
func (b *builder) undo() {
	for _, closeIt := range slices.Backward(b.opened) {
		closeIt()
	}
}

// findUser finds the user to run as, and fails if it cannot be or does not own the queue.
func (b *builder) findUser() (err error) {
	cfg := b.first.cfg
	if b.user, err = privilege.Find(cfg.User, cfg.Group); err != nil {
		return err
	}
	return cmp.Or(b.user.Possible(), privilege.Advise(privilege.CheckOwner(cfg.QueueDir, b.user.UID())))
}

// makeGeneration makes what comes from the settings alone, and the relay, which plugins
// need.
func (b *builder) makeGeneration() (err error) {
	cfg := b.first.cfg
	if b.first, err = b.newGeneration(cfg, nil); err != nil {
		return err
	}

	// Plugins get these. Their settings follow by a method Use, or stand in the routes.
	b.relay = delivery.NewRelay(delivery.RelayOptions{
		RelayGeneration: b.first.relaying(), Sender: b.pool, Log: b.log.Named("forward"),
	})
	b.memory = kv.New(kv.Options{Path: filepath.Join(cfg.QueueDir, "plugins.db"), MaxBytes: maxRemembered, Log: b.log.Named("plugins")})
	return nil
}

// loadPlugins makes the plugins and starts none.
func (b *builder) loadPlugins() (err error) {
	b.first.plugins, err = b.loader(b.first).Load(pluginConfig(b.first.cfg))
	if err == nil {
		b.newChain(b.first)
		b.current.Store(b.first)
	}
	return err
}

// bindMail binds the addresses for mail.
func (b *builder) bindMail() (err error) {
	b.listener, err = listener.Listen(listener.Options{
		Settings: b.first.cfg.Listener, Me: b.first.cfg.Me, Mail: b.events, Log: b.log.Named("listener"),
	})
	if err == nil {
		b.opened = append(b.opened, func() { b.listener.Close() })
	}
	return err
}

// bindHTTP binds the addresses of http.ini.
func (b *builder) bindHTTP() (err error) {
	b.web = web.New(web.Options{Log: b.log.Named("http")})
	b.web.Handle(web.Anyone, "GET /metrics", b.metrics.Handler())
	b.web.Handle(web.Anyone, "GET /health", metrics.Health(b.healthy, b.Notes))
	b.http, err = b.web.Bind(b.first.cfg.HTTP, func() *tls.Config { return b.Server.current.Load().secrets.toClients() })
	if err == nil {
		b.opened = append(b.opened, b.http.Close)
	}
	return err
}

// changeUser gives up root's rights.
func (b *builder) changeUser() error { return b.user.Become(b.first.cfg.QueueDir, b.log) }

// openQueue opens the queue, which recovers what an earlier run left.
func (b *builder) openQueue() (err error) {
	noSync := os.Getenv(unsafeNoSync) != ""
	if noSync {
		b.log.Error("UNSAFE: nothing is synced to disk, a crash of the system loses accepted mail", zap.String("variable", unsafeNoSync))
	}
	b.queue, err = disk.Open(disk.Options{Dir: b.first.cfg.QueueDir, NoSync: noSync, Synced: b.metrics.Synced, Log: b.log.Named("queue")})
	if err != nil {
		return err
	}

	// Nothing was accepted or spilled yet by other limits.
	b.queue.Use(b.first.cfg.Queue)
	b.opened = append(b.opened, func() { b.queue.Close() })
	return nil
}

// assemble builds what works on the open queue.
func (b *builder) assemble() error {
	b.outbound = outbound.New(outbound.Options{
		Generation: b.delivering(b.first), Queue: b.queue, Pool: b.pool, Mail: b.events, Log: b.log.Named("outbound"),
	})
	b.sessions = session.NewServer(session.Options{
		Conversation: b.conversation(b.first), Version: b.o.Version, Mail: b.events, Log: b.log.Named("session"),
	})
	b.late.queue, b.late.outbound = b.queue, b.outbound
	return nil
}

// serveControl makes the control socket, and tells metrics what to read.
func (b *builder) serveControl() (err error) {
	s, cfg := b.Server, b.first.cfg
	if cfg.Dir != "" {
		s.live = conf.NewLive(conf.LiveOptions{Config: cfg, Own: declared, Owner: s, Log: s.log.Named("config")})
	}

	// The control socket answers operators alone: it is in the queue's folder,
	// and the lock of that is held.
	mails := mailq.New(s.queue, s.outbound, s.log.Named("queue"))
	mails.Watch(s)
	s.web.Handle(web.Operator, "/v1/", control.NewHandler(mails.Operations(), s.log.Named("control")))
	s.web.Handle(web.Operator, "/plugins/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.current.Load().plugins.Handler().ServeHTTP(w, r)
	}))
	if s.control, err = s.web.Listen(cfg.QueueDir); err != nil {
		return err
	}

	// Figures of settings that a reload changes are functions.
	s.metrics.Watch(metrics.Sources{
		Queue: s.queue, Outbound: s.outbound, Pool: s.pool, Hooks: s.hooks, Sessions: s.sessions, Listener: s.listener, Log: s.o.Log,
		Reloads: s, Destinations: func() int { return s.current.Load().cfg.Metrics.Destinations },
		Free: func() (vfs.Space, error) { return vfs.OS{}.Free(cfg.QueueDir) }, Now: time.Now,
	})
	return nil
}

// Notices returns a logger in the format of the configuration for what an
// administrator is to see whatever the level of the log is: the problems of the
// configuration, where the daemon listens, and why it ended.
func Notices(cfg *conf.Config, w *maillog.Writer) *zap.Logger {
	return zap.New(maillog.NewCore(noticeSettings(cfg), w))
}

// noticeSettings are those of the log, but for the level.
func noticeSettings(cfg *conf.Config) maillog.Settings {
	settings := cfg.Log
	settings.Level = "info"
	return settings
}

// healthy tells why no message can be accepted, or which messages cannot be read
// and so are not delivered. It is for after New.
func (s *Server) healthy() error {
	if s.Stopping() {
		return errors.New("stopping")
	}
	return cmp.Or(s.queue.Healthy(), s.queue.Unreadable().Err())
}

// grace is how long a stop waits for work in progress.
func grace(cfg *conf.Config) time.Duration {
	if !cfg.GracefulShutdown {
		return 0
	}
	return cfg.ForceShutdownTimeout
}
