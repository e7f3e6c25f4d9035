package destination

import (
	"reflect"
	"testing"
	"time"

	"tarishi/internal/ini"
)

func TestIntervals(t *testing.T) {
	s, m, h := time.Second, time.Minute, time.Hour
	for in, want := range map[string][]time.Duration{
		"none": {}, " None ": {}, "10s, 1m*2": {10 * s, m, m}, "1S,5M , 1h * 2,1d": {s, 5 * m, h, h, ini.Day},
		"30s, 1m, 5m, 9m, 15m*3, 30m*2, 1h*3, 2h*3, 1d": {
			30 * s, m, 5 * m, 9 * m, 15 * m, 15 * m, 15 * m, 30 * m, 30 * m, h, h, h, 2 * h, 2 * h, 2 * h, ini.Day,
		},
		"60 min": nil, "1m*2*2": nil, "none,1m": nil, "1m;5m": nil, "m": nil,
		"0s": nil, "5": nil, "5x": nil, "": nil, "1m,": nil, "1m*0": nil, "1m*": nil, "*2": nil, "1m*99999": nil, "99999999999d": nil, "-1s": nil, "1.5h": nil,
		"1s*9999,1s,1s": nil,
	} {
		got, err := parseIntervals(in)
		if !reflect.DeepEqual(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
		if err == nil {
			if again, err := parseIntervals(formatIntervals(got)); err != nil || !reflect.DeepEqual(again, got) {
				t.Errorf("%q: %s", in, formatIntervals(got))
			}
		}
	}
}
