package heap

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestPercentage(t *testing.T) {
	const mib = 1 << 20
	for _, tt := range []struct {
		live, roots int64
		want        int
	}{
		{0, 0, most},
		{4 * mib, 0, most},
		{8 * mib, 0, 300},
		{8 * mib, 4 * mib, 200},
		{16 * mib, 0, 100},
		{10 * mib, 40 * mib, 100}, // stacks count: many of them must not make the heap grow
		{1000 * mib, 0, 100},
	} {
		if got := percentage(32*mib, tt.live, tt.roots); got != tt.want {
			t.Errorf("%d and %d: %d, want %d", tt.live, tt.roots, got, tt.want)
		}
	}
}

// TestKeepFloor: the percentage follows collections, and is the default again in the
// end.
func TestKeepFloor(t *testing.T) {
	t.Setenv("GOGC", "")
	stop := KeepFloor(1 << 30)
	before := debug.SetGCPercent(100) // a look at it changes it
	debug.SetGCPercent(before)
	if before != most {
		t.Errorf("GOGC=%d with a small heap", before)
	}
	stop()
	runtime.GC()
	if after := debug.SetGCPercent(100); after != 100 {
		t.Errorf("GOGC=%d in the end", after)
	}
	t.Setenv("GOGC", "50")
	stop = KeepFloor(1 << 30)
	stop()
	if now := debug.SetGCPercent(100); now != 100 {
		t.Errorf("GOGC=%d, the environment says otherwise", now)
	}
}
