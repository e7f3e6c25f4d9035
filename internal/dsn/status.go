package dsn

import (
	"cmp"
	"fmt"
	"mime"
	"net/netip"
	"strings"
	"unicode/utf8"

	"tarishi/internal/dsn/entity"
	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// statusPart makes the message/delivery-status part (RFC 3464 section 2).
func (c *composer) statusPart() entity.Part {
	// The fields about the message as a whole come first, in a block that ends with an empty line
	// (RFC 3464 section 2.1).
	var b strings.Builder
	if id := c.asciiOnly(cleanLine(c.Original.EnvelopeID, maxValue)); id != "" {
		b.WriteString(entity.Fold("Original-Envelope-Id", id))
	}
	b.WriteString(entity.Fold("Reporting-MTA", "dns; "+c.me))
	if from := c.receivedFrom(); from != "" {
		b.WriteString(entity.Fold("Received-From-MTA", from))
	}
	if t := c.Original.Received; !t.IsZero() {
		b.WriteString(entity.Fold("Arrival-Date", rfc5322Date(t)))
	}
	if id := c.asciiOnly(cleanLine(string(c.Original.ID), maxValue)); id != "" {
		b.WriteString(entity.Fold("X-Tarishi-Queue-Id", id)) // as our logs call it
	}

	// Each recipient has its own block, with a result that may differ from the next one's.
	for i := range c.Recipients {
		b.WriteString("\r\n")
		c.writeRecipient(&b, &c.Recipients[i])
	}

	// RFC 6533 has its own type for a report that holds UTF-8 addresses.
	p := entity.Part{Head: "Content-Type: message/delivery-status\r\n", Body: [][]byte{[]byte(b.String())}}
	if c.utf8 {
		p.Head = "Content-Type: message/global-delivery-status\r\n"
		if !mail.IsASCII(p.Body[0]) {
			p.Head += "Content-Transfer-Encoding: 8bit\r\n"
			p.EightBit = true
		}
	}
	return p
}

// writeRecipient writes the fields of one recipient (RFC 3464 section 2.3).
func (c *composer) writeRecipient(b *strings.Builder, r *Recipient) {
	field := func(name, value string) { b.WriteString(entity.Fold(name, value)) }

	// The address that the sender wrote comes first: after a redirection it is the only one that
	// the sender knows.
	if v, ok := c.originalRecipient(r.ORCPT); ok {
		field("Original-Recipient", v)
	}
	field("Final-Recipient", c.finalRecipient(r.Address))
	field("Action", r.action())
	field("Status", r.status().String())
	if name := hostOrLiteral(r.RemoteMTA); name != "" {
		field("Remote-MTA", "dns; "+name)
	}
	if r.Reply != nil {
		kind := "smtp" // RFC 3464 section 2.3.6: the words of a remote MTA only
		if r.RemoteMTA == "" || r.Reply.Cause != nil {
			kind = "X-Tarishi"
		}
		field("Diagnostic-Code", kind+"; "+c.diagnostic(r.Reply))
	}

	// In a report about several messages a block must also say which of them it is about.
	if r.Of != nil {
		r.Of.writeFields(c, field)
	}
	if !r.LastAttempt.IsZero() {
		field("Last-Attempt-Date", rfc5322Date(r.LastAttempt))
	}
	if r.action() == Delayed && !r.RetryUntil.IsZero() {
		field("Will-Retry-Until", rfc5322Date(r.RetryUntil))
	}
}

// maxDiagnostic caps a reply, such that a report to many about long replies is
// not so large that nobody takes it.
func (c *composer) maxDiagnostic() int { return min(max(64<<10/len(c.Recipients), 200), 8000) }

// diagnostic returns a reply in one line, its text in encoded words if it is not
// ASCII and has to be (RFC 3464 section 2.1.1), and never in its default form.
func (c *composer) diagnostic(r *reply.Reply) string {
	s := strings.ReplaceAll(cleanLine(r.String(), c.maxDiagnostic()), "=?", "= ?")
	if c.utf8 || mail.IsASCII(s) {
		return s
	}

	// The codes stay in clear: programs read them from this field.
	codes := (&reply.Reply{Code: r.Code, Enhanced: r.Enhanced}).String()
	return codes + " " + mime.QEncoding.Encode("utf-8", strings.TrimSpace(strings.TrimPrefix(s, codes)))
}

// receivedFrom names the client that gave us the original: the name it gave
// itself and, as a comment, its address (RFC 3464 section 2.2.4).
func (c *composer) receivedFrom() string {
	o := c.Original.Origin
	if o == nil || !o.Addr.IsValid() {
		return ""
	}
	literal := hostOrLiteral(o.Addr.String())
	if name := hostOrLiteral(cmp.Or(o.Helo, o.Name)); name != "" && name != literal {
		return "dns; " + name + " (" + literal + ")"
	}
	return "dns; " + literal
}

// asciiOnly replaces what a report without SMTPUTF8 cannot hold in its fields.
func (c *composer) asciiOnly(s string) string {
	if c.utf8 || mail.IsASCII(s) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r >= utf8.RuneSelf {
			return '?'
		}
		return r
	}, s)
}

// finalRecipient returns a typed address: rfc822 if an ASCII form exists, utf-8
// if not.
func (c *composer) finalRecipient(a mail.Address) string {
	a = cleanAddress(a)
	ascii, ok := a.ASCII()
	switch {
	case ok:
		return "rfc822;" + cleanLine(ascii.String(), maxAddress)
	case c.utf8:
		return "utf-8;" + cleanLine(a.String(), maxAddress)
	}
	return "utf-8;" + escapeUnicode(cleanLine(a.String(), maxAddress))
}

// originalRecipient returns ORCPT as it may stand in a field: "type;address"
// with an atom as type (RFC 3461 section 4.2).
func (c *composer) originalRecipient(orcpt string) (string, bool) {
	kind, addr, found := strings.Cut(orcpt, ";")
	if !found || !mail.IsAddressType(kind) {
		return "", false
	}
	addr = cleanLine(hideRunes(addr, anyRune), maxAddress)
	if addr == "" {
		return "", false
	}

	// The sender's type is kept where it is true. A non-ASCII address under any other type than
	// utf-8 would be read wrongly.
	if !mail.IsASCII(addr) {
		kind = "utf-8"
	}
	if !c.utf8 && strings.EqualFold(kind, "utf-8") {
		addr = escapeUnicode(addr)
	}
	return kind + ";" + addr, true
}

// escapeUnicode writes the characters that 7-bit fields cannot hold, and those that have
// a meaning in this form, as \x{HEX} (RFC 6533 section 3).
func escapeUnicode(s string) string {
	var b strings.Builder
	for _, r := range s {
		if r >= utf8.RuneSelf || r == '\\' || r == '+' || r == '=' {
			fmt.Fprintf(&b, `\x{%02X}`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// hostOrLiteral returns a host name, or an IP address as an address literal.
func hostOrLiteral(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return mail.AddressLiteral(a.Unmap().WithZone(""))
	}
	host = cleanLine(mail.CanonicalDomain(host), 255)
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r >= 0x7f || strings.ContainsRune(`();<>"\,`, r) {
			return '?'
		}
		return r
	}, host)
}
