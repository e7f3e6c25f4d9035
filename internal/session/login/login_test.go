package login

import (
	"testing"
	"time"
)

func TestDelay(t *testing.T) {
	last := time.Duration(0)
	for n := range Attempts(40) {
		d := n.delay(time.Second)
		if d < last || d > maxDelay {
			t.Fatalf("attempt %d waits %v after %v", n, d, last)
		}
		last = d
	}
	if Attempts(0).delay(time.Second) != time.Second || last != maxDelay {
		t.Error("bounds")
	}
}
