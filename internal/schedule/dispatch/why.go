package dispatch

import (
	"fmt"
	"time"
)

// Why says in a few words what a ready unit waits for.
func (s *Dispatcher) Why(u *Unit, now int64) string {
	t := u.dest.site
	name := t.name
	switch why, until := s.obstacleOf(t, now); why {
	case suspended:
		return fmt.Sprintf("%s could not be reached, next probe %s (%s)", name, stamp(until), t.LastError())
	case probed:
		return fmt.Sprintf("%s could not be reached, another message probes it (%s)", name, t.LastError())
	case rated:
		return fmt.Sprintf("the rate of %s, next attempt %s", name, stamp(until))
	case crowded:
		return fmt.Sprintf("%s has its share of all attempts at a time, %d", name, t.running)
	case stuck:
		return fmt.Sprintf("%s keeps %d attempts waiting", name, t.outside)
	case slowed:
		return fmt.Sprintf("%s is slow, and %d attempts at slow destinations run", name, s.slow)
	case full:
		return fmt.Sprintf("%s has its %d attempts at a time", name, t.running)
	}
	if !s.hasRoom(u.classOf()) {
		return fmt.Sprintf("all %d attempts at a time run", s.running)
	}
	return "ready"
}

func stamp(at int64) string { return time.Unix(0, at).UTC().Format(time.RFC3339) }
