package disk

import (
	"fmt"
	"strconv"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
)

// MinFree is how much of a file system stays free: so many bytes, so many
// percent of it, or the smaller of both. The zero value is nothing.
type MinFree struct {
	Bytes   int64
	Percent float64
}

// Floor returns the bytes that must stay free of total.
func (m MinFree) Floor(total int64) int64 {
	share := int64(float64(total) * m.Percent / 100)
	switch {
	case m.Percent == 0:
		return m.Bytes
	case m.Bytes == 0:
		return share
	}
	return min(m.Bytes, share)
}

// String returns m as min_free has it.
func (m MinFree) String() string {
	var parts []string
	if m.Percent > 0 {
		parts = append(parts, strconv.FormatFloat(m.Percent, 'g', -1, 64)+"%")
	}
	if m.Bytes > 0 || len(parts) == 0 {
		parts = append(parts, strconv.FormatInt(m.Bytes, 10))
	}
	return strings.Join(parts, " ")
}

// minFree reads one or two amounts: bytes, with K, M, G or T behind them, and
// percent.
func minFree(p *MinFree) ini.Kind {
	return ini.Scalar("percent, bytes (K, M, G, T) or both", func(s string) error {
		var m MinFree
		var haveBytes, havePercent bool

		// Each amount may come once, in either order. A second one of the same unit is more likely
		// a slip than a wish.
		for _, amount := range strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' }) {
			if number, ok := strings.CutSuffix(amount, "%"); ok && !havePercent {
				n, err := strconv.ParseFloat(number, 64)
				if err != nil || !(n >= 0 && n <= 100) {
					return fmt.Errorf("%s is not between 0%% and 100%%", grammar.Quote(amount))
				}
				m.Percent, havePercent = n, true
				continue
			}

			// The unit is a power of 1024. The value is compared with the shifted bound first, so
			// that it cannot overflow.
			shift := max(0, 10*(1+strings.IndexByte("KMGT", amount[len(amount)-1])))
			number := amount
			if shift > 0 {
				number = amount[:len(amount)-1]
			}
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil || haveBytes || n < 0 || n > 1<<62>>shift {
				return fmt.Errorf("%s is no amount: bytes such as 1000000 or 256M, percent such as 1%%, or both", grammar.Quote(s))
			}
			m.Bytes, haveBytes = n<<shift, true
		}

		// An empty value would mean no limit at all. That has to be written as 0.
		if !haveBytes && !havePercent {
			return fmt.Errorf("%s is no amount: bytes such as 1000000 or 256M, percent such as 1%%, or both", grammar.Quote(s))
		}
		*p = m
		return nil
	}, func() string { return p.String() })
}
