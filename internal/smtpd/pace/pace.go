// Package pace measures how long a client lets its server wait during one transaction,
// and what content comes of it.
package pace

import (
	"sync"
	"time"
)

// Window is how long a client is watched before it is compared with others.
const Window = 5 * time.Second

// Terms are what a client has to keep to during a transaction.
type Terms struct {
	MinRate int64         // of content, bytes a second; 0: none
	Window  time.Duration // over which MinRate is averaged
	Until   time.Time     // when the transaction has to be over; zero: never
}

// Pace measures one transaction. Our own slowness does not count. The goroutine of the
// conversation writes; Lately may be called from any. Outside transactions it is nil,
// which measures nothing.
type Pace struct {
	Terms
	receiving bool // its message has begun

	waited time.Duration // for the message, in this window
	got    int64         // content, in this window
	total  time.Duration // waited for the message
	quiet  time.Duration // waited since there was content

	mu        sync.Mutex
	blocked   time.Time // since when the client is waited for; zero: it is not
	now, last span      // two periods of Window
}

// span is content, and the waiting for it.
type span struct {
	got    int64
	waited time.Duration
}

// BeginMessage is called before the content: from now on the client has to make
// progress with it.
func (p *Pace) BeginMessage() { p.receiving, p.waited, p.got, p.total, p.quiet = true, 0, 0, 0, 0 }

// Limit is how long the client may be waited for now: at most most, and less when
// the message has made no progress or the transaction must end. last says that it must.
func (p *Pace) Limit(now time.Time, most time.Duration) (d time.Duration, last bool) {
	// Before its message the client has the whole time for each command.
	d = most
	if p == nil {
		return d, false
	}
	if p.receiving {
		d -= p.quiet
	}
	if left := p.Until.Sub(now); !p.Until.IsZero() && left < d {
		return left, true
	}
	return d, false
}

// BeginWait is called when the client is waited for.
func (p *Pace) BeginWait(now time.Time) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.blocked = now
	p.mu.Unlock()
}

// EndWait is called when it has been waited for, which took d.
func (p *Pace) EndWait(d time.Duration) {
	if p == nil {
		return
	}
	p.mu.Lock()
	p.blocked = time.Time{}
	if p.now.waited += d; p.now.waited >= Window {
		p.now, p.last = span{}, p.now
	}
	p.mu.Unlock()
	if p.receiving {
		p.waited, p.total, p.quiet = p.waited+d, p.total+d, p.quiet+d
	}
}

// Receive counts n bytes of content.
func (p *Pace) Receive(n int) {
	if p == nil || n == 0 {
		return
	}
	p.quiet = 0
	p.got += int64(n)
	p.mu.Lock()
	p.now.got += int64(n)
	p.mu.Unlock()
}

// IsTooSlow reports, at the end of a window, whether the message came too slowly.
func (p *Pace) IsTooSlow() bool {
	if p == nil || !p.receiving || p.MinRate <= 0 || p.waited < p.Window {
		return false
	}
	// The next window begins here, so that a client can recover.
	slow := float64(p.got) < float64(p.MinRate)*p.waited.Seconds()
	p.waited, p.got = 0, 0
	return slow
}

// Lately returns how much content came in the last one or two windows, and how long
// it was waited for.
func (p *Pace) Lately() (int64, time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.now.waited + p.last.waited
	if !p.blocked.IsZero() {
		d += time.Since(p.blocked)
	}
	return p.now.got + p.last.got, d
}

// Waited returns how long the client has been waited for since its message began.
func (p *Pace) Waited() time.Duration { return p.total }
