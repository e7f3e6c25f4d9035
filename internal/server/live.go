package server

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/control/view"
	"tarishi/internal/dns"
	"tarishi/internal/hook"
)

// Apply implements conf.Owner: it prepares a whole generation beside the one in force,
// everything that can fail, and only then puts it in force. Without an error the old one
// lives on for those that hold it, and retires behind the last of them.
func (s *Server) Apply(ctx context.Context, cfg *conf.Config) (warnings []string, err error) {
	before := s.current.Load()
	cfg, warnings = keepFixed(cfg, before.cfg)
	next, err := s.prepare(ctx, cfg, before)
	if err != nil {
		return nil, err
	}
	s.commit(next, before)
	return warnings, nil
}

// Renewed implements conf.Owner: certificates and keys are followed, but not at once.
func (s *Server) Renewed() bool { return s.current.Load().secrets.files.Changed() }

// prepared is a generation that can be put in force.
type prepared struct {
	*generation
	commits  []func() // in order; none of them can fail
	discards []func() // instead, if it comes to nothing
}

// keepFixed puts back what only a start can change, and says so.
func keepFixed(cfg, before *conf.Config) (kept *conf.Config, warnings []string) {
	c := *cfg
	// The configuration before has what the daemon really works with.
	for _, fixed := range []struct {
		name     string
		now, was *string
	}{
		{"config/queue_dir", &c.QueueDir, &before.QueueDir},
		{"config/smtp.ini: key user", &c.User, &before.User},
		{"config/smtp.ini: key group", &c.Group, &before.Group},
	} {
		if *fixed.now != *fixed.was {
			*fixed.now = *fixed.was
			warnings = append(warnings, fixed.name+": a change needs a restart, until then it stays as it was")
		}
	}
	return &c, warnings
}

// prepare makes a generation and all that can fail on the way to it. The errors are those
// of all parts, so that one look is enough to mend them.
func (s *Server) prepare(ctx context.Context, cfg *conf.Config, before *generation) (*prepared, error) {
	g, err := s.newGeneration(cfg, before)
	p := &prepared{generation: g}
	problems := []error{err}

	// New addresses are bound and not served yet: clients that connect already wait.
	listening, err := s.listener.Change(cfg.Listener)
	if err == nil {
		p.commits, p.discards = append(p.commits, listening.Apply), append(p.discards, listening.Discard)
	}
	problems = append(problems, err)
	serving, err := s.http.Change(cfg.HTTP)
	if err == nil {
		p.commits, p.discards = append(p.commits, serving.Apply), append(p.discards, serving.Discard)
	}
	problems = append(problems, err)

	// Plugins come last: they may start things, which is the most to undo.
	if errors.Join(problems...) == nil {
		g.plugins, err = s.loader(g).Prepare(ctx, before.plugins, pluginConfig(cfg))
		if err == nil {
			p.discards = append(p.discards, func() { s.closePlugins(g) })
			// Those that go on were asked when they were new.
			err = mayServe(ctx, hook.NewChain(g.plugins.Registrations(), s.log.Named("plugins")))
		}
	} else {
		_, err = checkPlugins(cfg)
	}
	problems = append(problems, err)

	// Of a generation that is refused nothing stays.
	if err = errors.Join(problems...); err != nil {
		for _, discard := range slices.Backward(p.discards) {
			discard()
		}
		return nil, err
	}
	return p, nil
}

// commit puts a generation in force.
func (s *Server) commit(next *prepared, before *generation) {
	// First what has no users that would hold the old state.
	cfg := next.cfg
	s.logCore.Use(cfg.Log)
	s.notices.Use(noticeSettings(cfg))
	s.queue.Use(cfg.Queue)

	// The chain is made of what the plugins register with their new settings.
	next.plugins.Commit()
	s.newChain(next.generation)
	s.current.Store(next.generation)
	if next.secrets != before.secrets {
		before.secrets.follow.stop()
		s.followSecrets(next.secrets)
	}

	// What a session hands on has to meet settings that are at least as new as its own, and
	// clients on new addresses the new ones.
	s.relay.Use(next.relaying())
	attempts := s.outbound.Use(s.delivering(next.generation))
	connections := s.sessions.Use(s.conversation(next.generation))
	s.listener.SetMe(cfg.Me)
	for _, apply := range next.commits {
		apply()
	}
	s.retire(before, connections, attempts)
}

// followSecrets has the files of certificates followed.
func (s *Server) followSecrets(f *secrets) { f.follow = s.start(f.files.Run) }

// retire ends what belongs to a generation alone when nobody holds it any more: when the
// channels are closed, or the daemon stops. One that is held for long keeps none of those
// behind it.
func (s *Server) retire(old *generation, drained ...<-chan struct{}) {
	s.retiring.Go(func() {
		for _, c := range drained {
			select {
			case <-c:
			case <-s.ending.Done():
			}
		}

		// A handler that has outlived its timeout may still use its plugin.
		old.chain.Wait(s.ending)
		s.closePlugins(old)
		s.hooks.remove(old.chain)
	})
}

// closePlugins ends the plugins of a generation that no other one has.
func (s *Server) closePlugins(g *generation) {
	if err := g.plugins.Close(); err != nil {
		s.log.Error("a plugin that is not used any more did not end well", zap.Error(err))
	}
}

// newestResolver asks as dns.ini says at the moment: for what outlives a generation.
type newestResolver struct{ s *Server }

func (r newestResolver) now() *dns.Resolver { return r.s.current.Load().resolver }

func (r newestResolver) TXT(ctx context.Context, name string) ([]string, error) {
	return r.now().TXT(ctx, name)
}

func (r newestResolver) KnownTXT(name string) (texts []string, known bool, err error) {
	return r.now().KnownTXT(name)
}

func (r newestResolver) Addrs(ctx context.Context, host string) ([]netip.Addr, error) {
	return r.now().Addrs(ctx, host)
}

func (r newestResolver) Host(ctx context.Context, host string) ([]netip.Addr, error) {
	return r.now().Host(ctx, host)
}

// follow keeps the daemon in step with its folder.
func (s *Server) follow(ctx context.Context) error {
	if s.live == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.live.Run(ctx)
}

// Generation returns the number of the configuration in force, and of the reloads that
// were refused.
func (s *Server) Generation() (number, failures int64) {
	if s.live == nil {
		return 1, 0
	}
	status := s.live.Status()
	return status.Generation, status.Failures
}

// Configuration implements mailq.Daemon.
func (s *Server) Configuration() *view.Configuration {
	if s.live == nil {
		return nil
	}
	status := s.live.Status()
	return &view.Configuration{Generation: status.Generation, Since: status.Since.UTC(), Failures: status.Failures, Problems: status.Problems}
}

// Reload implements mailq.Daemon.
func (s *Server) Reload(ctx context.Context) (*view.Reload, error) {
	if s.live == nil {
		return nil, errors.New("the daemon runs without a configuration folder")
	}
	r, err := s.live.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return &view.Reload{Generation: r.Generation, Changed: r.Changed, Problems: r.Problems, Warnings: r.Warnings}, nil
}
