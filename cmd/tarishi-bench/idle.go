package main

import (
	"context"
	"fmt"
	"time"

	"tarishi/internal/test/load"
)

const (
	settleTime = 2 * time.Second  // until a server with idle sessions is measured
	returnTime = 30 * time.Second // for giving memory back
)

// idle is what waiting sessions cost a server: growth of its resident set in
// bytes a session, while they are open and returnTime after their end.
type idle struct{ open, after float64 }

// measureIdle measures each system of p in rounds and prints the medians.
func measureIdle(ctx context.Context, b *bench, p part) error {
	found := map[key][]idle{}
	for k := range b.rounds(p) {
		for _, l := range p.loads {
			// Systems take turns at being first, so that a machine that warms up favours none of
			// them.
			for i := range l.systems {
				name := l.systems[(i+k)%len(l.systems)]
				if b.missing[name] != "" {
					continue
				}
				x, err := b.measureSessions(ctx, p, l, name)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", l.name, name, err)
				}
				fmt.Fprintf(b.progress, "%s, round %d of %d: %s, %s: %.1f KiB a session, %.1f after they ended\n",
					p.name, k+1, b.rounds(p), l.name, name, x.open/1024, x.after/1024)
				found[key{l.name, name}] = append(found[key{l.name, name}], x)
			}
		}
	}
	fmt.Fprintf(b.out, "| load | system | KiB a session | %.0f s after their end |\n|---|---|---:|---:|\n", returnTime.Seconds())
	for _, l := range p.loads {
		for _, name := range l.systems {
			if xs := found[key{l.name, name}]; len(xs) > 0 {
				var open, after []float64
				for _, x := range xs {
					open, after = append(open, x.open/1024), append(after, x.after/1024)
				}
				fmt.Fprintf(b.out, "| %s | %s | %.1f | %.1f |\n", l.name, name, median(open), median(after))
			}
		}
	}
	b.printMissing(p)
	return nil
}

// measureSessions starts a system, opens the sessions of l and ends them again.
func (b *bench) measureSessions(ctx context.Context, p part, l workload, name string) (idle, error) {
	alone := l
	alone.systems = []string{name}
	f, err := b.startSystems(ctx, part{name: p.name, loads: []workload{alone}}, nil)
	defer f.stopAll()
	if err != nil {
		return idle{}, err
	}
	sys := f.systems[l.fleetKey(name)]
	// The first few make the server load what all of them share.
	warm, err := load.OpenSessions(ctx, sys.addr, 10, l.certificate != "")
	if err != nil {
		return idle{}, err
	}
	warm.Close()

	// Resident memory is compared with a server that has served once. The first sessions load code
	// that all later ones share.
	before := sys.usage().RSS
	sessions, err := load.OpenSessions(ctx, sys.addr, l.clients, l.certificate != "")
	if err != nil {
		return idle{}, err
	}

	// Memory given back late would count as a leak, so the server gets time before each look.
	err = waitFor(ctx, settleTime)
	open := sys.usage().RSS
	sessions.Close()
	if err == nil {
		err = waitFor(ctx, returnTime)
	}
	a := func(rss int64) float64 { return float64(rss-before) / float64(l.clients) }
	return idle{open: a(open), after: a(sys.usage().RSS)}, err
}

func waitFor(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
