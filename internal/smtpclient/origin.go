package smtpclient

import (
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/mail"
)

// The commands by which a next hop is told where a message came from are
// Postfix's, as its XCLIENT_README and XFORWARD_README describe them.

const (
	unavailable  = "[UNAVAILABLE]"
	maxAttribute = 255 // of a value before it is encoded
	maxCommand   = 512 // a line with its CRLF (RFC 5321 section 4.5.3.1.4)
)

// attribute is a name and its value in xtext.
type attribute struct{ name, value string }

func (a attribute) String() string { return a.name + "=" + a.value }

// encoded makes an attribute; what is not known, or cannot be told, is
// unavailable.
func encoded(name, value string) attribute {
	if value == "" || len(value) > maxAttribute {
		return attribute{name, unavailable}
	}
	return attribute{name, string(appendXtext(nil, value))}
}

func addressAttribute(a netip.Addr) attribute {
	switch a = a.Unmap().WithZone(""); {
	case !a.IsValid():
		return attribute{"ADDR", unavailable}
	case a.Is6():
		return attribute{"ADDR", "IPV6:" + a.String()}
	default:
		return attribute{"ADDR", a.String()}
	}
}

// nameAttribute is unavailable for what is no host name, as anybody can have for
// the name of an address: a server that is told of one by XCLIENT refuses it, and
// with it every message of that client.
func nameAttribute(name string) attribute {
	if !isHostname(name) {
		name = ""
	}
	return encoded("NAME", name)
}

func isHostname(name string) bool {
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' || strings.ContainsFunc(label, notHostname) {
			return false
		}
	}
	return strings.Trim(name, ".0123456789") != ""
}

func notHostname(r rune) bool {
	return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
}

func portAttribute(port int) attribute {
	if port <= 0 || port > 65535 {
		return attribute{"PORT", unavailable}
	}
	return attribute{"PORT", strconv.Itoa(port)}
}

// xforward returns the commands for one transaction, as few as the length of a
// line permits. A message of our own is told as such, because what was told
// about the one before may still hold.
func (x *Extensions) xforward(o *mail.Origin) []string {
	source := "REMOTE"
	if o == nil {
		o, source = &mail.Origin{}, "LOCAL"
	}
	var lines []string
	line := ""
	for _, a := range [...]attribute{
		nameAttribute(o.Name), addressAttribute(o.Addr), portAttribute(o.Port), encoded("PROTO", o.Protocol),
		encoded("HELO", o.Helo),
		{"SOURCE", source},
	} {
		word := a.String()
		switch {
		case !slices.Contains(x.XForward, a.name):
			continue
		case line != "" && len(line)+1+len(word)+2 <= maxCommand:
			line += " " + word
			continue
		case line != "":
			lines = append(lines, line)
		}
		line = "XFORWARD " + word
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// xclient returns the attributes for one client.
func (x *Extensions) xclient(o *mail.Origin) []string {
	var words []string
	add := func(a attribute) {
		if slices.Contains(x.XClient, a.name) {
			words = append(words, a.String())
		}
	}
	add(nameAttribute(o.Name))
	add(addressAttribute(o.Addr))
	add(portAttribute(o.Port))
	add(encoded("HELO", o.Helo))
	if o.Protocol == "SMTP" || o.Protocol == "ESMTP" { // there are no others
		add(attribute{"PROTO", o.Protocol})
	}
	add(encoded("LOGIN", o.Login))
	return words
}

// actFor makes the server act as if o had connected to it, if that is wanted and
// offered and not so already. A refusal costs the connection: the message would
// be judged as if we had sent it. XCLIENT begins the session anew, so EHLO (by
// the client's own name) and AUTH follow. A server for which we acted as
// somebody is of no use for a message of our own, nor for that of another client
// when it does not offer XCLIENT any more.
func (c *Client) actFor(o *mail.Origin) *Failure {
	if c.o.Forwards != mail.XClient || o == nil && c.origin == "" || len(c.ext.XClient) == 0 {
		return nil
	}
	if o == nil {
		return c.taken()
	}
	words := c.ext.xclient(o)
	if len(words) == 0 {
		return nil
	}
	attributes := strings.Join(words, " ")
	if attributes == c.origin {
		return nil
	}
	if c.bound {
		return c.taken()
	}
	if f := c.reset(); f != nil {
		return f
	}
	if f := c.command(StageXClient, "XCLIENT", attributes); f != nil {
		return f
	}
	switch c.res.class() {
	case 2:
	case 3:
		return c.unexpected(StageXClient)
	default:
		return c.refused(StageXClient)
	}
	c.origin, c.auth = attributes, false
	name := o.Helo
	if name == "" || len(name) > maxAttribute || strings.ContainsFunc(name, notHelo) {
		name = c.o.Helo
	}
	offered := c.ext.XClient
	if f := c.hello(name); f != nil {
		return f
	}
	if len(c.ext.XClient) == 0 { // Postfix offers it only to those it trusts, and now we are another
		c.ext.XClient, c.bound = offered, true
	}
	return c.authenticate()
}

// taken gives up a connection that belongs to another client. It is as stale as
// a dead one, also where nothing was sent for him.
func (c *Client) taken() *Failure {
	f := c.failure(StageXClient, nil, errTaken)
	f.lost, f.Fresh = true, false
	return f
}

var errTaken = errors.New("we act for another client on this connection")
