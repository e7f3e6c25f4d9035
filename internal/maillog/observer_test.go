package maillog

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"go.uber.org/zap"
)

// notes is an Observer that writes down what it is told.
type notes []string

func (n *notes) note(format string, args ...any) { *n = append(*n, fmt.Sprintf(format, args...)) }
func (n *notes) Connected()                      { n.note("connected") }
func (n *notes) Refused()                        { n.note("refused") }
func (n *notes) Replied(to Command, code int)    { n.note("replied %d %d", to, code) }
func (n *notes) Queued()                         { n.note("queued") }
func (n *notes) Reported(action string)          { n.note("reported %s", action) }
func (n *notes) Received(size int64, delay time.Duration, code int) {
	n.note("received %d %v %d", size, delay, code)
}

func (n *notes) Settled(by Role, r Result, recipients int, delay time.Duration) {
	n.note("settled %d %d %d %v", by, r, recipients, delay)
}

// TestObserver: an observer is told although nothing is logged.
func TestObserver(t *testing.T) {
	var got, second notes
	l := New(zap.NewNop(), &got, &second)
	ip := netip.MustParseAddr("192.0.2.1")
	d, to := Delivery{Delay: time.Second}, []string{"a@b.c", "d@e.f"}
	l.Connect("id", netip.MustParseAddrPort("192.0.2.1:1"), netip.MustParseAddrPort("192.0.2.2:25"), netip.AddrPort{})
	l.Refused("", "192.0.2.1", "too many")
	l.Sender("id", ip, "a@b.c", 250, "OK")
	l.Recipient("id", ip, "a@b.c", "d@e.f", 550, "no")
	l.Auth("id", "192.0.2.1", "PLAIN", "u", 535)
	l.Message("id", ip, "", 7, [3]int{1, 0, 0}, time.Minute, 451, "later")
	l.Queued("id", "a@b.c", 1, 7)
	l.Forwarded(d, to, "250 OK")
	l.ForwardFailed(d, to[:1], 451, "451 later")
	l.ForwardFailed(d, to[:1], 550, "550 no")
	l.Delivered(d, to, "250 OK")
	l.Deferred(d, to, "451 later", time.Time{})
	l.Failed(d, to[:1], "550 no")
	l.DSN("id", "about", "a@b.c", "failed")
	l.NoDSN("about", "null")
	l.Disconnect(Disconnected{})
	want := notes{
		"connected", "refused", "replied 0 250", "replied 1 550", "replied 2 535", "replied 3 451", "received 7 1m0s 451", "queued",
		"settled 0 0 2 1s", "settled 0 1 1 1s", "settled 0 2 1 1s", "settled 1 0 2 1s", "settled 1 1 2 1s", "settled 1 2 1 1s", "reported failed",
	}
	if !slices.Equal(got, want) || !slices.Equal(second, want) {
		t.Errorf("\n got %q\n and %q\nwant %q", got, second, want)
	}
}
