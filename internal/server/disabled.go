package server

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/ini"
	"tarishi/internal/outbound"
)

// runOutbound delivers, as long as the files do not say that delivery is disabled.
func (s *Server) runOutbound(ctx context.Context, g outbound.Generation) error {
	var following sync.WaitGroup
	following.Go(func() { s.followDisabled(ctx, g) })
	defer following.Wait()
	return s.outbound.Run(ctx)
}

// followDisabled looks at the files each second, as Haraka does.
func (s *Server) followDisabled(ctx context.Context, g outbound.Generation) {
	log := s.log.Named("outbound")
	follow := s.cfg.FollowDisabled(time.Now, func(p ini.Problem) { log.Error("disabled stays as it is", zap.String("problem", p.String())) })
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if on := follow.On(); on != g.Disabled {
			g.Disabled = on
			s.outbound.Use(g)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
