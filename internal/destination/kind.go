package destination

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/mail"
)

// concurrency reads a number or a range: 10, 2..40.
func concurrency(p *Range) ini.Kind {
	return ini.Scalar("a number from 1, or a range such as 2..40", func(s string) error {
		// A single number is a range of one: it does not adapt.
		low, high, isRange := strings.Cut(s, "..")
		if !isRange {
			high = low
		}
		l, err1 := strconv.Atoi(strings.TrimFunc(low, grammar.IsBlank))
		h, err2 := strconv.Atoi(strings.TrimFunc(high, grammar.IsBlank))
		if err1 != nil || err2 != nil || l < 1 || h < l || h > math.MaxInt32 {
			return fmt.Errorf("%s is no concurrency: a number from 1, or a range such as 2..40", grammar.Quote(s))
		}
		*p = Range{l, h}
		return nil
	}, func() string {
		switch {
		case p.High == 0:
			return ""
		case p.Low == p.High:
			return strconv.Itoa(p.High)
		}
		return fmt.Sprintf("%d..%d", p.Low, p.High)
	})
}

// rateUnits are what a rate counts by.
var rateUnits = []struct {
	name string
	per  time.Duration
}{{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", ini.Day}}

// rate reads a number per second, minute, hour or day: 20/s, 600/m.
func rate(p *Rate) ini.Kind {
	return ini.Scalar("a number per s, m, h or d", func(s string) error {
		// The unit is part of the value, since nobody counts mail for a big provider by the second.
		amount, unit, _ := strings.Cut(s, "/")
		n, err := strconv.Atoi(strings.TrimFunc(amount, grammar.IsBlank))
		for _, u := range rateUnits {
			if err == nil && n > 0 && n <= math.MaxInt32 && strings.EqualFold(strings.TrimFunc(unit, grammar.IsBlank), u.name) {
				*p = Rate{n, u.per}
				return nil
			}
		}
		return fmt.Errorf("%s is no rate: a number per second, minute, hour or day, such as 20/s, 600/m, 10000/h", grammar.Quote(s))
	}, func() string {
		// It is written by the unit that it was read with.
		for _, u := range rateUnits {
			if u.per == p.Per {
				return fmt.Sprintf("%d/%s", p.Count, u.name)
			}
		}
		return ""
	})
}

// rateOrNone reads a rate or none, which is zero.
func rateOrNone(p *Rate) ini.Kind {
	limit := rate(p)
	return ini.Scalar("a rate or none", func(s string) error {
		if strings.EqualFold(s, "none") {
			*p = Rate{}
			return nil
		}
		return limit.Set([]string{s})
	}, func() string {
		if *p == (Rate{}) {
			return "none"
		}
		return limit.Text()[0]
	})
}

// delayWarning reads a duration or none, which is negative.
func delayWarning(p *time.Duration) ini.Kind {
	after := ini.Duration(p, time.Second)
	return ini.Scalar("a duration of at least 1s, or none", func(s string) error {
		if strings.EqualFold(s, "none") {
			*p = -1
			return nil
		}
		return after.Set([]string{s})
	}, func() string {
		if *p < 0 {
			return "none"
		}
		return ini.FormatDuration(*p)
	})
}

// percent reads 0 to 100, with or without a percent sign.
func percent(p *int) ini.Kind {
	n := ini.Int(p, 0, 100)
	return ini.Scalar("0% to 100%", func(s string) error {
		return n.Set([]string{strings.TrimFunc(strings.TrimSuffix(s, "%"), grammar.IsBlank)})
	}, func() string { return strconv.Itoa(*p) + "%" })
}

// tlsLevel reads the levels but for the default.
func tlsLevel(p *mail.TLSLevel) ini.Kind {
	// The default is not among them: it is the absence of the key.
	levels := []mail.TLSLevel{mail.TLSNone, mail.TLSMay, mail.TLSEncrypt, mail.TLSVerify}
	return ini.Scalar("none, may, encrypt, verify", func(s string) error {
		var known []string
		for _, l := range levels {
			if strings.EqualFold(s, l.String()) {
				*p = l
				return nil
			}
			known = append(known, l.String())
		}
		return &ini.ChoiceError{Value: s, Known: known}
	}, func() string {
		if *p == mail.TLSDefault {
			return ""
		}
		return p.String()
	})
}

// weighted is one element of bind or helo.
type weighted struct {
	text   string
	weight int
}

// weights reads a list, separated by blanks or commas, with elements that may end in
// @ and a weight: 192.0.2.1@3 192.0.2.2.
func weights(p *[]weighted, check func(string) error) ini.Kind {
	return ini.Scalar("a list, each element with @WEIGHT or without", func(s string) error {
		var all []weighted
		for _, one := range strings.FieldsFunc(s, func(c rune) bool { return c == ',' || grammar.IsBlank(c) }) {
			// Without weights all are chosen equally often.
			w := weighted{text: one, weight: 1}

			// No address has an @, nor has a host name.
			if name, amount, ok := strings.Cut(one, "@"); ok {
				n, err := strconv.Atoi(amount)
				if err != nil || n < 1 || n > 1000 {
					return fmt.Errorf("%s: the weight after @ is not between 1 and 1000", grammar.Quote(one))
				}
				w = weighted{name, n}
			}
			if err := check(w.text); err != nil {
				return err
			}
			all = append(all, w)
		}
		*p = all
		return nil
	}, func() string {
		var parts []string
		for _, w := range *p {
			if w.weight != 1 {
				w.text += "@" + strconv.Itoa(w.weight)
			}
			parts = append(parts, w.text)
		}
		return strings.Join(parts, " ")
	})
}

func checkBind(s string) error {
	if a, err := netip.ParseAddr(s); err != nil || a.Zone() != "" {
		return fmt.Errorf("%s is no IP address", grammar.Quote(s))
	}
	return nil
}
