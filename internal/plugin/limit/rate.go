package limit

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

// rate is how many of something there may be within a window.
type rate struct {
	Limit  int64 // 0: any number
	Window time.Duration
	text   string // as it is written; "": not set
}

// defaultWindow is that of a rate without one.
const defaultWindow = time.Minute

// units are those of windows.
var units = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': ini.Day}

// parseRate reads n, n/seconds or n/time with one of the units s, m, h and d.
func parseRate(text string) (rate, error) {
	bad := fmt.Errorf("%s is no rate: a number, or a number and a time such as 50/5m (units s, m, h, d)", grammar.Quote(text))
	r := rate{Window: defaultWindow, text: text}
	limit, window, hasWindow := strings.Cut(text, "/")
	n, err := strconv.ParseUint(limit, 10, 31)
	if err != nil {
		return rate{}, bad
	}
	r.Limit = int64(n)
	if !hasWindow {
		return r, nil
	}

	// Haraka's units are one letter, in any case.
	unit := time.Second
	if number := strings.TrimRight(window, "sSmMhHdD"); len(window)-len(number) == 1 {
		unit = units[window[len(number)]|' ']
		window = number
	}
	n, err = strconv.ParseUint(window, 10, 31)
	if err != nil || n == 0 || n > uint64(math.MaxInt64/4/unit) {
		return rate{}, bad
	}
	r.Window = time.Duration(n) * unit
	return r, nil
}

// rateKind is the kind of a rate.
func rateKind(p *rate) ini.Kind {
	return ini.Scalar("a rate: n, or n/time with the unit s, m, h or d; 0: unlimited", func(text string) error {
		r, err := parseRate(text)
		if err == nil {
			*p = r
		}
		return err
	}, func() string { return p.text })
}

// rates are those of one section.
type rates struct {
	Enabled bool
	Default rate
	keys    map[string]rate // lower case
	Past    history         // replaces Default
}

// ofHost returns the rate for a client and the key that it is counted under: the longest
// beginning of its address that has a rate, then its name or the nearest domain above it,
// and then the address itself.
func (r *rates) ofHost(addr netip.Addr, host string, past rate) (string, rate) {
	text, separator := writeAddr(addr), "."
	if addr.Is6() {
		separator = ":"
	}
	for part := text; part != ""; part = cutLast(part, separator) {
		if found, ok := r.keys[part]; ok {
			return part, found
		}
	}
	if key, found, ok := r.ofDomain(strings.ToLower(host)); ok {
		return key, found
	}
	if past.text != "" {
		return text, past
	}
	return text, r.Default
}

// ofDomain returns the rate for the nearest of a domain and those above it that has one.
func (r *rates) ofDomain(domain string) (key string, found rate, ok bool) {
	for domain != "" {
		if found, ok := r.keys[domain]; ok {
			return domain, found, true
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return "", rate{}, false
}

// ofAddress returns the rate for a sender or a recipient and the key that it is counted
// under: that of the address itself, of its domain, or of a domain above it; then the
// address itself.
func (r *rates) ofAddress(a mail.Address) (string, rate) {
	return r.ofName(strings.ToLower(a.Local)+"@"+a.Host(), a.Host())
}

// ofName is ofAddress for a name and the domain in it.
func (r *rates) ofName(name, domain string) (string, rate) {
	if found, ok := r.keys[name]; ok {
		return name, found
	}
	if key, found, ok := r.ofDomain(domain); ok {
		return key, found
	}
	return name, r.Default
}

// cutLast returns s without what stands behind the last separator; "": there is none.
func cutLast(s, separator string) string {
	return s[:max(strings.LastIndex(s, separator), 0)]
}

// writeAddr writes an address as keys have it: an IPv6 address with all of its groups.
func writeAddr(addr netip.Addr) string {
	if !addr.Is6() {
		return addr.String()
	}
	b := addr.As16()
	groups := make([]string, 0, 8)
	for i := 0; i < len(b); i += 2 {
		groups = append(groups, strconv.FormatUint(uint64(b[i])<<8|uint64(b[i+1]), 16))
	}
	return strings.Join(groups, ":")
}
