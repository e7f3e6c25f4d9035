package ledger

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Remote is a Ledger that other processes share, and that may be out of reach. Each of its
// calls is bounded in time.
type Remote interface {
	Ledger
	// Ping returns nil if the Remote answers.
	Ping(ctx context.Context) error
	// Addr is where it is, for the log.
	Addr() string
}

// The waits between two pings of a Remote that does not answer: each is twice as long as the
// one before, also of a Remote that is lost again before it was steady.
const (
	firstRetry  = time.Second
	lastRetry   = time.Minute
	steadyAfter = 5 * time.Minute
)

// Shared counts in a Remote while it answers, and in a Local while it does not: then each
// process counts for itself. Callers wait for the Remote until the first call has failed.
// The log has one line about that, and one when the Remote answers again.
type Shared struct {
	remote Remote
	local  *Local
	log    *zap.Logger
	wake   chan struct{} // the Remote was lost

	mu    sync.Mutex
	lost  bool
	since time.Time     // when lost has changed
	retry time.Duration // until the next ping
}

// NewShared returns a Shared. It starts nothing.
func NewShared(remote Remote, local *Local, log *zap.Logger) *Shared {
	return &Shared{remote: remote, local: local, log: log, wake: make(chan struct{}, 1)}
}

// Add implements Ledger.
func (s *Shared) Add(ctx context.Context, k Key, n int64, life Life) (int64, error) {
	return ask(ctx, s, func(l Ledger) (int64, error) { return l.Add(ctx, k, n, life) })
}

// Value implements Ledger.
func (s *Shared) Value(ctx context.Context, k Key) (int64, error) {
	return ask(ctx, s, func(l Ledger) (int64, error) { return l.Value(ctx, k) })
}

// Mark implements Ledger.
func (s *Shared) Mark(ctx context.Context, name string, window time.Duration) (int64, error) {
	return ask(ctx, s, func(l Ledger) (int64, error) { return l.Mark(ctx, name, window) })
}

// Marks implements Ledger.
func (s *Shared) Marks(ctx context.Context, name string, window time.Duration) (int64, error) {
	return ask(ctx, s, func(l Ledger) (int64, error) { return l.Marks(ctx, name, window) })
}

// Hold implements Ledger. It is released where it was counted.
func (s *Shared) Hold(ctx context.Context, k Key, life time.Duration) (*Hold, error) {
	return ask(ctx, s, func(l Ledger) (*Hold, error) { return l.Hold(ctx, k, life) })
}

// ask asks the Remote, or else the Local.
func ask[Answer any](ctx context.Context, s *Shared, question func(Ledger) (Answer, error)) (Answer, error) {
	if !s.isLost() {
		answer, err := question(s.remote)
		if err == nil {
			return answer, nil
		}
		// A caller that has no time left says nothing about the Remote.
		if ctx.Err() != nil {
			return answer, err
		}
		s.markLost(err)
	}
	return question(s.local)
}

func (s *Shared) isLost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// markLost has the Local count from here on.
func (s *Shared) markLost(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost {
		return
	}
	// A Remote that answers pings and nothing else must not fill the log.
	now := time.Now()
	if s.retry == 0 || now.Sub(s.since) > steadyAfter {
		s.retry = firstRetry
	}
	s.lost, s.since = true, now
	s.log.Warn("Redis does not answer: this daemon counts for itself until it does", zap.String("addr", s.remote.Addr()), zap.Error(why))
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run looks after a Remote that was lost, until ctx ends.
func (s *Shared) Run(ctx context.Context) {
	for {
		select {
		case <-s.wake:
		case <-ctx.Done():
			return
		}
		for s.isLost() {
			select {
			case <-time.After(s.nextRetry()):
			case <-ctx.Done():
				return
			}
			if s.remote.Ping(ctx) == nil {
				s.markFound()
			}
		}
	}
}

// nextRetry returns how long to wait for the next ping.
func (s *Shared) nextRetry() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	wait := s.retry
	s.retry = min(2*wait, lastRetry)
	return wait
}

// markFound has the Remote count again.
func (s *Shared) markFound() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.log.Info("Redis answers again: counts are shared", zap.String("addr", s.remote.Addr()), zap.Duration("after", now.Sub(s.since)))
	s.lost, s.since = false, now
}
