package command

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"tarishi/internal/mail"
)

// The commands that say to a next hop where a message came from are
// Postfix's, as its XCLIENT_README and XFORWARD_README describe them.

const (
	unavailable  = "[UNAVAILABLE]"
	MaxAttribute = 255 // bytes of a value before it is encoded
	maxCommand   = 512 // a line with its CRLF (RFC 5321 section 4.5.3.1.4)
)

// attribute is a name and its value in xtext.
type attribute struct{ name, value string }

func (a attribute) String() string { return a.name + "=" + a.value }

// encoded makes an attribute; a value that is not known, or cannot be told, is
// unavailable.
func encoded(name, value string) attribute {
	if value == "" || len(value) > MaxAttribute {
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

// nameAttribute is unavailable for anything but a host name, as anybody can have for
// the name of an address: a server refuses XCLIENT with one, and
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

// ForwardCommands returns the XFORWARD commands for one transaction, as few as the length of a
// line permits. Our own messages are marked as such, because the values
// given for the one before may still hold.
func (x *Extensions) ForwardCommands(o *mail.Origin) []string {
	source := "REMOTE"
	if o == nil {
		o, source = &mail.Origin{}, "LOCAL"
	}

	// Attributes are packed into lines of at most maxCommand bytes; those that the server
	// does not offer are left out.
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

// ClientAttributes returns the attributes of XCLIENT for one client.
func (x *Extensions) ClientAttributes(o *mail.Origin) []string {
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
