package destination

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// intervals is temp_fail_intervals: <n><unit>[*count], comma-separated, or none.
func intervals(p *[]time.Duration) ini.Kind {
	return ini.Joined("intervals with commas between them, or none", func(values []string) error {
		all, err := parseIntervals(strings.Join(values, ","))
		if err == nil {
			*p = all
		}
		return err
	}, func() []string { return []string{formatIntervals(*p)} })
}

// maxIntervals bounds what a repeat count can make.
const maxIntervals = 10000

func parseIntervals(s string) ([]time.Duration, error) {
	s = strings.ToLower(strings.Join(strings.Fields(s), ""))
	waits := []time.Duration{}
	if s == "none" {
		return waits, nil
	}
	for one := range strings.SplitSeq(s, ",") {
		// The count is bounded below, before it becomes memory.
		amount, times, repeated := strings.Cut(one, "*")
		count := uint64(1)
		if repeated {
			var err error
			if count, err = strconv.ParseUint(times, 10, 16); err != nil || count == 0 {
				return nil, fmt.Errorf("%s: the count after * is no number above 0", grammar.Quote(one))
			}
		}
		if amount == "" || strings.IndexByte("smhd", amount[len(amount)-1]) < 0 {
			return nil, fmt.Errorf("%s is no interval: <number><s|m|h|d>, *<count> after it repeats it", grammar.Quote(one))
		}
		n, err := strconv.ParseUint(amount[:len(amount)-1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s is no interval: <number><s|m|h|d>, *<count> after it repeats it", grammar.Quote(one))
		}
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': ini.Day}[amount[len(amount)-1]]

		// Attempts without a pause between them would be a loop.
		if n == 0 || n > uint64(math.MaxInt64/unit) {
			return nil, fmt.Errorf("%s: an interval is at least 1s", grammar.Quote(one))
		}
		if len(waits)+int(count) > maxIntervals {
			return nil, fmt.Errorf("more than %d intervals", maxIntervals)
		}
		for range count {
			waits = append(waits, time.Duration(n)*unit)
		}
	}
	return waits, nil
}

func formatIntervals(waits []time.Duration) string {
	if len(waits) == 0 {
		return "none"
	}
	var parts []string
	for i := 0; i < len(waits); {
		// Equal waits in a row are written with a count.
		j := i
		for j < len(waits) && waits[j] == waits[i] {
			j++
		}

		// Seconds are exact, whatever unit it was written in.
		one := ini.FormatDuration(waits[i]) + "s"
		if j-i > 1 {
			one += "*" + strconv.Itoa(j-i)
		}
		parts = append(parts, one)
		i = j
	}
	return strings.Join(parts, ",")
}
