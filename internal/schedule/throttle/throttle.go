// Package throttle decides how hard one site may be pressed: how many attempts at
// a time, at which rate, whether it is suspended, and how long an attempt may
// take there. A State learns all that from the outcomes of attempts and nothing
// else. It knows no mail and no clock: times are arguments, in nanoseconds since
// 1970.
//
//	             reached: the limit grows              an attempt reaches nobody
//	            ┌──────┐                               for the last time in a row
//	            ▼      │                               (fewer attempts than the
//	        ┌──────────┴─┐  reaches nobody, throttled  limit run: 10 at most)
//	new ───▶│    open    │◀──┐                            │
//	        └─┬────────▲─┘   │ the limit is halved once,  │
//	          │        │     │ one place less for each    │
//	          └────────┼─────┘ failure in a row           │
//	                   │                                  ▼
//	   a probe reached it:          time passes    ┌─────────────┐
//	   the limit is small again  ┌─────────────────┤  suspended  │◀─┐
//	                   │         ▼                 └─────────────┘  │
//	             ┌─────┴───────────┐    the probe reached nobody,   │
//	             │     probing     ├────────────────────────────────┘
//	             │ (one attempt)   │    the next one waits longer
//	             └─────────────────┘
//
// An attempt that failed on this host says nothing about the site. How long
// attempts take moves no site from one of these states to another, but attempts at
// slow sites are kept apart by package dispatch.
package throttle

import (
	"math"
	"time"
)

// Limits are what a site may be asked to bear, and how long its mail is kept.
// They are shared and must not change once they were passed on.
type Limits struct {
	// Attempts at a time lie between Low and High and begin at Start: one more
	// is dared after a success at the limit, half is left after a sign that it
	// was too much. 0 is no cap for High, 1 for Low, and High for Start.
	Low, High, Start int
	Rate             Rate

	Lifetime time.Duration // of a message, from its arrival; 0: it does not expire
	// Patience is the same while the destination is suspended, if it ends
	// earlier, from the message's arrival or the suspension's begin, whichever is
	// later; 0: none.
	Patience time.Duration
	// Warning is the age from which on the sender is to be warned of what has been
	// due for a while; 0: never.
	Warning time.Duration
	// Probes: the k-th probe of a suspended destination comes after half of the
	// k-th of these, so that a unit's own back-off is never longer than it would
	// be alone. The last holds for all that follow, and so does a quarter of an
	// hour. None: half a minute, doubled each time.
	Probes []time.Duration
}

// highLimit, lowLimit and startLimit are Low, High and Start with their defaults.
func (l *Limits) highLimit() int32 {
	if l.High <= 0 || l.High > math.MaxInt32 {
		return math.MaxInt32
	}
	return int32(l.High)
}

func (l *Limits) lowLimit() int32 {
	return min(max(1, int32(min(l.Low, math.MaxInt32))), l.highLimit())
}

func (l *Limits) startLimit() int32 {
	if l.Start <= 0 || l.Start > math.MaxInt32 {
		return l.highLimit()
	}
	return min(max(int32(l.Start), l.lowLimit()), l.highLimit())
}

// Rate is so many attempts in so much time; the zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

// interval is the time between two attempts in nanoseconds; 0: there is no limit.
func (r Rate) interval() int64 {
	if r.Count <= 0 || r.Per <= 0 {
		return 0
	}
	return max(1, int64(r.Per)/int64(r.Count))
}

// slack is by how much attempts may come early: together as many as fall into
// one second.
func (r Rate) slack() int64 {
	i := r.interval()
	if i == 0 {
		return 0
	}
	return (max(1, int64(time.Second)/i) - 1) * i
}

// Outcome is the result of an attempt as far as its destination is concerned.
type Outcome struct {
	Reached   bool   // a server let us speak of the mail; false: there is none that does
	Throttled bool   // it said that this was too much, or did not answer in time
	Local     bool   // it failed on this host: only Err is to be noted
	Err       string // the last reply or error, unless all went well
}
