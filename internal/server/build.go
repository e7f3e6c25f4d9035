package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/delivery"
	"tarishi/internal/dns"
	"tarishi/internal/forward"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/intake"
	"tarishi/internal/kv"
	"tarishi/internal/listener"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/metrics"
	"tarishi/internal/mtasts"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/all"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/session"
	"tarishi/internal/store"
	"tarishi/internal/store/disk"
	"tarishi/internal/tlsconf"
	"tarishi/internal/vfs"
	"tarishi/internal/web"
)

// unsafeNoSync is the environment variable that turns durability off, to measure
// what it costs. It is no setting: nobody should find it in a configuration.
const unsafeNoSync = "TARISHI_UNSAFE_NOSYNC"

// New builds the daemon: it opens the queue and binds the addresses, but serves
// nobody before Run. Its errors are one line each and name the file, address or
// folder that is at fault.
func New(cfg *conf.Config, o Options) (*Server, error) {
	level, err := maillog.ParseLevel(cfg.Log.Level)
	if err != nil {
		return nil, err
	}
	log := zap.New(maillog.NewCore(cfg.Log.Format, cfg.Log.Timestamps, level, o.Log))
	counts := metrics.New(o.Version)
	events := maillog.New(log, counts)
	s := &Server{cfg: cfg, o: o, log: log, notice: Notices(cfg, o.Log), metrics: counts}

	// First what lives in memory only, so that a bad configuration ends the
	// start before anything is opened.
	user, err := identify(&cfg.Instance)
	if err != nil {
		return nil, err
	}
	if err := cmp.Or(user.possible(), advise(owned(cfg.QueueDir, user.user()))); err != nil {
		return nil, err
	}
	s.files = tlsconf.New(log.Named("tls"))
	certificates, err := serverTLS(cfg, s.files)
	if err != nil {
		return nil, err
	}
	nextHops, err := s.files.Client(cfg.TLS.Outbound)
	if err != nil {
		return nil, err
	}
	relay, err := s.files.Client(cfg.Forward.TLS)
	if err != nil {
		return nil, err
	}
	backends := func() *tls.Config { return relay.Config(true) }
	resolver, err := dns.New(cfg.DNS)
	if err != nil {
		return nil, err
	}
	s.pool = pool.New(pool.Options{Log: log.Named("pool")})
	rest := &leftover{}
	s.relay = delivery.NewRelay(delivery.RelayOptions{
		Me: cfg.Me, Conf: &cfg.Forward, TLSConfig: backends, Resolver: resolver, Sender: s.pool, Log: log.Named("forward"),
	})
	forwarder := forward.New(forward.Options{
		Relay: s.relay, ReplyCodes: cfg.Forward.ReplyCodes, Reporter: rest, Requeuer: rest, Mail: events, Log: log.Named("forward"),
	})
	s.memory = kv.New(kv.Options{Path: filepath.Join(cfg.QueueDir, "plugins.db"), MaxBytes: maxRemembered, Log: log.Named("plugins")})
	s.plugins, err = loadPlugins(cfg, plugin.Services{
		Log: log, Resolver: resolver, Forwarder: forwarder, Submitter: rest, Title: o.Title,
		Store:   func(name string) plugin.Store { return s.memory.Bucket(name) },
		Metrics: counts.Plugin,
	})
	if err != nil {
		return nil, err
	}
	s.chain = hook.NewChain(s.plugins.Registrations(), log.Named("plugins"))
	// Bind before the queue is opened: a second daemon on one instance then
	// fails on whichever it meets first, and touches nothing.
	s.listener, err = listener.Listen(listener.Options{
		Settings: cfg.Listener, Me: cfg.Me, Mail: events, Log: log.Named("listener"),
	})
	if err != nil {
		return nil, err
	}
	s.web = web.New(web.Options{Log: log.Named("http")})
	s.web.Handle(web.Anyone, "GET /metrics", counts.Handler())
	s.web.Handle(web.Anyone, "GET /health", metrics.Health(s.healthy, s.Notes))
	s.http, err = s.web.Bind(cfg.HTTP.Listen)
	if err == nil && len(cfg.HTTP.TLSListen) > 0 {
		err = s.http.BindTLS(cfg.HTTP.TLSListen, certificates)
	}
	if err != nil {
		s.listener.Close()
		return nil, err
	}
	noSync := os.Getenv(unsafeNoSync) != ""
	if noSync {
		log.Error("UNSAFE: nothing is synced to disk, a crash of the system loses accepted mail", zap.String("variable", unsafeNoSync))
	}
	if err := s.changeUser(user); err != nil {
		s.listener.Close()
		s.http.Close()
		return nil, err
	}
	s.queue, err = disk.Open(disk.Options{Dir: cfg.QueueDir, LargeBody: max(1, cfg.Queue.SpoolAfter), MinFree: cfg.Queue.MinFree.Floor, NoSync: noSync, Synced: counts.Synced, Log: log.Named("queue")})
	if err != nil {
		s.listener.Close()
		s.http.Close()
		return nil, err
	}
	if err := s.assemble(events, certificates, nextHops.Config, backends, resolver); err != nil {
		s.listener.Close()
		s.http.Close()
		s.queue.Close()
		return nil, err
	}
	rest.queue, rest.outbound = s.queue, s.outbound
	return s, nil
}

// assemble builds what works on the open queue.
func (s *Server) assemble(events *maillog.Log, certificates *tls.Config, nextHops func(bool) *tls.Config, backends func() *tls.Config, resolver *dns.Resolver) (err error) {
	cfg, log, chain := s.cfg, s.log, s.chain
	s.outbound = outbound.New(outbound.Options{
		Settings: cfg.Outbound, Me: cfg.Me, TLS: cfg.TLS.Outbound, TLSConfig: nextHops, BackendTLS: backends,
		DANE: cfg.TLS.DANE && cfg.DNS.DNSSEC, STS: s.policies(resolver),
		Disabled: s.disabled(), Grace: grace(cfg), ReplyGrace: cfg.ShutdownReplyTimeout,
		Templates: cfg.Bounce,
		Queue:     s.queue, Resolver: resolver, Pool: s.pool, Chain: chain, Mail: events, Log: log.Named("outbound"),
	})
	receive := intake.New(intake.Options{
		Me: cfg.Me, ReceivedHeader: cfg.Outbound.ReceivedHeader, Queue: s.queue, Dispatcher: s.outbound, Chain: chain,
		Mail: events, Log: log.Named("intake"), Now: time.Now,
	})
	s.sessions = session.NewServer(session.Options{
		Conversation: session.Conversation{
			Settings: cfg.Session, Me: cfg.Me, TLSConfig: certificates, SubmissionPorts: []int{587, 465},
			Chain: chain, Intake: received{receive, s.queue}, Resolver: resolver,
		},
		Version: s.o.Version, Mail: events, Log: log.Named("session"),
	})
	mails := mailq.New(s.queue, s.outbound, log.Named("queue"))
	mails.Watch(s)
	s.web.Handle(web.Operator, "/v1/", control.NewHandler(mails.Operations(), log.Named("control")))
	s.web.Handle(web.Operator, "/plugins/", s.plugins.Handler())
	if s.control, err = s.web.Listen(cfg.QueueDir); err != nil {
		return err
	}
	s.metrics.Watch(metrics.Sources{
		Queue: s.queue, Outbound: s.outbound, Pool: s.pool, Hooks: chain, Sessions: s.sessions, Listener: s.listener, Log: s.o.Log, Destinations: cfg.Metrics.Destinations,
		Free: func() (vfs.Space, error) { return vfs.OS{}.Free(cfg.QueueDir) }, Now: time.Now,
	})
	return nil
}

// Notices returns a logger in the format of the configuration for what an
// administrator is to see whatever the level of the log is: the problems of the
// configuration, where the daemon listens, and why it ended.
func Notices(cfg *conf.Config, w *maillog.Writer) *zap.Logger {
	return zap.New(maillog.NewCore(cfg.Log.Format, cfg.Log.Timestamps, zap.InfoLevel, w))
}

// healthy tells why no message can be accepted, or which messages cannot be read
// and so are not delivered. It is for after New.
func (s *Server) healthy() error {
	if s.Stopping() {
		return errors.New("stopping")
	}
	return cmp.Or(s.queue.Healthy(), s.queue.Unreadable().Err())
}

// policies returns the MTA-STS policies of domains, nil if they are not wanted.
func (s *Server) policies(resolver *dns.Resolver) nexthop.Policies {
	if !s.cfg.TLS.MTASTS || !s.cfg.Outbound.EnableTLS {
		return nil
	}
	s.sts = mtasts.New(mtasts.Options{Resolver: resolver, Dir: filepath.Join(s.cfg.QueueDir, "sts"), Log: s.log.Named("mtasts")})
	return s.sts
}

// disabled tells whether delivery is disabled, and logs when that changes.
func (s *Server) disabled() func() bool {
	log := s.log.Named("outbound")
	follow := s.cfg.FollowDisabled(time.Now, func(p ini.Problem) { log.Error("disabled stays as it is", zap.String("problem", p.String())) })
	var was atomic.Bool
	return func() bool {
		on := follow.On()
		if was.Swap(on) != on {
			log.Info("delivery", zap.Bool("disabled", on))
		}
		return on
	}
}

// received is what session wants of intake and queue together.
type received struct {
	*intake.Intake
	queue store.Store
}

func (r received) NewBody() session.Body { return r.queue.NewBody() }

// leftover is how what is built first reaches queue and outbound: recipients
// that a backend deferred go into the queue, a DSN tells of those that it
// refused, and plugins submit messages. New sets its fields before anything runs.
type leftover struct {
	queue    store.Store
	outbound *outbound.Outbound
}

// Requeue implements forward.Requeuer.
func (l *leftover) Requeue(_ context.Context, env *mail.Envelope, c mail.Content, why []*reply.Reply) error {
	if err := l.queue.Put(env, c); err != nil {
		return err
	}
	if p := mail.NewPending(env, c.Size()); why == nil {
		l.outbound.Enqueue(p)
	} else {
		l.outbound.EnqueueDeferred(p, why)
	}
	return nil
}

// Report implements forward.Reporter.
func (l *leftover) Report(_ context.Context, env *mail.Envelope, c mail.Content, failed []hook.RecipientResult) error {
	return l.outbound.Report(env, c, failed)
}

// Confirm implements forward.Reporter.
func (l *leftover) Confirm(_ context.Context, env *mail.Envelope, c mail.Content, action string, taken []hook.RecipientResult) error {
	return l.outbound.Confirm(env, c, action, taken)
}

// Submit implements plugin.Submitter.
func (l *leftover) Submit(ctx context.Context, m hook.Submission) (mail.ID, error) {
	return l.outbound.Submit(ctx, m)
}

// grace is how long a stop waits for work in progress.
func grace(cfg *conf.Config) time.Duration {
	if !cfg.GracefulShutdown {
		return 0
	}
	return cfg.ForceShutdownTimeout
}

// serverTLS loads the certificates; nil when there are none.
func serverTLS(cfg *conf.Config, files *tlsconf.Files) (*tls.Config, error) {
	if len(cfg.TLS.Key) == 0 || len(cfg.TLS.Cert) == 0 {
		if len(cfg.HTTP.TLSListen) > 0 {
			return nil, errors.New("config/http.ini: tls_listen is set, but config/tls.ini names no certificate")
		}
		for _, a := range cfg.Listener.Addrs {
			if _, port, _ := net.SplitHostPort(a); port == strconv.Itoa(cfg.Listener.SMTPSPort) {
				return nil, fmt.Errorf("config/smtp.ini: %s has the smtps_port, but config/tls.ini names no certificate", a)
			}
		}
		return nil, nil
	}
	return files.Server(cfg.TLS.Key, cfg.TLS.Cert, cfg.TLS.MinVersion, cfg.TLS.Ciphers)
}

// maxRemembered bounds what plugins remember on the disk, in bytes.
const maxRemembered = 256 << 20

// loadPlugins makes the plugins of the configuration and starts none.
func loadPlugins(cfg *conf.Config, services plugin.Services) (*plugin.Set, error) {
	var r plugin.Registry
	all.Register(&r)
	return (&plugin.Loader{Registry: &r, Services: services}).Load(&plugin.Config{
		Dir: cfg.Dir, Settings: cfg.Plugins, Shared: plugin.Shared{Me: cfg.Me, Routes: &cfg.Forward, TLS: &cfg.TLS}, Own: cfg.Own,
	})
}

// Check builds what can be built without touching queue or network: the user to
// run as, plugins and certificates. The error is what New would fail with; the warnings are of
// certificates that expire.
func Check(cfg *conf.Config) (ini.Problems, error) {
	if _, err := identify(&cfg.Instance); err != nil {
		return nil, err
	}
	if _, err := loadPlugins(cfg, plugin.Services{Log: zap.NewNop()}); err != nil {
		return nil, err
	}
	files := tlsconf.New(nil)
	if _, err := serverTLS(cfg, files); err != nil && !errors.Is(err, fs.ErrNotExist) { // conf tells of missing files, with their lines
		return nil, err
	}
	for _, out := range []tlsconf.Outbound{cfg.TLS.Outbound, cfg.Forward.TLS} {
		if _, err := files.Client(out); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return files.Expiring(time.Now()), nil
}

// PrintHooks writes for each hook the handlers that run, in order.
func PrintHooks(w io.Writer, cfg *conf.Config) error {
	set, err := loadPlugins(cfg, plugin.Services{Log: zap.NewNop()})
	if err != nil {
		return err
	}
	chain := hook.NewChain(set.Registrations(), zap.NewNop())
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "HOOK\tPLUGIN\tFUNCTION\tPRIORITY\tTIMEOUT")
	for _, p := range hook.Points() {
		for _, reg := range chain.Order(p) {
			timeout := "none"
			if reg.Timeout > 0 {
				timeout = reg.Timeout.String()
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", p, reg.Plugin, reg.Function, reg.Priority, timeout)
		}
	}
	return t.Flush()
}
