package route

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"unicode"

	"tarishi/internal/mail"
)

// ErrNextHop is the error of ParseNextHop. It never quotes the URL, which may
// hold a password.
var ErrNextHop = errors.New("not a next hop: want smtp://, smtps:// or lmtp://[user:password@]host[:port], lmtp:///path/of/socket, lmtp+unix:/path/of/socket or unix:/path/of/socket")

// ParseNextHop reads the URL of a next hop. smtps is TLS from the first byte,
// on port 465 unless another is given; a Port of 0 is the protocol's default.
// User and password mean AUTH PLAIN. A socket may be written as in
// smtp_forward.ini too: the rest behind lmtp+unix: or, for SMTP, unix: (and //) is
// its path as it is.
func ParseNextHop(s string) (mail.NextHop, error) {
	for prefix, protocol := range map[string]mail.Protocol{"unix:": mail.SMTP, "lmtp+unix:": mail.LMTP} {
		path, ok := strings.CutPrefix(s, prefix)
		if !ok {
			continue
		}
		path = strings.TrimPrefix(path, "//")
		if len(path) < 2 || path[0] != '/' || strings.ContainsFunc(path, unicode.IsControl) {
			return mail.NextHop{}, ErrNextHop
		}
		return mail.NextHop{Path: path, Protocol: protocol}, nil
	}

	// A URL that says more than a next hop has is a mistake, and not half of one.
	u, err := url.Parse(s)
	if err != nil || u.Opaque != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
		return mail.NextHop{}, ErrNextHop
	}
	h := mail.NextHop{Host: u.Hostname()}
	switch u.Scheme {
	case "smtp":
	case "smtps":
		h.ImplicitTLS, h.Port = true, 465
	case "lmtp":
		h.Protocol = mail.LMTP
		if h.Host == "" && u.Port() == "" && u.User == nil && len(u.Path) > 1 && u.Path[0] == '/' {
			h.Path = u.Path
			return h, nil
		}
	default:
		return mail.NextHop{}, ErrNextHop
	}

	// All other hops have a host, and nothing behind it.
	if !isHost(h.Host) || u.Path != "" && u.Path != "/" {
		return mail.NextHop{}, ErrNextHop
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return mail.NextHop{}, ErrNextHop
		}
		h.Port = int(n)
	}

	// Credentials in a URL are for PLAIN.
	if user := u.User.Username(); user != "" {
		h.AuthType, h.AuthUser = "plain", user
		h.AuthPass, _ = u.User.Password()
	}
	return h, nil
}

// FormatNextHop is the inverse of ParseNextHop, but leaves credentials out.
func FormatNextHop(h mail.NextHop) string {
	u := url.URL{Scheme: strings.ToLower(h.Protocol.String()), Host: net.JoinHostPort(h.Host, strconv.Itoa(h.TCPPort()))}
	switch {
	case h.Path != "" && h.Protocol == mail.SMTP:
		return "unix://" + h.Path
	case h.Path != "":
		return (&url.URL{Scheme: "lmtp", Path: h.Path}).String()
	case h.ImplicitTLS:
		u.Scheme = "smtps"
	}
	return u.String()
}

func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	_, err := mail.ParseAddress("postmaster@" + s)
	return err == nil && s[0] != '['
}
