package route

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/ini"
	"tarishi/internal/ini/grammar"
	"tarishi/internal/ini/hostport"
	"tarishi/internal/mail"
	"tarishi/internal/oauth"
)

// HostKeys are the keys of a section that together say where its mail goes. A
// section of smtp_forward.ini with neither Host nor Pool has those of main.
type HostKeys struct {
	Host, Pool string
	Port       int // 0: not set
	LMTP       bool
}

// ParseHost reads one host of a section: host[:port], [ipv6]:port, or a URL with
// one of the schemes smtp, tcp, tls, smtps, lmtp, or of a socket of this host,
// unix (SMTP, unless the section speaks LMTP) and lmtp+unix. The port is the
// host's own, or the section's, or the scheme's if it has one, or the main
// section's, or 25.
func ParseHost(s string, h HostKeys, mainPort int) (mail.NextHop, error) {
	var hop mail.NextHop
	if h.LMTP {
		hop.Protocol = mail.LMTP
	}
	if hop, ok, err := parseSocket(s, hop.Protocol); ok {
		return hop, err
	}
	if strings.Contains(s, "@") { // never quoted
		return hop, errors.New("credentials stand in auth_user and auth_pass, not in host")
	}
	schemePort := 0
	if scheme, rest, isURL := strings.Cut(s, "://"); isURL {
		switch strings.ToLower(scheme) {
		case "smtp", "tcp":
		case "tls", "smtps":
			hop.ImplicitTLS, schemePort = true, 465
		case "lmtp":
			hop.Protocol = mail.LMTP
		default:
			return hop, fmt.Errorf("%s: the scheme is none of smtp, tls, lmtp, unix, lmtp+unix", grammar.Quote(s))
		}
		s = strings.TrimSuffix(rest, "/")
	}

	// The last of these that is known wins.
	if hop.Protocol == mail.LMTP {
		schemePort = hop.DefaultPort()
	}
	usual := 25
	for _, p := range []int{mainPort, schemePort, h.Port} {
		if p != 0 {
			usual = p
		}
	}
	host, port, err := hostport.Split(s, usual)
	if err != nil {
		return hop, err
	}
	if port == 0 || port > math.MaxUint16 {
		return hop, fmt.Errorf("%s: port 0 cannot be reached", grammar.Quote(s))
	}
	hop.Host, hop.Port = host, port
	return hop, nil
}

// FormatHosts writes hosts as the keys host and forwarding_host_pool have them.
func FormatHosts(hops []mail.NextHop) string {
	// The text must be read back as the same hop: the scheme carries more than the port.
	var hosts []string
	for _, h := range hops {
		switch {
		case h.Path != "" && h.Protocol == mail.SMTP:
			hosts = append(hosts, "unix:"+h.Path)
		case h.Path != "":
			hosts = append(hosts, "lmtp+unix:"+h.Path)
		case h.Protocol == mail.LMTP:
			hosts = append(hosts, "lmtp://"+h.String())
		case h.ImplicitTLS:
			hosts = append(hosts, "tls://"+h.String())
		default:
			hosts = append(hosts, h.String())
		}
	}
	return strings.Join(hosts, " ")
}

// parseSocket reads a socket of this host, if s is one; unix is the protocol of a scheme
// that does not name one.
func parseSocket(s string, unix mail.Protocol) (hop mail.NextHop, ok bool, err error) {
	path, ok := strings.CutPrefix(s, "unix:")
	protocol := unix
	if !ok {
		if path, ok = strings.CutPrefix(s, "lmtp+unix:"); !ok {
			return hop, false, nil
		}
		protocol = mail.LMTP
	}

	// Haraka and others write the path as that of a URL.
	path = strings.TrimPrefix(path, "//")
	if !filepath.IsAbs(path) {
		hop.Protocol = unix
		return hop, true, fmt.Errorf("%s: the path of the socket must be absolute", grammar.Quote(s))
	}
	return mail.NextHop{Path: path, Protocol: protocol}, true, nil
}

// SectionName canonicalises the name of a section: a domain, *.domain for all
// below it, or an address in lower case.
func SectionName(s string) (string, bool) {
	// The wildcard stands for one label or more, so what follows is a domain too.
	if parent, ok := strings.CutPrefix(s, "*."); ok {
		name, ok := SectionName(parent)
		return "*." + name, ok && !strings.ContainsAny(name, "@*")
	}
	if strings.Contains(s, "@") {
		a, err := mail.ParseAddress(s)
		if err != nil || a.Domain == "" {
			return "", false
		}
		a.Local, a.Domain = strings.ToLower(a.Local), a.Host()
		return a.String(), true
	}

	// What can stand behind the @ of an address is a domain.
	if a, err := mail.ParseAddress("postmaster@" + s); err != nil || a.Domain != s {
		return "", false
	}
	return mail.CanonicalDomain(s), true
}

// Mechanisms reads how to log in at another server: one or more of plain, login and
// cram-md5, or of oauth.Mechanisms, the first that it offers being used, or one of alone. Haraka's
// manual writes [plain login] and plain|login. They are kept with a blank between.
func Mechanisms(p *string, alone ...string) ini.Kind {
	// The order is kept: the first mechanism that a server offers is used.
	known := slices.Concat([]string{"plain", "login", "cram-md5"}, oauth.Mechanisms, alone)
	words := append([]string{"one or more of plain, login, cram-md5", "of " + strings.Join(oauth.Mechanisms, ", ")}, alone...)
	return ini.Scalar(strings.Join(words, "; or "), func(s string) error {
		// All of Haraka's ways to write the list are read.
		if inner, ok := strings.CutPrefix(s, "["); ok {
			s = strings.TrimSuffix(inner, "]")
		}
		var all []string
		for one := range strings.FieldsFuncSeq(s, func(c rune) bool { return c == ',' || c == '|' || grammar.IsBlank(c) }) {
			var word string
			if err := ini.Choice(&word, known...).Set([]string{one}); err != nil {
				return err
			}
			if !slices.Contains(all, word) {
				all = append(all, word)
			}
		}
		for _, word := range alone {
			if len(all) > 1 && slices.Contains(all, word) {
				return fmt.Errorf("%s stands alone: it is not one of several", word)
			}
		}
		// A token is no password, and not to be shown as one.
		for _, word := range all {
			if oauth.ShowsToken(word) != oauth.ShowsToken(all[0]) {
				return fmt.Errorf("%s and %s do not go together: one shows a password, and the other an access token", all[0], word)
			}
		}
		if len(all) == 0 {
			return &ini.ChoiceError{Value: s, Known: known}
		}
		*p = strings.Join(all, " ")
		return nil
	}, func() string { return *p })
}

// address takes one address.
func address(p *netip.Addr) ini.Kind {
	return ini.Scalar("an IP address", func(s string) error {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return fmt.Errorf("%s is no IP address", grammar.Quote(s))
		}
		*p = a
		return nil
	}, func() string {
		if !p.IsValid() {
			return ""
		}
		return p.String()
	})
}

// heloName takes the argument of EHLO: a host name or an address literal.
func heloName(p *string) ini.Kind {
	return ini.Scalar("a host name or an address literal", func(s string) error {
		// An address literal is a domain as well, but no host name.
		a, err := mail.ParseAddress("postmaster@" + s)
		if _, literal := a.Literal(); err != nil || a.Domain != s || !literal {
			if err := hostport.CheckOwnName(s); err != nil {
				return err
			}
		}
		*p = s
		return nil
	}, func() string { return *p })
}
