// Package command writes the commands of a transaction (MAIL, RCPT, XFORWARD, XCLIENT)
// as far as a server's extensions allow: parameters that it does not offer are left out, or cannot be
// sent at all. It does no I/O.
package command

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// path returns the address as it goes on the wire to this server, without its
// angle brackets: with A-labels where SMTPUTF8 is not offered (RFC 6531). ascii
// is false when that is not possible, clean when it would break the command.
func (x *Extensions) path(a mail.Address) (path string, ascii, clean bool) {
	ascii = true
	if !x.SMTPUTF8 && a.IsUTF8() {
		a, ascii = a.ASCII()
	}
	path = a.String()
	if a.IsUTF8() && !utf8.ValidString(path) {
		return "", ascii, false
	}
	for i := 0; i < len(path); i++ {
		if path[i] < ' ' || path[i] == 0x7f {
			return "", ascii, false
		}
	}
	return path, ascii, !strings.ContainsAny(a.Domain, "<>\" ")
}

// AppendMail adds the MAIL command to b, for a message of size bytes that Check has
// let pass.
func (x *Extensions) AppendMail(b []byte, env *mail.Envelope, fit Fit, size int64) []byte {
	b = append(b, "MAIL FROM:<"...)
	b = append(b, fit.From...)
	b = append(b, '>')
	if x.Size {
		b = append(b, " SIZE="...)
		b = strconv.AppendInt(b, size, 10)
	}
	if x.EightBitMIME && strings.EqualFold(env.Body, "8BITMIME") {
		b = append(b, " BODY=8BITMIME"...)
	}
	if x.SMTPUTF8 && (env.UTF8 || fit.UTF8) {
		b = append(b, " SMTPUTF8"...)
	}
	if env.RequireTLS {
		b = append(b, " REQUIRETLS"...)
	}

	// Parameters of DSN are for the next hop's reports. An ENVID that has grown too long by
	// its encoding is left out rather than have MAIL refused.
	if x.DSN {
		if env.Return == "FULL" || env.Return == "HDRS" {
			b = append(append(b, " RET="...), env.Return...)
		}
		if env.EnvelopeID != "" {
			// Whether it fits is known when it is encoded.
			without := len(b)
			b = appendXtext(append(b, " ENVID="...), env.EnvelopeID)
			if len(b)-without > len(" ENVID=")+maxENVID { // of a message that came in before there was a limit
				b = b[:without]
			}
		}
	}
	return append(b, "\r\n"...)
}

// AppendRcpt adds the RCPT command for one recipient to b, or returns why it cannot be
// sent.
func (x *Extensions) AppendRcpt(b []byte, r *mail.Recipient) ([]byte, *reply.Reply) {
	path, _, clean := x.path(r.Address)
	if !clean || path == "" {
		return b, errRecipient
	}
	b = append(b, "RCPT TO:<"...)
	b = append(b, path...)
	b = append(b, '>')
	if x.DSN {
		if r.Notify != 0 {
			b = appendNotify(append(b, " NOTIFY="...), r.Notify)
		}
		if r.ORCPT != "" {
			b = appendORCPT(b, r.ORCPT)
		}
	}
	return append(b, "\r\n"...), nil
}

func appendNotify(b []byte, n mail.Notify) []byte {
	if n&mail.NotifyNever != 0 {
		return append(b, "NEVER"...)
	}
	start := len(b)
	for _, k := range [...]struct {
		bit  mail.Notify
		name string
	}{{mail.NotifySuccess, "SUCCESS"}, {mail.NotifyFailure, "FAILURE"}, {mail.NotifyDelay, "DELAY"}} {
		if n&k.bit == 0 {
			continue
		}
		if len(b) > start {
			b = append(b, ',')
		}
		b = append(b, k.name...)
	}
	return b
}

// Limits of parameter values in octets (RFC 3461 sections 4.2 and 4.4).
const (
	maxORCPT = 500
	maxENVID = 100
)

// appendORCPT adds the parameter (RFC 3461 section 4.2). An address beyond
// ASCII has the type utf-8 and its encoding (RFC 6533 section 3). A type that
// is no atom is left out with its address, and so is a value too long once it is
// encoded: it is for reports only, and servers refuse the recipient for it.
func appendORCPT(b []byte, orcpt string) []byte {
	kind, addr, found := strings.Cut(orcpt, ";")
	if !found {
		kind, addr = "rfc822", orcpt
	}
	if !mail.IsAddressType(kind) {
		return b
	}

	// An address beyond ASCII that came as rfc822 gets the type that may hold it.
	utf := strings.EqualFold(kind, "utf-8")
	if !utf && strings.EqualFold(kind, "rfc822") && strings.ContainsFunc(addr, func(r rune) bool { return r >= utf8.RuneSelf }) {
		kind, utf = "utf-8", true
	}
	without := len(b)
	b = append(append(b, " ORCPT="...), kind...)
	b = append(b, ';')
	if utf {
		b = appendUTF8Address(b, addr)
	} else {
		b = appendXtext(b, addr)
	}
	if len(b)-without > len(" ORCPT=")+maxORCPT {
		return b[:without]
	}
	return b
}

// appendUTF8Address encodes s (RFC 6533 section 3).
func appendUTF8Address(b []byte, s string) []byte {
	for _, r := range s {
		if r > ' ' && r < 0x7f && r != '+' && r != '=' && r != '\\' {
			b = append(b, byte(r))
			continue
		}
		b = append(b, `\x{`...)
		b = append(b, strings.ToUpper(strconv.FormatInt(int64(r), 16))...)
		b = append(b, '}')
	}
	return b
}

// appendXtext encodes s (RFC 3461 section 4).
func appendXtext(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c < 0x7f && c != '+' && c != '=' {
			b = append(b, c)
		} else {
			b = append(b, '+', hex[c>>4], hex[c&15])
		}
	}
	return b
}
