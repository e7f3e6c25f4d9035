package syntax

import (
	"strings"

	"tarishi/internal/mail"
)

// Path is a reverse-path or forward-path (RFC 5321 section 4.1.2).
type Path struct {
	Text    string       // as the client wrote it, with its keyword: "FROM:<a@b>"
	Address mail.Address // local part and domain; zero: the null reverse-path
	Err     error        // why Address, which can be read, is none; nil: it is one
}

// Plain returns the address without quotes, as logs show it.
func (p Path) Plain() string {
	if p.Address.IsNull() {
		return ""
	}
	return p.Address.Local + "@" + p.Address.Domain
}

// cutPath splits the argument of MAIL or RCPT into the path with its keyword
// ("FROM:<a@b>") and the parameters behind it, which a blank must separate. It does
// not look into the path.
func cutPath(arg string) (path, rest string, ok bool) {
	colon := strings.IndexByte(arg, ':')
	if colon < 0 {
		return arg, "", true // no path, as its parser will find
	}
	from := colon + 1
	for from < len(arg) && isBlank(arg[from]) {
		from++
	}

	// A blank or a bracket within quotes belongs to the path.
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

// parsePath reads a path behind its keyword, "FROM:" or "TO:", in any case. null
// allows "<>". A source route is dropped, and brackets may be missing. ok is false if
// the path cannot be read.
func parsePath(text, keyword string, null bool) (p Path, ok bool) {
	p.Text = text
	if len(text) < len(keyword) || !strings.EqualFold(text[:len(keyword)], keyword) {
		return Path{}, false
	}
	rest := strings.TrimSpace(text[len(keyword):])
	if null && rest == "<>" {
		return p, true
	}

	// Brackets may be missing, but not one of them.
	if bracketed := strings.HasPrefix(rest, "<"); bracketed {
		if rest = rest[1:]; !strings.HasSuffix(rest, ">") {
			return Path{}, false
		}
		rest = rest[:len(rest)-1]
	}
	if strings.HasPrefix(rest, "@") { // a source route (RFC 5321 appendix C)
		if _, rest, ok = strings.Cut(rest, ":"); !ok {
			return Path{}, false
		}
	}

	// An address that can be read but is none gets another reply than a path that cannot.
	local, domain, ok := cutMailbox(rest)
	if !ok {
		return Path{}, false
	}
	p.Address = mail.Address{Local: local, Domain: domain}
	p.Err = checkAddress(p.Address, rest)
	return p, true
}

// cutMailbox splits a mailbox into its local part, without quotes, and its domain.
func cutMailbox(s string) (local, domain string, ok bool) {
	// Anything may stand within quotes, outside of them only what structures nothing.
	if strings.HasPrefix(s, `"`) {
		local, s, ok = cutQuoted(s[1:])
	} else if i := strings.IndexAny(s, "@()<>[]:;\\,\" \t"); i >= 0 && s[i] == '@' {
		local, s, ok = s[:i], s[i:], true
	}
	if !ok || local == "" || !strings.HasPrefix(s, "@") {
		return "", "", false
	}
	domain = s[1:]
	return local, domain, domain != "" && !strings.HasSuffix(domain, "@") && !strings.ContainsAny(domain, " \t>")
}

// cutQuoted takes a quoted string, behind its first quote, off s.
func cutQuoted(s string) (text, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:], true
		case '\\':
			if i++; i == len(s) {
				return "", "", false
			}
		}
		b.WriteByte(s[i])
	}
	return "", "", false
}

// checkAddress checks that a, which was read from text, is an address. In a quoted
// local part may be anything, so that such an address is written anew for the check.
func checkAddress(a mail.Address, text string) error {
	// Unquoted, text is what ParseAddress reads; it takes the last @ where the grammar
	// has the first.
	if strings.HasPrefix(text, `"`) {
		text = a.Path()
	}
	switch checked, err := mail.ParseAddress(text); {
	case err != nil:
		return err
	case checked != a: // an @ too many
		return mail.ErrAddress
	}
	return nil
}
