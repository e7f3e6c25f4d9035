package spill

import (
	"context"
	"time"
)

// Limits is how long the journal may be, in segments. Excess is what its files take
// beyond the messages in it that are live.
type Limits struct {
	Rest  float64 // excess beyond which the oldest is retired while no mail comes,
	Busy  float64 // and while much does
	Most  float64 // excess from which on Admit waits
	Long  int     // segments beyond which the oldest is retired though all are live,
	Limit int     // and from which on Admit waits
}

// DefaultLimits let the journal grow to 32 segments beyond its live messages, or to 64
// in all.
var DefaultLimits = Limits{Rest: 2, Busy: 8, Most: 32, Long: 40, Limit: 64}

// A spill costs the disk what some Puts cost. While this many messages are accepted
// per second, spillers rest this many times as long as they work.
const (
	busyRate   = 500
	spillPause = 8
)

// pace is how fast mail is accepted.
type pace struct {
	busy     float64   // between 0 and 1
	measured time.Time // when it was last found out, and
	before   int64     // how many messages had been accepted then
}

// measure finds out how busy the store is, from time to time.
func (p *pace) measure(now time.Time, accepted int64) {
	took := now.Sub(p.measured)
	if took >= 0 && took < tick/20 {
		return
	}
	if !p.measured.IsZero() && took > 0 {
		p.busy = min(1, float64(accepted-p.before)/took.Seconds()/busyRate)
	}
	p.measured, p.before = now, accepted
}

// pauseAfter is how long to leave the disk to others after a batch that took some time: the
// longer, the more mail is accepted, and the shorter, the nearer the journal is to its
// limits: in the last quarter on the way.
func (s *Spiller) pauseAfter(took time.Duration) time.Duration {
	return time.Duration(float64(took) * spillPause * s.pace.busy * max(0, min(1, 4*(1-s.fullness()))))
}

// Excess is what the journal's files take beyond the live messages in it, in segments,
// and how many files there are.
func (s *Spiller) Excess() (excess float64, segments int) {
	list := s.journal.Segments()
	var space int64
	for _, info := range list {
		space += info.Space
	}
	space -= s.catalog.Shares()
	return float64(space) / float64(s.journal.SegmentSize()), len(list)
}

// fullness is how near the journal is to its limits; from 1 on it is beyond.
func (s *Spiller) fullness() float64 {
	excess, segments := s.Excess()
	return max(excess/s.options.Limits.Most, float64(segments)/float64(s.options.Limits.Limit))
}

// Durable is called with the segment of each new message, before anybody sees it: with
// a new segment the journal may have become too long.
func (s *Spiller) Durable(segment uint32) {
	if s.youngest.Swap(segment) != segment && s.fullness() >= 1 {
		s.credit.Store(0)
		s.crowded.Store(true)
	}
}

// Accepted counts a message.
func (s *Spiller) Accepted() { s.accepted.Add(1) }

// AdmitRecord lets a record of n bytes wait while the journal is too long: until as much was
// moved out of it, or it cannot be given room.
func (s *Spiller) AdmitRecord(n int64) {
	if s.crowded.Load() && s.credit.Add(-n) < 0 {
		s.relieve()
	}
}

// relieve waits for room, and makes it if nobody else does.
func (s *Spiller) relieve() {
	tooLong := func() bool { return s.fullness() >= 1 }
	tried := false
	s.working.Lock()
	defer s.working.Unlock()

	// Each turn either waits for another one to make room, or makes it; one failure is
	// enough to let mail in.
	for s.crowded.Load() && s.credit.Load() < 0 {
		switch {
		case !tooLong():
			s.crowded.Store(false)
		case s.retiring:
			s.wakeSpiller()
			s.retired.Wait()
		case tried: // it has failed, or somebody is just arriving: the next segment asks again
			s.crowded.Store(false)
		case s.running:
			s.wakeSpiller()
			for round := s.rounds; s.running && !s.retiring && s.rounds == round; {
				s.retired.Wait()
			}
			tried = !s.retiring
		default:
			s.retireDue(context.Background(), tooLong)
			tried = true
		}
	}
}
