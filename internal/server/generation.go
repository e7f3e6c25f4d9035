package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/delivery"
	"tarishi/internal/dns"
	"tarishi/internal/forward"
	"tarishi/internal/grant"
	"tarishi/internal/hook"
	"tarishi/internal/intake"
	"tarishi/internal/mtasts"
	"tarishi/internal/nexthop"
	"tarishi/internal/outbound"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/all"
	"tarishi/internal/session"
	"tarishi/internal/smtpclient"
	"tarishi/internal/submit"
	"tarishi/internal/tlsconf"
)

// generation is what the daemon makes from one state of its configuration. A
// connection takes the current one when it is accepted, an attempt when it begins.
type generation struct {
	cfg      *conf.Config
	resolver *dns.Resolver // that of the generation before, if dns.ini says the same
	secrets  *secrets      // likewise
	plugins  *plugin.Set
	chain    *hook.Chain
}

// secrets are the certificates and keys of a generation.
type secrets struct {
	files    *tlsconf.Files
	own      *tlsconf.Server // of our ports; nil: there is no certificate
	nextHops *tlsconf.Client // for the hosts of tls.ini [outbound]
	backends *tlsconf.Client // for those of smtp_forward.ini
	follow   *part           // the files; nil before Run
}

// toBackends returns the configuration of a new connection to a host of
// smtp_forward.ini.
func (s *secrets) toBackends() *tls.Config { return s.backends.Config(true) }

// newGeneration makes the parts of a generation that cost nothing to give up, all but
// plugins and chain. before is the one in force, nil at the start. Where both say the same
// it keeps the parts: caches, and configurations that pooled connections were made
// with.
func (s *Server) newGeneration(cfg *conf.Config, before *generation) (*generation, error) {
	g := &generation{cfg: cfg}
	var problems [2]error

	// A new resolver has an empty cache.
	if before != nil && before.cfg.DNS.Equal(&cfg.DNS) {
		g.resolver = before.resolver
	} else {
		g.resolver, problems[0] = dns.New(cfg.DNS)
		if g.resolver != nil {
			g.resolver.Watch(s.logServer)
		}
	}

	// The pool tells connections apart by the pointers of their TLS configurations.
	if before != nil && before.cfg.TLS.SameFiles(&cfg.TLS) && before.cfg.Forward.TLS.SameFiles(&cfg.Forward.TLS) &&
		!before.secrets.files.Changed() {
		g.secrets, problems[1] = before.secrets, needsCertificate(cfg, before.secrets.own)
	} else {
		g.secrets, problems[1] = loadSecrets(cfg, s.log.Named("tls"))
	}
	return g, errors.Join(problems[:]...)
}

// logServer logs that a name server does not answer, or does again: nearly all mail waits for
// the DNS.
func (s *Server) logServer(server string, err error) {
	log := s.log.Named("dns").With(zap.String("server", server))
	if err != nil {
		log.Warn("name server does not answer", zap.Error(err))
		return
	}
	log.Info("name server answers again")
}

// loadSecrets reads the certificates and keys that the configuration names. nil for log:
// nothing is logged.
func loadSecrets(cfg *conf.Config, log *zap.Logger) (*secrets, error) {
	s := &secrets{files: tlsconf.New(log)}
	var problems [3]error
	s.own, problems[0] = serverTLS(cfg, s.files)
	s.nextHops, problems[1] = s.files.Client(cfg.TLS.Outbound)
	s.backends, problems[2] = s.files.Client(cfg.Forward.TLS)
	return s, errors.Join(problems[:]...)
}

// toClients returns the configuration that asks no client for a certificate; nil: there is none
// of ours.
func (s *secrets) toClients() *tls.Config {
	if s.own == nil {
		return nil
	}
	return s.own.Config
}

// ofClients returns what is asked of clients; nil: nothing is.
func (s *secrets) ofClients() *tlsconf.Clients {
	if s.own == nil {
		return nil
	}
	return s.own.Clients
}

// serverTLS loads the certificates; nil when there are none.
func serverTLS(cfg *conf.Config, files *tlsconf.Files) (*tlsconf.Server, error) {
	if (len(cfg.TLS.Key) == 0 || len(cfg.TLS.Cert) == 0) && cfg.TLS.Folder == "" {
		return nil, needsCertificate(cfg, nil)
	}
	return files.Server(&cfg.TLS, cfg.Me)
}

// needsCertificate fails if an address needs a certificate and there is none.
func needsCertificate(cfg *conf.Config, own *tlsconf.Server) error {
	if own != nil {
		return nil
	}
	// Clients would wait for a handshake that cannot happen.
	if len(cfg.HTTP.TLSListen) > 0 {
		return errors.New("config/http.ini: tls_listen is set, but config/tls.ini names no certificate")
	}
	for _, a := range cfg.Listener.Addrs {
		if _, port, _ := net.SplitHostPort(a); port == strconv.Itoa(cfg.Listener.SMTPSPort) {
			return fmt.Errorf("config/smtp.ini: %s has the smtps_port, but config/tls.ini names no certificate", a)
		}
	}
	return nil
}

// Seal implements forward.Seal: what a generation relays its plugins sign.
func (g *generation) Seal(ctx context.Context, m hook.Outgoing) (fields []byte, err error) {
	return g.plugins.Seal(ctx, m)
}

// seal returns what signs messages for the queue; nil: nothing does.
func (g *generation) seal() submit.Seal {
	if len(g.plugins.Seals()) == 0 {
		return nil
	}
	return g
}

// loader returns what makes the plugins of a generation.
func (s *Server) loader(g *generation) *plugin.Loader {
	forwarder := forward.New(forward.Options{
		Seal: g, Relay: s.relay, Reporter: s.late, Requeuer: s.late, Mail: s.events, Log: s.log.Named("forward"),
	})
	return newLoader(plugin.Services{
		Log: s.log, Resolver: g.resolver, Forwarder: forwarder, Submitter: s.late, Title: s.o.Title,
		Store:   func(name string) plugin.Store { return s.memory.Bucket(name) },
		Metrics: s.metrics.Plugin,
	})
}

// newLoader returns a Loader of the built-in plugins.
func newLoader(services plugin.Services) *plugin.Loader {
	var r plugin.Registry
	all.Register(&r)
	return &plugin.Loader{Registry: &r, Services: services}
}

// pluginConfig is what plugins get of a configuration.
func pluginConfig(cfg *conf.Config) *plugin.Config {
	return &plugin.Config{
		Dir: cfg.Dir, Settings: cfg.Plugins, Shared: plugin.Shared{Me: cfg.Me, Routes: &cfg.Forward, TLS: &cfg.TLS, Redis: &cfg.Redis}, Own: cfg.Own,
	}
}

// newChain makes the chain of a generation with complete plugins.
func (s *Server) newChain(g *generation) {
	g.chain = hook.NewChain(g.plugins.Registrations(), s.log.Named("plugins"))
	s.hooks.add(g.chain)
}

// mayServe asks plugins that have just started whether they are able to serve.
func mayServe(ctx context.Context, chain *hook.Chain) error {
	v := chain.Run(ctx, hook.OnInit, &hook.Event{Point: hook.OnInit})
	if !v.Code.Denies() {
		return nil
	}
	return fmt.Errorf("plugin %s, hook init_master: %s %s", v.Plugin, v.Code, v.Text)
}

// conversation is what a connection takes.
func (s *Server) conversation(g *generation) session.Conversation {
	receive := intake.New(intake.Options{
		Me: g.cfg.Me, ReceivedHeader: g.cfg.Outbound.ReceivedHeader, Queue: s.queue, Dispatcher: s.outbound, Chain: g.chain, Seal: g.seal(),
		Mail: s.events, Log: s.log.Named("intake"), Now: time.Now,
	})
	return session.Conversation{
		Settings: g.cfg.Session, Me: g.cfg.Me, TLSConfig: g.secrets.toClients(), Clients: g.secrets.ofClients(), SubmissionPorts: []int{587, 465},
		Chain: g.chain, Intake: received{receive, s.queue}, Resolver: g.resolver,
	}
}

// delivering is what an attempt from the queue takes.
func (s *Server) delivering(g *generation) outbound.Generation {
	cfg := g.cfg
	return outbound.Generation{
		Settings: cfg.Outbound, Me: cfg.Me, TLS: cfg.TLS.Outbound, TLSConfig: g.secrets.nextHops.Config, BackendTLS: g.secrets.toBackends,
		DANE: cfg.TLS.DANE && cfg.DNS.DNSSEC, STS: s.policies(cfg), Templates: cfg.Bounce, Chain: g.chain, Seal: g.seal(), Resolver: g.resolver,
		Tokens: s.tokenSource, Grace: grace(cfg), ReplyGrace: cfg.ShutdownReplyTimeout,
	}
}

// relaying is what an attempt in session takes.
func (g *generation) relaying() delivery.RelayGeneration {
	return delivery.RelayGeneration{Me: g.cfg.Me, Conf: &g.cfg.Forward, TLSConfig: g.secrets.toBackends, Resolver: g.resolver}
}

// tokenSource returns the source of a grant's access tokens. It outlives generations, and so do the
// tokens.
func (s *Server) tokenSource(g grant.Handle) smtpclient.TokenSource { return s.tokens.Source(g) }

// policies returns the MTA-STS policies of domains, nil if they are not wanted. Once they
// were, they are kept until the stop.
func (s *Server) policies(cfg *conf.Config) nexthop.Policies {
	if !cfg.TLS.MTASTS || !cfg.Outbound.EnableTLS {
		return nil
	}
	if s.sts == nil {
		s.sts = mtasts.New(mtasts.Options{Resolver: newestResolver{s}, Dir: filepath.Join(cfg.QueueDir, "sts"), Log: s.log.Named("mtasts")})
	}
	return s.sts
}

// failures counts the handlers that failed, over all generations.
type failures struct {
	mu               sync.Mutex
	chains           []*hook.Chain // of generations that are in use
	timeouts, panics int64         // of all others
}

// add adds a chain that begins to be used.
func (f *failures) add(c *hook.Chain) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.chains = append(f.chains, c)
}

// remove removes a chain that nobody uses any more.
func (f *failures) remove(c *hook.Chain) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, one := range f.chains {
		// In one step, so that the sums never fall.
		if one == c {
			f.chains = append(f.chains[:i:i], f.chains[i+1:]...)
			timeouts, panics := c.Failures()
			f.timeouts += timeouts
			f.panics += panics
			return
		}
	}
}

// Failures returns how many handlers outlived their timeout and how many panicked.
func (f *failures) Failures() (timeouts, panics int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	// Both are counters: what has retired must stay in the sum.
	timeouts, panics = f.timeouts, f.panics
	for _, c := range f.chains {
		t, p := c.Failures()
		timeouts, panics = timeouts+t, panics+p
	}
	return timeouts, panics
}
