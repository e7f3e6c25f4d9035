package conf

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	day   = 24 * time.Hour
	tls12 = tls.VersionTLS12
)

// field ties one setting to its text: set reads the values of a key, text gives
// those that would set it again. set changes nothing when it fails.
type field struct {
	set    func(values []string) error
	text   func() []string
	list   bool // takes several values, as key[]=
	yesNo  bool // a boolean: a bare key or no value is false
	secret bool
}

// choiceError is a value that is none of the permitted words.
type choiceError struct {
	value string
	known []string
}

func (e *choiceError) Error() string {
	return fmt.Sprintf("%s is none of %s", excerpt(e.value), strings.Join(e.known, ", "))
}

// elementError says which of several values is wrong.
type elementError struct {
	index int
	error
}

// scalar makes a field that takes one value.
func scalar(set func(string) error, text func() string) field {
	return field{
		set: func(values []string) error {
			if len(values) != 1 {
				return fmt.Errorf("takes one value, not %d", len(values))
			}
			return set(values[0])
		},
		text: func() []string { return []string{text()} },
	}
}

// isTrue and isFalse are the words of a boolean.
func isTrue(s string) bool {
	switch strings.ToLower(s) {
	case "true", "yes", "ok", "enabled", "on", "1":
		return true
	}
	return false
}

func isFalse(s string) bool {
	switch strings.ToLower(s) {
	case "false", "no", "disabled", "off", "0", "none", "":
		return true
	}
	return false
}

func boolean(p *bool) field {
	f := scalar(func(s string) error {
		if !isTrue(s) && !isFalse(s) {
			return fmt.Errorf("%s is neither true nor false", excerpt(s))
		}
		*p = isTrue(s)
		return nil
	}, func() string { return strconv.FormatBool(*p) })
	f.yesNo = true
	return f
}

func number[T int | int64](p *T, low, high int64) field {
	return scalar(func(s string) error {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || strings.HasPrefix(s, "+") {
			if errors.Is(err, strconv.ErrRange) {
				return fmt.Errorf("%s is out of range", excerpt(s))
			}
			return fmt.Errorf("%s is not a whole number", excerpt(s))
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

func atLeast[T int | int64](p *T, low int64) field { return number(p, low, math.MaxInt) }

func port(p *int) field { return number(p, 1, 65535) }

// chars is a count of characters, or a boolean: true is all of them.
func chars(p *int) field {
	f := atLeast(p, 0)
	return scalar(func(s string) error {
		switch {
		case s != "1" && isTrue(s):
			*p = wholeID
			return nil
		case isFalse(s):
			*p = 0
			return nil
		}
		return f.set([]string{s})
	}, func() string { return f.text()[0] })
}

// wholeID is more than the characters that any connection's id has.
const wholeID = 40

func duration(p *time.Duration, low time.Duration) field {
	return scalar(func(s string) error {
		d, err := parseDuration(s)
		if err != nil {
			return err
		}
		if d < low {
			return fmt.Errorf("%s is less than %s", excerpt(s), low)
		}
		*p = d
		return nil
	}, func() string { return formatDuration(*p) })
}

// parseDuration reads whole seconds, or numbers with the units ms, s, m, h, d.
func parseDuration(s string) (time.Duration, error) {
	bad := fmt.Errorf("%s is no duration: whole seconds, or a number with a unit such as 30s, 5m, 2h, 5d", excerpt(s))
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n < 0 || n > int64(math.MaxInt64/time.Second) || s[0] == '+' {
			return 0, bad
		}
		return time.Duration(n) * time.Second, nil
	}
	rest := strings.ToLower(s)
	var days time.Duration
	if n, after, ok := strings.Cut(rest, "d"); ok {
		f, err := strconv.ParseUint(n, 10, 16)
		if err != nil {
			return 0, bad
		}
		days, rest = time.Duration(f)*day, after
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

// formatDuration writes seconds, as Haraka does, or what is left with a unit.
func formatDuration(d time.Duration) string {
	if d%time.Second == 0 {
		return strconv.FormatInt(int64(d/time.Second), 10)
	}
	return strconv.FormatInt(d.Milliseconds(), 10) + "ms"
}

func text(p *string) field {
	return scalar(func(s string) error { *p = s; return nil }, func() string { return *p })
}

func secret(p *string) field {
	f := text(p)
	f.secret = true
	return f
}

// choice takes one of a few words, in any case.
func choice(p *string, known ...string) field {
	return scalar(func(s string) error {
		for _, k := range known {
			if strings.EqualFold(s, k) {
				*p = k
				return nil
			}
		}
		return &choiceError{s, known}
	}, func() string { return *p })
}

// each makes a field that takes any number of values and reads each with one.
// Empty values are passed over.
func each[T any](p *[]T, one func(string) (T, error), format func(T) string) field {
	return field{
		list: true,
		set: func(values []string) error {
			var all []T
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

func texts(p *[]string) field {
	return each(p, func(s string) (string, error) { return s, nil }, func(s string) string { return s })
}

func ports(p *[]int) field {
	return each(p, func(s string) (int, error) {
		n, err := strconv.ParseUint(s, 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%s is no port", excerpt(s))
		}
		return int(n), nil
	}, strconv.Itoa)
}

// versions are minVersion's words.
var versions = []struct {
	name string
	id   uint16
}{{"TLSv1", tls.VersionTLS10}, {"TLSv1.1", tls.VersionTLS11}, {"TLSv1.2", tls.VersionTLS12}, {"TLSv1.3", tls.VersionTLS13}}

func version(p *uint16) field {
	return scalar(func(s string) error {
		var known []string
		for _, v := range versions {
			if strings.EqualFold(s, v.name) {
				*p = v.id
				return nil
			}
			known = append(known, v.name)
		}
		return &choiceError{s, known}
	}, func() string {
		for _, v := range versions {
			if v.id == *p {
				return v.name
			}
		}
		return ""
	})
}

// listen is a list of addresses to listen on; port is for those that name none.
func listen(p *[]string, port int) field {
	return field{
		set: func(values []string) error {
			var all []string
			for _, v := range values {
				for one := range strings.SplitSeq(v, ",") {
					if one = strings.TrimFunc(one, isBlank); one == "" {
						continue
					}
					addr, err := parseListen(one, port)
					if err != nil {
						return err
					}
					if slices.Contains(all, addr) && !strings.HasSuffix(addr, ":0") {
						return fmt.Errorf("%s is there twice", addr)
					}
					all = append(all, addr)
				}
			}
			if len(all) > 0 {
				*p = all
			}
			return nil
		},
		text: func() []string { return []string{strings.Join(*p, ",")} },
	}
}

// parseListen reads ip[:port], [v6]:port, host[:port] or a port alone, which
// means every address. Port 0 lets the system choose.
func parseListen(s string, standard int) (string, error) {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return fmt.Sprintf("[::]:%d", n), nil
	}
	host, port, err := splitEndpoint(s, standard)
	if err != nil {
		return "", err
	}
	return joinEndpoint(host, port), nil
}

// splitEndpoint reads host[:port]; an IPv6 address with a port stands in
// brackets.
func splitEndpoint(s string, defaultPort int) (host string, port int, err error) {
	bad := fmt.Errorf("%s is no address: host, ip, host:port or [ipv6]:port", excerpt(s))
	port = defaultPort
	host, rest := s, ""
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if host, rest, ok = strings.Cut(inner, "]"); !ok {
			return "", 0, bad
		}
		if a, err := netip.ParseAddr(host); err != nil || !a.Is6() {
			return "", 0, bad
		}
	} else if strings.Count(s, ":") == 1 {
		i := strings.IndexByte(s, ':')
		host, rest = s[:i], s[i:]
	}
	if rest != "" {
		n, err := strconv.ParseUint(strings.TrimPrefix(rest, ":"), 10, 16)
		if rest[0] != ':' || err != nil {
			return "", 0, bad
		}
		port = int(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.String(), port, nil
	}
	if !isHost(host) {
		return "", 0, bad
	}
	return host, port, nil
}

func joinEndpoint(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return host + ":" + strconv.Itoa(port)
}

// isHost reports whether s can be the name of a host. All-digit names and
// dotted numbers are addresses with a mistake.
func isHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.ContainsFunc(label, func(r rune) bool {
				return r < 0x80 && r != '-' && r != '_' && !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9')
			}) {
			return false
		}
		last = label
	}
	return strings.Trim(last, "0123456789") != ""
}

// ownName checks a name that we give ourselves. Underscores are for the names of
// others: many servers refuse a greeting with one.
func ownName(s string) error {
	switch {
	case !isHost(s):
		return fmt.Errorf("%s is no host name", excerpt(s))
	case strings.Contains(s, "_"):
		return fmt.Errorf("%s has an underscore, which is not allowed in a name of this host", excerpt(s))
	}
	return nil
}

// dnsServer is one of dns.ini's servers, with port 53 if it says none.
func dnsServer(s string) (string, error) {
	host, port, err := splitEndpoint(s, 53)
	if err != nil {
		return "", err
	}
	if _, err := netip.ParseAddr(host); err != nil || port == 0 {
		return "", fmt.Errorf("%s is no ip:port", excerpt(s))
	}
	return joinEndpoint(host, port), nil
}

// parsePrefix reads an address or a CIDR block; an address alone is a block of
// one.
func parsePrefix(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%s is neither an address nor a CIDR block", excerpt(s))
	}
	return p.Masked(), nil
}

// publicIP takes an address or nothing.
func publicIP(p *string) field {
	return scalar(func(s string) error {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%s is no IP address", excerpt(s))
		}
		*p = a.String()
		return nil
	}, func() string { return *p })
}

// intervals is temp_fail_intervals: <n><unit>[*count], comma-separated, or none.
func intervals(p *[]time.Duration) field {
	return field{
		set: func(values []string) error {
			all, err := parseIntervals(strings.Join(values, ","))
			if err == nil {
				*p = all
			}
			return err
		},
		text: func() []string { return []string{formatIntervals(*p)} },
	}
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
		amount, times, repeated := strings.Cut(one, "*")
		count := uint64(1)
		if repeated {
			var err error
			if count, err = strconv.ParseUint(times, 10, 16); err != nil || count == 0 {
				return nil, fmt.Errorf("%s: the count after * is no number above 0", excerpt(one))
			}
		}
		if amount == "" || strings.IndexByte("smhd", amount[len(amount)-1]) < 0 {
			return nil, fmt.Errorf("%s is no interval: <number><s|m|h|d>, *<count> after it repeats it", excerpt(one))
		}
		n, err := strconv.ParseUint(amount[:len(amount)-1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%s is no interval: <number><s|m|h|d>, *<count> after it repeats it", excerpt(one))
		}
		unit := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': day}[amount[len(amount)-1]]
		if n == 0 || n > uint64(math.MaxInt64/unit) {
			return nil, fmt.Errorf("%s: an interval is at least 1s", excerpt(one))
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
		j := i
		for j < len(waits) && waits[j] == waits[i] {
			j++
		}
		one := formatDuration(waits[i]) + "s"
		if j-i > 1 {
			one += "*" + strconv.Itoa(j-i)
		}
		parts = append(parts, one)
		i = j
	}
	return strings.Join(parts, ",")
}
