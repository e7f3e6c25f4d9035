package session

import (
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// Limits of parameter values in octets as they are on the wire: RFC 3461 sections
// 4.2 and 4.4, RFC 4954 section 5.
const (
	maxORCPT = 500
	maxENVID = 100
	maxAUTH  = 500
)

// parameters are the ESMTP parameters of a MAIL or RCPT command (RFC 5321 section
// 4.1.2).
type parameters struct {
	raw map[string]string // what hooks see: upper-case keys, values as they came

	size       int64 // math.MaxInt64: that, or more; 0: not said
	body       string
	utf8       bool
	requireTLS bool
	ret        string
	envid      string
	notify     mail.Notify
	orcpt      string
}

// cutPath splits the argument of MAIL or RCPT into the path with its keyword
// ("FROM:<a@b>") and the parameters behind it, which a blank must separate. It does
// not look into the path.
func cutPath(arg string) (path, rest string, ok bool) {
	colon := strings.IndexByte(arg, ':')
	if colon < 0 {
		return arg, "", true // the parser of the path says what is wrong
	}
	from := colon + 1
	for from < len(arg) && isBlank(arg[from]) {
		from++
	}
	bracketed := from < len(arg) && arg[from] == '<'
	quoted := false
	for i := from; i < len(arg); i++ {
		switch c := arg[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case bracketed && c == '>':
			end := i + 1
			if end < len(arg) && !isBlank(arg[end]) {
				return "", "", false
			}
			return arg[:end], arg[end:], true
		case !bracketed && isBlank(c):
			return arg[:i], arg[i:], true
		}
	}
	return arg, "", !bracketed && !quoted
}

func isBlank[T byte | rune](c T) bool { return c == ' ' || c == '\t' }

// malformed is the reply to a parameter whose value, or lack of one, is wrong.
func malformed(key string) *reply.Reply {
	return reply.New(501, "5.5.4", "Malformed "+key+" parameter")
}

// split reads "KEY=value KEY …" into raw.
func (p *parameters) split(s string) (keys []string, bad *reply.Reply) {
	if s == "" {
		return nil, nil
	}
	p.raw = map[string]string{}
	for _, f := range strings.FieldsFunc(s, isBlank[rune]) {
		key, value, valued := strings.Cut(f, "=")
		if !isKeyword(key) || valued && value == "" || strings.Contains(value, "=") {
			return nil, reply.New(501, "5.5.4", "Malformed parameter")
		}
		key = strings.ToUpper(key)
		if _, twice := p.raw[key]; twice {
			return nil, reply.New(501, "5.5.4", "Parameter "+key+" is repeated")
		}
		p.raw[key] = value
		keys = append(keys, key)
	}
	return keys, nil
}

// isKeyword reports whether s is an esmtp-keyword.
func isKeyword(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		if letter := 'a' <= c && c <= 'z' || '0' <= s[i] && s[i] <= '9'; !letter && (s[i] != '-' || i == 0) {
			return false
		}
	}
	return s != ""
}

// mailParameters reads the parameters of MAIL.
func (s *session) mailParameters(list string) (p parameters, bad *reply.Reply) {
	keys, bad := p.split(list)
	if bad != nil {
		return p, bad
	}
	for _, key := range keys {
		value := p.raw[key]
		ok, offered := true, true
		switch key {
		case "SIZE":
			p.size, ok = messageSize(value)
		case "BODY":
			p.body = strings.ToUpper(value)
			offered = p.body != "BINARYMIME"
			ok = p.body == "7BIT" || p.body == "8BITMIME"
		case "SMTPUTF8":
			p.utf8, offered, ok = true, s.o.SMTPUTF8, value == ""
		case "REQUIRETLS":
			p.requireTLS, offered, ok = true, s.c.TLS.Enabled, value == "" // RFC 8689: not for clients in clear
		case "RET":
			p.ret = strings.ToUpper(value)
			ok = p.ret == "FULL" || p.ret == "HDRS"
		case "ENVID":
			p.envid, ok = decodeXtext(value)
			ok = ok && len(value) <= maxENVID && isPrintable(p.envid)
		case "AUTH":
			ok = len(value) <= maxAUTH && isSubmitter(value)
		default:
			return p, unknownParameter(key)
		}
		switch {
		case !offered:
			return p, reply.New(504, "5.5.4", key+" is not offered")
		case !ok:
			return p, malformed(key)
		}
	}
	return p, nil
}

// rcptParameters reads the parameters of RCPT in a transaction that is SMTPUTF8 or
// not.
func rcptParameters(list string, smtputf8 bool) (p parameters, bad *reply.Reply) {
	keys, bad := p.split(list)
	if bad != nil {
		return p, bad
	}
	for _, key := range keys {
		value := p.raw[key]
		var ok bool
		switch key {
		case "NOTIFY":
			p.notify, ok = parseNotify(value)
		case "ORCPT":
			p.orcpt, ok = parseORCPT(value, smtputf8)
		default:
			return p, unknownParameter(key)
		}
		if !ok {
			return p, malformed(key)
		}
	}
	return p, nil
}

func unknownParameter(key string) *reply.Reply {
	return reply.New(555, "5.5.4", "Parameter "+clean(key)+" is not recognized")
}

// messageSize reads the value of SIZE, which has up to 20 digits (RFC 1870).
func messageSize(value string) (int64, bool) {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil { // more than that many octets
		n = math.MaxInt64
	}
	return n, true
}

// parseNotify reads the value of NOTIFY (RFC 3461 section 4.1).
func parseNotify(value string) (n mail.Notify, ok bool) {
	for word := range strings.SplitSeq(value, ",") {
		var bit mail.Notify
		switch strings.ToUpper(word) {
		case "NEVER":
			bit = mail.NotifyNever
		case "SUCCESS":
			bit = mail.NotifySuccess
		case "FAILURE":
			bit = mail.NotifyFailure
		case "DELAY":
			bit = mail.NotifyDelay
		}
		if bit == 0 || n&bit != 0 {
			return 0, false
		}
		n |= bit
	}
	return n, n&mail.NotifyNever == 0 || n == mail.NotifyNever
}

// parseORCPT reads the value of ORCPT (RFC 3461 section 4.2, RFC 6533 section 3)
// into "type;address", decoded. The type is any atom: an address of another mail
// system is only passed on.
func parseORCPT(value string, smtputf8 bool) (orcpt string, ok bool) {
	kind, encoded, _ := strings.Cut(value, ";")
	kind = strings.ToLower(kind)
	if len(value) > maxORCPT || !mail.IsAddressType(kind) {
		return "", false
	}
	var addr string
	if kind == "utf-8" {
		addr, ok = decodeUTF8Address(encoded, smtputf8)
	} else {
		addr, ok = decodeXtext(encoded)
		ok = ok && isPrintable(addr)
	}
	return kind + ";" + addr, ok && addr != ""
}

// isSubmitter reports whether value can stand behind AUTH= (RFC 4954 section 5):
// xtext of <> or of a mailbox. What it says is not believed.
func isSubmitter(value string) bool {
	s, ok := decodeXtext(value)
	if !ok || s == "<>" {
		return ok
	}
	a, err := mail.ParseAddress(s)
	return err == nil && !a.IsNull() && s[0] != '<' && !a.HasHidden()
}

// decodeXtext decodes xtext (RFC 3461 section 4).
func decodeXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c > '~' || c == '=' {
			return "", false
		}
		if c == '+' {
			if i+2 >= len(s) || strings.ToUpper(s[i+1:i+3]) != s[i+1:i+3] {
				return "", false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), s != ""
}

// isPrintable reports whether s is graphic ASCII and blanks, which is all that
// ENVID and ORCPT may encode.
func isPrintable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// decodeUTF8Address decodes an address of type utf-8: with \x{HEX} for what xtext
// cannot hold (RFC 6533 section 3), and with raw UTF-8 only if raw allows it.
func decodeUTF8Address(s string, raw bool) (string, bool) {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size < 2, r >= utf8.RuneSelf && !raw, r == '+', r == '=', r == ' ':
			return "", false
		case r == '\\':
			hex, _, ended := strings.Cut(strings.TrimPrefix(s, `\x{`), "}")
			n, err := strconv.ParseUint(hex, 16, 21)
			if !ended || !strings.HasPrefix(s, `\x{`) || err != nil || !strings.EqualFold(strconv.FormatUint(n, 16), hex) ||
				strings.ToUpper(hex) != hex || !utf8.ValidRune(rune(n)) || n < utf8.RuneSelf && strings.IndexByte(" +=\\", byte(n)) < 0 {
				return "", false
			}
			r, size = rune(n), len(`\x{}`)+len(hex)
		}
		if mail.IsHidden(r) {
			return "", false
		}
		b.WriteRune(r)
		s = s[size:]
	}
	return b.String(), true
}
