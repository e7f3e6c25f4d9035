package delivery

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/backend"
	"tarishi/internal/mail"
	"tarishi/internal/route"
)

// Run probes dead hosts, each by one connection that carries no message, so
// that no message has to find out. It returns nil when ctx has ended, and is
// called once.
func (r *Relay) Run(ctx context.Context) error {
	var probes sync.WaitGroup
	defer probes.Wait()
	for {
		due, next := r.backends.Due(time.Now())
		for _, one := range due {
			probes.Go(func() { r.probeHost(ctx, one) })
		}
		var timer <-chan time.Time
		if next > 0 {
			timer = time.After(next)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-timer:
		case <-r.backends.Wake:
		}
	}
}

// probeHost looks whether a dead host is ready for a transaction again.
func (r *Relay) probeHost(ctx context.Context, one backend.Probe) {
	limited, cancel := context.WithTimeout(ctx, max(2*one.By.ConnectTimeout, time.Second))
	defer cancel()
	w := &passage{r: r, by: r.now.Load(), job: RelayJob{Route: one.By}, offer: offer{env: &mail.Envelope{}}}
	places, err := w.ofHost(limited, &one.Hop)
	for i := range places {
		t := w.target(&places[i])
		if one.By.AuthType == route.AuthForward {
			t.AuthRequired = false
		}
		// A message will find out about refused credentials: probes that
		// go on about them would lock the account.
		if err = r.o.Probe(limited, t); err == nil || !isDown(err) {
			r.revive(one.By, one.Hop)
			return
		}
	}
	r.o.Log.Debug("backend is still down", zap.String("route", one.By.Name), zap.Stringer("host", one.Hop), zap.Error(err))
	r.backends.PutOff(one.Spot, time.Now())
}

// revive notes that a host is well, and logs it if that is new.
func (r *Relay) revive(of *route.Route, hop mail.NextHop) {
	if r.backends.Found(of, hop) {
		r.o.Log.Info("backend is back", zap.String("route", of.Name), zap.Stringer("host", hop))
	}
}
