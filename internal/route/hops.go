package route

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"

	"tarishi/internal/mail"
)

// CheckHops returns an error for next hops that no connection can be made to.
func CheckHops(hops []mail.NextHop) error {
	for _, h := range hops {
		if h.Host == "" && h.Path == "" {
			return errors.New("a next hop has neither host nor path")
		}
		if h.Port < 0 || h.Port > math.MaxUint16 {
			return fmt.Errorf("%s has no port %d", h.Host, h.Port)
		}
	}
	return nil
}

// ParseHops reads what get_mx may give as text, separated by blanks or commas:
// host, host:port, an address with or without a port, or the URL of a next hop.
func ParseHops(text string) ([]mail.NextHop, error) {
	var hops []mail.NextHop
	for _, one := range strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' || c == '\n' }) {
		// Haraka's plugins name plain hosts; all other forms are URLs already.
		if !strings.Contains(one, "://") {
			if ip, err := netip.ParseAddr(one); err == nil && ip.Is6() {
				one = "[" + one + "]"
			}
			one = "smtp://" + one
		}
		h, err := ParseNextHop(one)
		if err != nil {
			return nil, err
		}
		hops = append(hops, h)
	}
	if len(hops) == 0 {
		return nil, ErrNextHop
	}
	return hops, nil
}
