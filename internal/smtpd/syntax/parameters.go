package syntax

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

// Mail is a MAIL command (RFC 5321 section 4.1.1.2).
type Mail struct {
	From       Path
	Parameters map[string]string // as hooks see them: upper-case keys, values as they came

	Size       int64  // math.MaxInt64: that, or more; 0: not said
	Body       string // "7BIT", "8BITMIME" or ""
	UTF8       bool
	RequireTLS bool
	Return     string // "FULL", "HDRS" or ""
	EnvelopeID string
}

// Rcpt is a RCPT command (RFC 5321 section 4.1.1.3).
type Rcpt struct {
	To         Path
	Parameters map[string]string // as those of Mail

	Notify            mail.Notify
	OriginalRecipient string // "type;address", decoded
}

// Offer is what the reply to EHLO promised, as far as the parameters of MAIL depend
// on it.
type Offer struct{ SMTPUTF8, RequireTLS bool }

// ParseMail reads the argument of MAIL, or returns the reply to one that is malformed.
// An address that is none is no reason for that: see Path. From.Text is empty if there
// is no path.
func ParseMail(arg string, offer Offer) (m Mail, bad *reply.Reply) {
	malformed := reply.New(501, "5.5.2", "Was expecting MAIL arg syntax of FROM:<address>")
	path, list, ok := cutPath(arg)
	if !ok {
		return m, malformed
	}
	m.From.Text = path

	// Parameters are judged first: they say how the path has to be read.
	if bad := m.parseParameters(list, offer); bad != nil {
		return m, bad
	}
	if m.From, ok = parsePath(path, "FROM:", true); !ok {
		return m, malformed
	}
	return m, nil
}

// ParseRcpt reads the argument of RCPT in a transaction that is SMTPUTF8 or not. It
// returns what ParseMail does.
func ParseRcpt(arg string, smtputf8 bool) (r Rcpt, bad *reply.Reply) {
	malformed := reply.New(501, "5.5.2", "Was expecting RCPT arg syntax of TO:<address>")
	path, list, ok := cutPath(arg)
	if !ok {
		return r, malformed
	}
	r.To.Text = path

	// As in ParseMail.
	if bad := r.parseParameters(list, smtputf8); bad != nil {
		return r, bad
	}
	if r.To, ok = parsePath(path, "TO:", false); !ok {
		return r, malformed
	}
	return r, nil
}

// malformedParameter is the reply to a parameter with a wrong value, or without one.
func malformedParameter(key string) *reply.Reply {
	return reply.New(501, "5.5.4", "Malformed "+key+" parameter")
}

// splitParameters reads "KEY=value KEY …". keys are in the order of the command.
func splitParameters(s string) (values map[string]string, keys []string, bad *reply.Reply) {
	if s == "" {
		return nil, nil, nil
	}

	// No parameter may stand twice (RFC 5321 section 4.1.1.11).
	values = map[string]string{}
	for _, f := range strings.FieldsFunc(s, isBlank[rune]) {
		key, value, valued := strings.Cut(f, "=")
		if !isKeyword(key) || valued && value == "" || strings.Contains(value, "=") {
			return nil, nil, reply.New(501, "5.5.4", "Malformed parameter")
		}
		key = strings.ToUpper(key)
		if _, twice := values[key]; twice {
			return nil, nil, reply.New(501, "5.5.4", "Parameter "+key+" is repeated")
		}
		values[key] = value
		keys = append(keys, key)
	}
	return values, keys, nil
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

// parseParameters reads the parameters of MAIL.
func (m *Mail) parseParameters(list string, offer Offer) (bad *reply.Reply) {
	var keys []string
	if m.Parameters, keys, bad = splitParameters(list); bad != nil {
		return bad
	}
	for _, key := range keys {
		value := m.Parameters[key]
		ok, offered := true, true
		switch key {
		case "SIZE":
			m.Size, ok = parseSize(value)
		case "BODY":
			m.Body = strings.ToUpper(value)
			offered = m.Body != "BINARYMIME"
			ok = m.Body == "7BIT" || m.Body == "8BITMIME"
		case "SMTPUTF8":
			m.UTF8, offered, ok = true, offer.SMTPUTF8, value == ""
		case "REQUIRETLS":
			m.RequireTLS, offered, ok = true, offer.RequireTLS, value == ""
		case "RET":
			m.Return = strings.ToUpper(value)
			ok = m.Return == "FULL" || m.Return == "HDRS"
		case "ENVID":
			m.EnvelopeID, ok = DecodeXtext(value)
			ok = ok && len(value) <= maxENVID && isPrintable(m.EnvelopeID)
		case "AUTH":
			ok = len(value) <= maxAUTH && isSubmitter(value)
		default:
			return unknownParameter(key)
		}

		// A value is judged only where the parameter may be used at all.
		switch {
		case !offered:
			return reply.New(504, "5.5.4", key+" is not offered")
		case !ok:
			return malformedParameter(key)
		}
	}
	return nil
}

// parseParameters reads the parameters of RCPT.
func (r *Rcpt) parseParameters(list string, smtputf8 bool) (bad *reply.Reply) {
	var keys []string
	if r.Parameters, keys, bad = splitParameters(list); bad != nil {
		return bad
	}
	for _, key := range keys {
		value := r.Parameters[key]
		var ok bool
		switch key {
		case "NOTIFY":
			r.Notify, ok = parseNotify(value)
		case "ORCPT":
			r.OriginalRecipient, ok = parseORCPT(value, smtputf8)
		default:
			return unknownParameter(key)
		}
		if !ok {
			return malformedParameter(key)
		}
	}
	return nil
}

func unknownParameter(key string) *reply.Reply {
	return reply.New(555, "5.5.4", "Parameter "+Clean(key)+" is not recognized")
}

// parseSize reads the value of SIZE, which has up to 20 digits (RFC 1870).
func parseSize(value string) (int64, bool) {
	if value == "" || len(value) > 20 || strings.Trim(value, "0123456789") != "" {
		return 0, false
	}

	// More octets than that are too many in any case.
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		n = math.MaxInt64
	}
	return n, true
}

// parseNotify reads the value of NOTIFY (RFC 3461 section 4.1).
func parseNotify(value string) (n mail.Notify, ok bool) {
	// NEVER stands alone, and nothing stands twice.
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

	// The type is any atom: an address of another mail system is only passed on.
	if len(value) > maxORCPT || !mail.IsAddressType(kind) {
		return "", false
	}
	// Only the type utf-8 may hold more than ASCII, and has an encoding for it.
	var addr string
	if kind == "utf-8" {
		addr, ok = decodeUTF8Address(encoded, smtputf8)
	} else {
		addr, ok = DecodeXtext(encoded)
		ok = ok && isPrintable(addr)
	}
	return kind + ";" + addr, ok && addr != ""
}

// isSubmitter reports whether value can stand behind AUTH= (RFC 4954 section 5):
// xtext of <> or of a mailbox. Nothing is done with it: anybody can claim anything.
func isSubmitter(value string) bool {
	// "<>" says that the submitter is not known.
	s, ok := DecodeXtext(value)
	if !ok || s == "<>" {
		return ok
	}
	a, err := mail.ParseAddress(s)
	return err == nil && !a.IsNull() && s[0] != '<' && !a.HasHidden()
}

// DecodeXtext decodes xtext (RFC 3461 section 4). It returns false for what is none, or empty.
func DecodeXtext(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c <= ' ' || c > '~' || c == '=' {
			return "", false
		}

		// +HH is an octet, with upper-case digits only.
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
		// Raw UTF-8 is for clients that use SMTPUTF8, and some of ASCII only for \x{HEX}.
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
