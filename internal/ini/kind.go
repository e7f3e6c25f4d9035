package ini

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/ini/grammar"
)

// Kind is what a value may be, and the variable that it is for: a kind reads the
// values of a key into that variable and writes them as they would be read again.
// The zero Kind is that of a key without a variable.
type Kind struct {
	set     func(values []string) error
	text    func() []string
	words   string   // what a value may be, for the reference
	choices []string // every value there is, if they are few
	list    bool     // takes several values, as key[]=
	yesNo   bool     // a boolean: a bare key or no value is false
	secret  bool     // is never shown
}

// Set reads the values of a key. It changes nothing when it fails.
func (k Kind) Set(values []string) error { return k.set(values) }

// Text returns the values that would set the variable again.
func (k Kind) Text() []string { return k.text() }

// WithText returns k with another way to write its values.
func (k Kind) WithText(text func() []string) Kind {
	k.text = text
	return k
}

// WithReader returns k, a Scalar, with another way to read its value.
func (k Kind) WithReader(read func(string) error) Kind {
	k.set = Scalar("", read, nil).set
	return k
}

// Words say what a value may be.
func (k Kind) Words() string { return k.words }

// Choices are all values that there are, if they are few.
func (k Kind) Choices() []string { return k.choices }

// IsList reports whether a key of this kind takes several values, as key[]=.
func (k Kind) IsList() bool { return k.list }

// IsZero reports whether the kind is that of a key without a variable.
func (k Kind) IsZero() bool { return k.set == nil }

// active reports whether there is a variable.
func (k Kind) active() bool { return k.set != nil }

// ChoiceError is a value that is none of the permitted words.
type ChoiceError struct {
	Value string
	Known []string
}

func (e *ChoiceError) Error() string {
	return fmt.Sprintf("%s is none of %s", grammar.Quote(e.Value), strings.Join(e.Known, ", "))
}

// elementError says which of several values is wrong.
type elementError struct {
	index int
	error
}

// Scalar is a kind that takes one value. words describe the value in the reference.
func Scalar(words string, set func(string) error, text func() string) Kind {
	return Kind{
		words: words,
		set: func(values []string) error {
			if len(values) != 1 {
				return fmt.Errorf("takes one value, not %d", len(values))
			}
			return set(values[0])
		},
		text: func() []string { return []string{text()} },
	}
}

// Joined is a kind that takes all values of a key together.
func Joined(words string, set func([]string) error, text func() []string) Kind {
	return Kind{words: words, set: set, text: text}
}

// Each is a kind that takes any number of values and reads each with one. Empty
// values are passed over.
func Each[T any](p *[]T, words string, one func(string) (T, error), format func(T) string) Kind {
	return Kind{
		words: words,
		list:  true,
		set: func(values []string) error {
			var all []T
			// The variable is set when all elements are good.
			for i, v := range values {
				if v == "" {
					continue
				}
				t, err := one(v)
				if err != nil {
					return &elementError{i, err}
				}
				all = append(all, t)
			}
			*p = all
			return nil
		},
		text: func() []string {
			var all []string
			for _, t := range *p {
				all = append(all, format(t))
			}
			return all
		},
	}
}

// IsTrue reports whether s is one of Haraka's words for true.
func IsTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "yes", "ok", "enabled", "on", "1":
		return true
	}
	return false
}

// IsFalse reports whether s is a word for false; nothing is one.
func IsFalse(s string) bool {
	switch strings.ToLower(s) {
	case "false", "no", "disabled", "off", "0", "none", "":
		return true
	}
	return false
}

// Bool is true or false, in any of Haraka's words.
func Bool(p *bool) Kind {
	k := Scalar("true or false", func(s string) error {
		if !IsTrue(s) && !IsFalse(s) {
			return fmt.Errorf("%s is neither true nor false", grammar.Quote(s))
		}
		*p = IsTrue(s)
		return nil
	}, func() string { return strconv.FormatBool(*p) })
	k.yesNo, k.choices = true, []string{"true", "false"}
	return k
}

// Int is a whole number from low to high.
func Int[T int | int64](p *T, low, high int64) Kind {
	return wholeNumber(p, fmt.Sprintf("a whole number, %d to %d", low, high), low, high)
}

// AtLeast is a whole number that is not less than low.
func AtLeast[T int | int64](p *T, low int64) Kind {
	return wholeNumber(p, fmt.Sprintf("a whole number, at least %d", low), low, math.MaxInt)
}

// Bytes is a size in bytes that is not less than low.
func Bytes(p *int64, low int64) Kind {
	return wholeNumber(p, fmt.Sprintf("bytes, a whole number, at least %d", low), low, math.MaxInt)
}

// Port is the number of a port.
func Port(p *int) Kind { return Int(p, 1, math.MaxUint16) }

func wholeNumber[T int | int64](p *T, words string, low, high int64) Kind {
	return Scalar(words, func(s string) error {
		// Haraka has no plus signs; accepting them here would hide a slip.
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strings.HasPrefix(s, "+") {
			if errors.Is(err, strconv.ErrRange) {
				return fmt.Errorf("%s is out of range", grammar.Quote(s))
			}
			return fmt.Errorf("%s is not a whole number", grammar.Quote(s))
		}
		if n < low || n > high {
			if high == math.MaxInt {
				return fmt.Errorf("%d is less than %d", n, low)
			}
			return fmt.Errorf("%d is not between %d and %d", n, low, high)
		}
		*p = T(n)
		return nil
	}, func() string { return strconv.FormatInt(int64(*p), 10) })
}

// Ports is any number of ports.
func Ports(p *[]int) Kind {
	return Each(p, "ports", func(s string) (int, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%s is no port", grammar.Quote(s))
		}
		return int(n), nil
	}, strconv.Itoa)
}

// Text is any text.
func Text(p *string) Kind {
	return Scalar("text", func(s string) error { *p = s; return nil }, func() string { return *p })
}

// Texts is any number of texts.
func Texts(p *[]string) Kind {
	return Each(p, "texts", func(s string) (string, error) { return s, nil }, func(s string) string { return s })
}

// Secret is a text that is never shown.
func Secret(p *string) Kind {
	k := Text(p)
	k.words, k.secret = "a secret text", true
	return k
}

// Choice is one of a few words, in any case.
func Choice(p *string, known ...string) Kind {
	k := Scalar(strings.Join(known, ", "), func(s string) error {
		for _, word := range known {
			if strings.EqualFold(s, word) {
				*p = word
				return nil
			}
		}
		return &ChoiceError{Value: s, Known: known}
	}, func() string { return *p })
	k.choices = known
	return k
}

// Address is one IP address; "" in p is none.
func Address(p *string) Kind {
	return Scalar("an IP address", func(s string) error {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%s is no IP address", grammar.Quote(s))
		}
		*p = a.String()
		return nil
	}, func() string { return *p })
}

// Day is the unit d of a duration.
const Day = 24 * time.Hour

// Duration is a length of time that is not less than low.
func Duration(p *time.Duration, low time.Duration) Kind {
	words := "a duration"
	if low > 0 {
		words += ", at least " + low.String()
	}
	return Scalar(words, func(s string) error {
		d, err := parseDuration(s)
		if err != nil {
			return err
		}
		if d < low {
			return fmt.Errorf("%s is less than %s", grammar.Quote(s), low)
		}
		*p = d
		return nil
	}, func() string { return FormatDuration(*p) })
}

// parseDuration reads whole seconds, or numbers with the units ms, s, m, h, d.
func parseDuration(s string) (time.Duration, error) {
	// Whole seconds are Haraka's form.
	bad := fmt.Errorf("%s is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d", grammar.Quote(s))
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > int64(math.MaxInt64/time.Second) || s[0] == '+' {
			return 0, bad
		}
		return time.Duration(n) * time.Second, nil
	}

	// Days come first: the standard library has no unit above the hour.
	rest := strings.ToLower(s)
	var days time.Duration
	if n, after, ok := strings.Cut(rest, "d"); ok {
		f, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, bad
		}
		days, rest = time.Duration(f)*Day, after
		if rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") || strings.ContainsAny(rest, "nuµμ") || d > math.MaxInt64-days {
		return 0, bad
	}
	return days + d, nil
}

// FormatDuration writes seconds, as Haraka does, or milliseconds with their unit where a part of a second is left.
func FormatDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10)
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}
