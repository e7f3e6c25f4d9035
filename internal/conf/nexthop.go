package conf

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"tarishi/internal/mail"
)

// nextHop reads one host of a route: host[:port], [ipv6]:port, or a URL with
// one of the schemes smtp, tcp, tls, smtps, lmtp, or of a socket of this host,
// unix (SMTP, unless the section speaks LMTP) and lmtp+unix. The port is the
// host's own, or the section's, or the scheme's if it has one, or the main
// section's, or 25.
func nextHop(s string, h hostKeys, mainPort int) (mail.NextHop, error) {
	var hop mail.NextHop
	if h.lmtp {
		hop.Protocol = mail.LMTP
	}
	scheme, rest, isURL := strings.Cut(s, "://")
	for prefix, protocol := range map[string]mail.Protocol{"unix:": hop.Protocol, "lmtp+unix:": mail.LMTP} {
		path, ok := strings.CutPrefix(s, prefix)
		if !ok {
			continue
		}
		path = strings.TrimPrefix(path, "//")
		if !filepath.IsAbs(path) {
			return hop, fmt.Errorf("%s: the path of the socket must be absolute", excerpt(s))
		}
		return mail.NextHop{Path: path, Protocol: protocol}, nil
	}
	schemePort := 0
	if strings.Contains(s, "@") { // never quoted
		return hop, errors.New("credentials stand in auth_user and auth_pass, not in host")
	}
	if isURL {
		switch strings.ToLower(scheme) {
		case "smtp", "tcp":
		case "tls", "smtps":
			hop.ImplicitTLS, schemePort = true, 465
		case "lmtp":
			hop.Protocol = mail.LMTP
		default:
			return hop, fmt.Errorf("%s: the scheme is none of smtp, tls, lmtp, unix, lmtp+unix", excerpt(s))
		}
		s = strings.TrimSuffix(rest, "/")
	}
	if hop.Protocol == mail.LMTP {
		schemePort = hop.DefaultPort()
	}
	usual := 25
	for _, p := range []int{mainPort, schemePort, h.port} {
		if p != 0 {
			usual = p
		}
	}
	host, port, err := splitEndpoint(s, usual)
	if err != nil {
		return hop, err
	}
	if port == 0 || port > math.MaxUint16 {
		return hop, fmt.Errorf("%s: port 0 cannot be reached", excerpt(s))
	}
	hop.Host, hop.Port = host, port
	return hop, nil
}
