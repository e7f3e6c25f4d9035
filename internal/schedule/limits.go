package schedule

import "time"

// Limits are what a destination may be asked to bear, and how long its mail is
// kept. They are shared and must not change once they were passed on.
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
	// Warning is after how long Expire also hands out what is ready, has been due
	// for lastTry, and is neither marked nor from the null sender; 0: never.
	Warning time.Duration
	// Probes: the k-th probe of a suspended destination comes after half of the
	// k-th of these, so that a unit's own back-off is never longer than it would
	// be alone. The last holds for all that follow, and so does a quarter of an
	// hour. None: half a minute, doubled each time.
	Probes []time.Duration
}

// Rate is so many attempts in so much time; the zero value is no limit.
type Rate struct {
	Count int
	Per   time.Duration
}

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
