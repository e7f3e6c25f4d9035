package schedule

import (
	"sync"
	"testing"
	"time"
)

// TestRunnersReadTheirUnits: who runs a unit reads and marks it without the lock
// that guards the Schedule, also while another unit takes the domain to another
// site. It is the race detector that fails.
func TestRunnersReadTheirUnits(t *testing.T) {
	s := under(Limits{High: 10}, 0)
	add(s, "a", "d", 0, 0)
	add(s, "b", "d", 0, 0)
	all := expect(t, s, 0, 10, "a", "b")
	var runner sync.WaitGroup
	runner.Go(func() {
		if all[0].Expired() || all[0].Late() || all[0].Null() {
			t.Error("handed out by Due")
		}
		all[0].Mark()
	})
	s.Locate(all[1], "mx", nil, start.Add(time.Second))
	runner.Wait()
	if !all[0].Marked() {
		t.Error("the mark was lost")
	}
}
