// Package xclient reads XCLIENT, with which a trusted peer says whose connection it hands on
// (Postfix's XCLIENT_README).
package xclient

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/smtpd/syntax"
)

// Client is what a command says of a client. Only Addr is always set.
type Client struct {
	Addr     netip.Addr
	Port     uint16
	Name     string // of its address, in the DNS
	Protocol string // "SMTP" or "ESMTP"
	Helo     string // its greeting
	Login    string // the user that it has authenticated as
	DestAddr netip.Addr
	DestPort uint16
}

const maxValue = 255 // octets of a decoded value

var errNoAddress = reply.New(501, "5.5.4", "No valid IP address found")

// Parse reads the argument of the command, or returns the reply to one that is malformed. An
// attribute of another name is passed over, for versions to come; so is one that the peer
// cannot tell ([UNAVAILABLE], [TEMPUNAVAIL]), unless it is the address.
func Parse(argument string) (*Client, *reply.Reply) {
	client := &Client{}
	seen := map[string]bool{}
	for word := range strings.FieldsSeq(argument) {
		name, encoded, _ := strings.Cut(word, "=")
		name = strings.ToUpper(name)
		set := setters[name]
		if set == nil {
			continue
		}

		// Of two values either could be the one that was meant.
		value, ok := syntax.DecodeXtext(encoded)
		if !ok || len(value) > maxValue || seen[name] {
			return nil, reply.New(501, "5.5.4", "Bad XCLIENT attribute "+name)
		}
		seen[name] = true
		if isUnknown(value) {
			continue
		}
		if !set(client, value) {
			if name == "ADDR" {
				return nil, errNoAddress
			}
			return nil, reply.New(501, "5.5.4", "Bad XCLIENT attribute "+name)
		}
	}
	if !client.Addr.IsValid() {
		return nil, errNoAddress
	}
	return client, nil
}

// TakeOver makes the connection of a peer that of the client.
func (c *Client) TakeOver(conn *hook.Connection, from netip.AddrPort) {
	conn.Proxy = hook.Proxy{Addr: from, Type: "xclient"}
	conn.Remote = hook.Remote{Addr: netip.AddrPortFrom(c.Addr, c.Port)}
	if c.DestAddr.IsValid() {
		conn.Local = netip.AddrPortFrom(c.DestAddr, conn.Local.Port())
	}
	if c.DestPort != 0 {
		conn.Local = netip.AddrPortFrom(conn.Local.Addr(), c.DestPort)
	}

	// Nothing that the peer was allowed, or has shown, is the client's.
	conn.Relaying, conn.AuthUser, conn.AuthPass, conn.AuthMech = false, "", "", ""
	conn.TLS.Verified, conn.TLS.VerifyError, conn.TLS.Certificate = false, "", nil
	delete(conn.Notes, "tls")
	conn.Results = new(result.Store)
	if c.Login != "" && conn.XClient == hook.XClientLogin {
		conn.Relaying, conn.AuthUser, conn.AuthMech = true, c.Login, "XCLIENT"
	}

	// What comes now may be the client's own words, which a proxy passes on unread: it must not
	// speak for others.
	conn.XClient = hook.XClientRefused

	// Its greeting counts, although it was said elsewhere.
	conn.Hello = hook.Hello{}
	if c.Helo != "" {
		conn.Hello = hook.Hello{Verb: "HELO", Host: c.Helo}
		if cmp.Or(c.Protocol, "ESMTP") == "ESMTP" {
			conn.Hello.Verb = "EHLO"
		}
	}
}

// isUnknown reports whether a peer says with a value that it has none.
func isUnknown(value string) bool {
	return strings.EqualFold(value, "[UNAVAILABLE]") || strings.EqualFold(value, "[TEMPUNAVAIL]")
}

// setters set what an attribute says. They return false for a value that cannot be.
var setters = map[string]func(c *Client, value string) bool{
	"NAME":     func(c *Client, value string) bool { c.Name = value; return isWord(value) },
	"ADDR":     func(c *Client, value string) bool { return parseAddr(&c.Addr, value) },
	"PORT":     func(c *Client, value string) bool { return parsePort(&c.Port, value) },
	"HELO":     func(c *Client, value string) bool { c.Helo = value; return isWord(value) },
	"LOGIN":    func(c *Client, value string) bool { c.Login = value; return isVisible(value) },
	"DESTADDR": func(c *Client, value string) bool { return parseAddr(&c.DestAddr, value) },
	"DESTPORT": func(c *Client, value string) bool { return parsePort(&c.DestPort, value) },
	"PROTO": func(c *Client, value string) bool {
		c.Protocol = strings.ToUpper(value)
		return c.Protocol == "SMTP" || c.Protocol == "ESMTP"
	},
}

// parseAddr reads an IPv4 address, or an IPv6 address behind "IPV6:".
func parseAddr(p *netip.Addr, value string) bool {
	if len(value) > 5 && strings.EqualFold(value[:5], "IPV6:") {
		value = value[5:]
	}
	a, err := netip.ParseAddr(value)
	*p = a.Unmap()
	return err == nil && a.Zone() == ""
}

func parsePort(p *uint16, value string) bool {
	n, err := strconv.ParseUint(value, 10, 16)
	*p = uint16(n)
	return err == nil
}

// isWord reports whether a value can be the argument of EHLO: visible ASCII.
func isWord(value string) bool {
	return !strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' })
}

// isVisible reports whether a value can stand in a log as it is.
func isVisible(value string) bool {
	return utf8.ValidString(value) && !strings.ContainsFunc(value, mail.IsHidden)
}
