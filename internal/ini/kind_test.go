package ini

import (
	"testing"
	"time"
)

func TestDurations(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"0": 0, "30": 30 * time.Second, "30s": 30 * time.Second, "5M": 5 * time.Minute, "1h30m": 90 * time.Minute, "5d": 5 * Day, "1d12h": 36 * time.Hour,
		"1.5s": 1500 * time.Millisecond, "-1": -1, "-1s": -1, "+1": -1, "+1s": -1, "1x": -1, "": -1, "d": -1, "9223372036854775807": -1, "1e3": -1, "5 m": -1,
		"99999d": -1, "1ns": -1, "1d-1h": -1, "292471h106751d": -1,
	} {
		got, err := parseDuration(in)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
}
