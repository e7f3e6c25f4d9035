package server

import (
	"context"
	"errors"
	"io"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/plugin"
	"tarishi/internal/rehearsal"
	"tarishi/internal/session"
)

// Rehearse has a client talk to the plugins of a configuration, outside of the daemon: it
// binds no address and does not touch the queue, and what plugins remember is not there. It
// writes the conversation to out and reports whether the message would be accepted.
func Rehearse(ctx context.Context, cfg *conf.Config, o Options, client *rehearsal.Client, out io.Writer) (accepted bool, err error) {
	s := newServer(cfg, o)
	defer s.endRetiring()
	g, err := s.newGeneration(cfg, nil)
	if err != nil {
		return false, err
	}
	g.plugins, err = newLoader(plugin.Services{Log: s.log, Resolver: g.resolver}).Load(pluginConfig(cfg))
	if err != nil {
		return false, err
	}

	// Plugins live as in the daemon: some of them are good for nothing before their start.
	s.newChain(g)
	if err := g.plugins.Start(ctx); err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, g.plugins.Close()) }()
	if err := mayServe(ctx, g.chain); err != nil {
		return false, err
	}
	return client.Play(ctx, rehearsal.Stage{
		Conversation: session.Conversation{
			Settings: cfg.Session, Me: cfg.Me, TLSConfig: g.secrets.toClients(), Clients: g.secrets.ofClients(),
			SubmissionPorts: []int{587, 465}, Resolver: g.resolver,
		},
		Handlers: g.plugins.Registrations(), Version: o.Version, Log: s.log.WithOptions(zap.WithCaller(false)), FlushLog: func() { o.Log.Sync() },
	}, out)
}
