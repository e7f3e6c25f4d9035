package disk

import "testing"

func TestMinFreeKind(t *testing.T) {
	for in, want := range map[string]MinFree{
		"1% 256M":     {Bytes: 256 << 20, Percent: 1},
		"256M,1%":     {Bytes: 256 << 20, Percent: 1},
		"0":           {},
		"0.5%":        {Bytes: 0, Percent: 0.5},
		"1000":        {Bytes: 1000, Percent: 0},
		"2T":          {Bytes: 2 << 40, Percent: 0},
		"4K":          {Bytes: 4096, Percent: 0},
		"":            {Bytes: 1, Percent: 1},
		"x":           {Bytes: 1, Percent: 1},
		"-1":          {Bytes: 1, Percent: 1},
		"101%":        {Bytes: 1, Percent: 1},
		"NaN%":        {Bytes: 1, Percent: 1},
		"1 2":         {Bytes: 1, Percent: 1},
		"1% 2%":       {Bytes: 1, Percent: 1},
		"9999999999T": {Bytes: 1, Percent: 1},
		"M":           {Bytes: 1, Percent: 1},
	} {
		got := MinFree{Bytes: 1, Percent: 1}
		err := minFree(&got).Set([]string{in})
		if got != want || (err != nil) != (want == MinFree{Bytes: 1, Percent: 1}) {
			t.Errorf("%q: %+v %v", in, got, err)
		}
		if err == nil {
			again := MinFree{Bytes: 1, Percent: 1}
			if err := minFree(&again).Set([]string{got.String()}); err != nil || again != got {
				t.Errorf("%q prints as %q: %+v %v", in, got, again, err)
			}
		}
	}
	for _, tc := range []struct {
		m           MinFree
		total, want int64
	}{{MinFree{Bytes: 256 << 20, Percent: 1}, 1 << 40, 256 << 20}, {MinFree{Bytes: 256 << 20, Percent: 1}, 1000, 10}, {MinFree{Bytes: 500, Percent: 0}, 1000, 500}, {MinFree{Bytes: 0, Percent: 5}, 1000, 50}, {MinFree{}, 1000, 0}} {
		if got := tc.m.Floor(tc.total); got != tc.want {
			t.Errorf("%+v of %d: %d", tc.m, tc.total, got)
		}
	}
}
