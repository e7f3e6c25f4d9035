package pace

import (
	"testing"
	"time"
)

// wait is one wait for the client, after which n bytes of content came.
func (p *Pace) wait(d time.Duration, n int) {
	p.BeginWait(time.Now())
	p.EndWait(d)
	p.Receive(n)
}

// TestIsTooSlow: the rate is that over a window of waiting, and the next window begins
// anew.
func TestIsTooSlow(t *testing.T) {
	p := &Pace{Terms: Terms{MinRate: 100, Window: 30 * time.Second}}
	p.wait(time.Hour, 0)
	if p.IsTooSlow() {
		t.Error("commands have no rate")
	}
	p.BeginMessage()
	p.wait(29*time.Second, 10)
	if p.IsTooSlow() {
		t.Error("too slow before the window is over")
	}
	if p.wait(time.Second, 10); !p.IsTooSlow() {
		t.Error("20 bytes in 30 s are enough")
	}
	if p.wait(30*time.Second, 3000); p.IsTooSlow() {
		t.Error("a client cannot recover")
	}
	if p.Waited() != time.Minute {
		t.Errorf("waited for %v", p.Waited())
	}
}

// TestLimit: a message has to make progress, and to end.
func TestLimit(t *testing.T) {
	now := time.Unix(1e9, 0)
	if d, last := (*Pace)(nil).Limit(now, time.Minute); d != time.Minute || last {
		t.Errorf("outside transactions: %v %v", d, last)
	}
	p := &Pace{Terms: Terms{Until: now.Add(time.Hour)}}
	p.BeginMessage()
	p.wait(20*time.Second, 0)
	if d, last := p.Limit(now, time.Minute); d != 40*time.Second || last {
		t.Errorf("without progress: %v %v", d, last)
	}
	p.Receive(1)
	if d, last := p.Limit(now, time.Minute); d != time.Minute || last {
		t.Errorf("after some: %v %v", d, last)
	}
	if d, last := p.Limit(now.Add(time.Hour-time.Second), time.Minute); d != time.Second || !last {
		t.Errorf("at the end: %v %v", d, last)
	}
}

// TestLately: two periods of the latest are looked at.
func TestLately(t *testing.T) {
	p := &Pace{}
	p.wait(Window, 0)
	p.Receive(50)
	p.wait(time.Second, 50)
	if n, d := p.Lately(); n != 100 || d != Window+time.Second {
		t.Errorf("%d bytes in %v", n, d)
	}
}
