package load

import (
	"context"
	"time"
)

// Tally compares what a server accepted with what a sink received.
type Tally struct {
	Delivered  int // accepted recipients that arrived
	Lost       int // accepted recipients that did not
	Duplicates int // arrivals of a recipient beyond its first
	Unasked    int // recipients that arrived though their message was not accepted
	Elapsed    time.Duration
}

// Tally compares r with what s has received by now. Elapsed is the time from
// the run's start to the sink's last message.
func (s *Sink) Tally(r *Report) Tally {
	s.mu.Lock()
	defer s.mu.Unlock()
	var t Tally
	arrivals := 0
	for _, id := range r.accepted {
		n := s.seen[id]
		arrivals += n
		switch {
		case n == 0:
			t.Lost++
		default:
			t.Delivered++
			t.Duplicates += n - 1
		}
	}
	t.Unasked = s.runs[r.Load.Run] - t.Delivered
	t.Elapsed = s.stats.Last.Sub(r.Started)
	return t
}

// Await waits until everything that r's server accepted has arrived, or ctx
// has ended, and returns the tally of that moment.
func (s *Sink) Await(ctx context.Context, r *Report) Tally {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.Arrived(r.Load.Run) >= len(r.accepted) {
			if t := s.Tally(r); t.Lost == 0 {
				return t
			}
		}
		select {
		case <-ctx.Done():
			return s.Tally(r)
		case <-tick.C:
		}
	}
}

// Arrived returns how many recipients of a run have got their message.
func (s *Sink) Arrived(run uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[run]
}

// Forget drops what the sink knows of a run, so that a long series does not
// fill memory.
func (s *Sink) Forget(run uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.seen {
		if id.Run == run {
			delete(s.seen, id)
		}
	}
	delete(s.runs, run)
}
