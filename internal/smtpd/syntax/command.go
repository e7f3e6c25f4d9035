// Package syntax reads the commands of SMTP: their verbs, and the addresses and
// parameters of MAIL and RCPT (RFC 5321 section 4.1.2, with those of the extensions
// that the server offers). Each is read once; a command that is malformed gives the
// reply to it.
package syntax

import (
	"bytes"
	"strconv"
	"strings"

	"tarishi/internal/reply"
)

// Verb is what a command asks for.
type Verb int

// The verbs. Unimplemented are those that an SMTP server may lack (RFC 5321 section
// 4.5.1) or that belong to other protocols; Unknown is everything else.
const (
	Unknown Verb = iota
	HELO
	EHLO
	STARTTLS
	AUTH
	MAIL
	RCPT
	DATA
	BDAT
	RSET
	NOOP
	VRFY
	QUIT
	PROXY   // of the PROXY protocol, where no header of it may come
	XCLIENT // Postfix's
	Unimplemented
	Verbs int = iota // how many there are
)

// Command is one command line.
type Command struct {
	Verb     Verb
	Name     string // the verb as it was said, in upper case; empty where no ASCII stands
	Argument string // what stands behind the verb, without blanks around it

	line []byte // as it was received; valid until the next read
}

// Parse reads a line. Only a blank separates a verb from its argument, but whatever
// begins with STARTTLS is that.
func Parse(line []byte) Command {
	c := Command{line: line}
	text := strings.TrimRight(string(line), "\r\n")

	// Injected commands often stand directly behind STARTTLS: they are its argument, not another verb.
	if len(text) >= 8 && strings.EqualFold(text[:8], "STARTTLS") {
		c.Name, c.Argument = "STARTTLS", text[8:]
	} else {
		name, arg, _ := strings.Cut(text, " ")
		// Some letters beyond ASCII have an upper case in it.
		if isPlain(name) {
			c.Name = strings.ToUpper(name)
		}
		c.Argument = strings.TrimSpace(arg)
	}
	c.Verb = verbOf(c.Name)
	return c
}

func verbOf(name string) Verb {
	switch name {
	case "HELO":
		return HELO
	case "EHLO":
		return EHLO
	case "STARTTLS":
		return STARTTLS
	case "AUTH":
		return AUTH
	case "MAIL":
		return MAIL
	case "RCPT":
		return RCPT
	case "DATA":
		return DATA
	case "BDAT":
		return BDAT
	case "RSET":
		return RSET
	case "NOOP":
		return NOOP
	case "VRFY":
		return VRFY
	case "QUIT":
		return QUIT
	case "PROXY":
		return PROXY
	case "XCLIENT":
		return XCLIENT
	case "SEND", "SOML", "SAML", "EXPN", "HELP", "TURN", "LHLO":
		return Unimplemented
	}
	return Unknown
}

// Malformed returns the reply to a command that is wrong wherever it stands, nil if
// it is not. The argument of HELO and EHLO is Host's.
func (c Command) Malformed() *reply.Reply {
	switch {
	case bytes.ContainsAny(bytes.TrimRight(c.line, "\r\n"), "\r\x00"):
		return reply.New(501, "5.5.2", "Control characters are not allowed")
	case c.Verb == DATA && c.Argument != "":
		return reply.New(501, "5.5.4", "DATA command should not have any arguments")
	}
	return nil
}

// Host returns the argument of HELO or EHLO, or the reply to one that is none.
func (c Command) Host() (string, *reply.Reply) {
	// The name goes into replies, logs and our trace field.
	host, _, _ := strings.Cut(c.Argument, " ")
	switch {
	case host == "":
		return "", reply.New(501, "5.5.4", c.Name+" requires domain/address - see RFC 5321 section 4.1.1.1")
	case strings.ContainsFunc(host, func(r rune) bool { return r > '~' }):
		return "", reply.New(501, "5.5.4", "Syntax error (8-bit characters not allowed)")
	case strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' }):
		return "", reply.New(501, "5.5.4", "Syntax error (control characters not allowed)")
	}
	return host, nil
}

// ParseChunk reads the argument of BDAT: a size in octets and perhaps LAST (RFC 3030).
func ParseChunk(arg string) (size int64, last, ok bool) {
	// The chunk follows whatever is answered, so a size that is not clear is none.
	f := strings.Fields(arg)
	if len(f) == 0 || len(f) > 2 || len(f) == 2 && !strings.EqualFold(f[1], "LAST") {
		return 0, false, false
	}
	u, err := strconv.ParseUint(f[0], 10, 63)
	return int64(u), len(f) == 2, err == nil
}

// Secret stands in the log for what may be a password.
const Secret = "********"

// Shown is the command line as the log may show it. One that is no command of SMTP
// may be the answer to an AUTH challenge that was never sent.
func (c Command) Shown() string {
	switch c.Verb {
	case AUTH:
		mech, _, response := strings.Cut(c.Argument, " ")
		if !isMechanism(mech) {
			return "AUTH " + Secret
		}
		if response {
			return "AUTH " + mech + " " + Secret
		}
	case Unknown:
		return Secret
	case Unimplemented:
		if c.Name != "EXPN" && c.Name != "HELP" {
			return Secret
		}
	}
	return string(c.line)
}

// isMechanism reports whether s looks like the name of a SASL mechanism (RFC 4422
// section 3.1), and not like a response in base64 with no mechanism before it.
func isMechanism(s string) bool {
	if strings.EqualFold(s, "PLAIN") || strings.EqualFold(s, "LOGIN") {
		return true
	}
	return len(s) <= 20 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
