package smtpd

import (
	"sync"
	"time"
)

// pace measures how long a client lets us wait during one transaction, and what
// content comes of it. Our own slowness does not count. The session's goroutine
// writes; lately may be called from any. Outside transactions it is nil, which
// measures nothing.
type pace struct {
	minRate int64         // bytes a second; 0: none
	window  time.Duration // over which minRate is averaged

	until     time.Time // when the transaction has to be over; zero: never
	receiving bool      // its message has begun

	waited time.Duration // for the message, in this window
	got    int64         // content, in this window
	total  time.Duration // waited for the message
	quiet  time.Duration // waited since there was content

	mu        sync.Mutex
	blocked   time.Time // since when the client is waited for; zero: it is not
	now, last span      // two windows of paceWindow
}

// span is content, and the waiting for it.
type span struct {
	got    int64
	waited time.Duration
}

// receive begins its message.
func (p *pace) receive() { p.receiving, p.waited, p.got, p.total, p.quiet = true, 0, 0, 0, 0 }

// limit is how long the client may be waited for now: at most most, and less when
// the message has made no progress or the transaction must end. overdue says which.
func (p *pace) limit(now time.Time, most time.Duration) (d time.Duration, overdue error) {
	// Before its message the client has the whole time for each command.
	d, overdue = most, ErrTimeout
	if p == nil {
		return d, overdue
	}
	if p.receiving {
		d -= p.quiet
	}
	if left := p.until.Sub(now); !p.until.IsZero() && left < d {
		d, overdue = left, ErrTooLong
	}
	return d, overdue
}

// wait and awake enclose a wait for the client, which took d.
func (p *pace) wait(now time.Time) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.blocked = now
	p.mu.Unlock()
}

func (p *pace) awake(d time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.blocked = time.Time{}
	if p.now.waited += d; p.now.waited >= paceWindow {
		p.now, p.last = span{}, p.now
	}
	p.mu.Unlock()
	if p.receiving {
		p.waited, p.total, p.quiet = p.waited+d, p.total+d, p.quiet+d
	}
}

// content counts n bytes of it.
func (p *pace) content(n int) {
	if p == nil || n == 0 {
		return
	}
	p.quiet = 0
	p.got += int64(n)
	p.mu.Lock()
	p.now.got += int64(n)
	p.mu.Unlock()
}

// tooSlow reports, at the end of a window, whether the message came too slowly.
func (p *pace) tooSlow() bool {
	if p == nil || !p.receiving || p.minRate <= 0 || p.waited < p.window {
		return false
	}
	// The next window begins here, so that a client can recover.
	slow := float64(p.got) < float64(p.minRate)*p.waited.Seconds()
	p.waited, p.got = 0, 0
	return slow
}

// lately returns how much content came in the last one or two windows, and how long
// it was waited for.
func (p *pace) lately() (int64, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.now.waited + p.last.waited
	if !p.blocked.IsZero() {
		d += time.Since(p.blocked)
	}
	return p.now.got + p.last.got, d
}
