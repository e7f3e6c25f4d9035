package unit

import (
	"slices"
	"testing"
	"time"
)

func TestTimesOutOfRange(t *testing.T) {
	for _, tt := range []struct {
		in   time.Time
		want int64
	}{
		{time.Time{}, 0},
		{time.Unix(-5, 0), 0},
		{time.Unix(5, 7), 5e9 + 7},
		{time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), 1<<63 - 1},
	} {
		if got := nanoseconds(tt.in); got != tt.want {
			t.Errorf("%v: %d", tt.in, got)
		}
	}
}

// TestPacked holds that nothing is lost in packing, whatever is in a delivery.
func TestPacked(t *testing.T) {
	for _, v := range []Delivery{
		{ID: "F0E1D2C3-0000-4000-8000-000000000000.1", Recipients: []int{7}, Attempts: 3, Next: time.Unix(50, 1), Received: time.Unix(40, 2)},
		{ID: "any other", Recipients: []int{3, 1, 2}, Null: true, Next: time.Unix(50, 1), Received: time.Unix(40, 2)},
		{ID: "any other", Recipients: []int{1}, Marked: true, Next: time.Unix(50, 1), Received: time.Unix(40, 2)},
	} {
		u := Pack(v)
		if u.ID() != v.ID || !slices.Equal(u.Recipients(), v.Recipients) || u.Many() != len(v.Recipients) || u.Attempts() != v.Attempts ||
			!u.Next().Equal(v.Next) || !u.Received().Equal(v.Received) || u.Null() != v.Null || u.Marked() != v.Marked {
			t.Errorf("%+v became %+v", v, u)
		}
		u.SetDelivery([]int{9, 8}, 4, time.Unix(60, 0))
		u.SetDelivery([]int{9}, 1<<20, time.Unix(61, 0))
		if u.ID() != v.ID || !slices.Equal(u.Recipients(), []int{9}) || u.Attempts() != 1<<16-1 || u.Next().Unix() != 61 {
			t.Errorf("%+v was changed to %+v", v, u)
		}
	}
}
