package disk

import "testing"

func TestMinFreeKind(t *testing.T) {
	for in, want := range map[string]MinFree{
		"1% 256M":     {256 << 20, 1},
		"256M,1%":     {256 << 20, 1},
		"0":           {},
		"0.5%":        {0, 0.5},
		"1000":        {1000, 0},
		"2T":          {2 << 40, 0},
		"4K":          {4096, 0},
		"":            {1, 1},
		"x":           {1, 1},
		"-1":          {1, 1},
		"101%":        {1, 1},
		"NaN%":        {1, 1},
		"1 2":         {1, 1},
		"1% 2%":       {1, 1},
		"9999999999T": {1, 1},
		"M":           {1, 1},
	} {
		got := MinFree{1, 1}
		err := minFree(&got).Set([]string{in})
		if got != want || (err != nil) != (want == MinFree{1, 1}) {
			t.Errorf("%q: %+v %v", in, got, err)
		}
		if err == nil {
			again := MinFree{1, 1}
			if err := minFree(&again).Set([]string{got.String()}); err != nil || again != got {
				t.Errorf("%q prints as %q: %+v %v", in, got, again, err)
			}
		}
	}
	for _, tc := range []struct {
		m           MinFree
		total, want int64
	}{{MinFree{256 << 20, 1}, 1 << 40, 256 << 20}, {MinFree{256 << 20, 1}, 1000, 10}, {MinFree{500, 0}, 1000, 500}, {MinFree{0, 5}, 1000, 50}, {MinFree{}, 1000, 0}} {
		if got := tc.m.Floor(tc.total); got != tc.want {
			t.Errorf("%+v of %d: %d", tc.m, tc.total, got)
		}
	}
}
