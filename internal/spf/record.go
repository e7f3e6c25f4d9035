package spf

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// cutVersion returns the terms of a policy record; ok is false if it is another record
// (RFC 7208 section 4.5).
func cutVersion(text string) (terms string, ok bool) {
	const version = "v=spf1"
	if len(text) < len(version) || !strings.EqualFold(text[:len(version)], version) {
		return "", false
	}
	terms = text[len(version):]
	return terms, terms == "" || terms[0] == ' '
}

// checkTerms reports the first error in the terms of a record (RFC 7208 section 12).
func checkTerms(terms string) error {
	// Modifiers are known by the equals sign, which comes before any colon or slash.
	seen := map[string]bool{}
	for term := range strings.SplitSeq(terms, " ") {
		if term == "" {
			continue
		}
		if name, text, ok := cutModifier(term); ok {
			if err := checkModifier(name, text, seen); err != nil {
				return fmt.Errorf("%w: %.80q", err, term)
			}
			continue
		}
		if !isMechanism(strings.TrimLeft(term[:1], "+-?~") + term[1:]) {
			return fmt.Errorf("%w: %.80q", errSyntax, term)
		}
	}
	return nil
}

// cutModifier takes a modifier apart: a name that begins with a letter, and a text.
func cutModifier(term string) (name, text string, ok bool) {
	// Only a name may stand in front: an equals sign may also be part of a macro.
	name, text, ok = strings.Cut(term, "=")
	if !ok || !isLetter(name) {
		return "", "", false
	}
	for i := 0; i < len(name); i++ {
		if !isLetter(name[i:]) && !isDigit(name[i:]) && strings.IndexByte("-_.", name[i]) < 0 {
			return "", "", false
		}
	}
	return strings.ToLower(name), text, true
}

// checkModifier reports an error in a modifier. redirect and exp may stand in a
// record once each; others are unknown and allowed.
func checkModifier(name, text string, seen map[string]bool) error {
	known := name == "redirect" || name == "exp"
	if known && (seen[name] || !isDomainSpec(text)) || !known && !isMacroString(text, allMacros) {
		return errSyntax
	}
	seen[name] = true
	return nil
}

// isMechanism reports whether a term without its qualifier is a mechanism.
func isMechanism(term string) bool {
	// A colon begins a domain or an address, a slash the length of a prefix.
	end := strings.IndexAny(term, ":/")
	if end < 0 {
		end = len(term)
	}
	name, rest := strings.ToLower(term[:end]), term[end:]
	text, given := strings.CutPrefix(rest, ":")
	// Each has its own idea of what may follow, and must follow.
	switch name {
	case "all":
		return rest == ""
	case "include", "exists":
		return given && isDomainSpec(text)
	case "ptr":
		return rest == "" || given && isDomainSpec(text)
	case "ip4", "ip6":
		return given && isNetwork(text, name == "ip4")
	case "a", "mx":
		domain, ok := cutPrefixes(rest)
		text, given = strings.CutPrefix(domain, ":")
		return ok && (domain == "" || given && isDomainSpec(text))
	}
	return false
}

// isNetwork reports whether text is an address, perhaps with the length of a prefix.
func isNetwork(text string, is4 bool) bool {
	// The standard library is as strict as the grammar: no leading zeros, no zone.
	host, bits, prefixed := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.Is4() == is4 && (!prefixed || isLength(bits, addr.BitLen()))
}

// isLength reports whether text is the length of a prefix.
func isLength(text string, most int) bool {
	n, err := strconv.ParseUint(text, 10, 8)
	return err == nil && int(n) <= most && (text[0] != '0' || text == "0")
}

// cutPrefixes drops the lengths of prefixes behind a domain: /24, //64 or /24//64.
func cutPrefixes(text string) (domain string, ok bool) {
	if domain, bits, found := strings.Cut(text, "//"); found {
		if !isLength(bits, 128) {
			return "", false
		}
		text = domain
	}
	at := strings.LastIndexByte(text, '/')
	if at < 0 {
		return text, true
	}

	// A slash may also be a delimiter in a macro, or part of a name.
	if end := strings.LastIndexByte(text, '}'); end > at || strings.Trim(text[at+1:], "0123456789") != "" {
		return text, true
	}
	return text[:at], isLength(text[at+1:], 32)
}

// The letters of macros: those of domains, and those that explanations have too.
const (
	domainMacros = "slodiphv"
	allMacros    = "slodiphvcrt"
)

// isDomainSpec reports whether text is a domain, with macros: it ends with a top-level
// label or with a macro.
func isDomainSpec(text string) bool {
	if !isMacroString(text, domainMacros) {
		return false
	}
	if strings.HasSuffix(text, "}") || strings.HasSuffix(text, "%%") || strings.HasSuffix(text, "%_") || strings.HasSuffix(text, "%-") {
		return true
	}
	// A top-level label is not all digits: that would be an address.
	text = strings.TrimSuffix(text, ".")
	label := text[strings.LastIndexByte(text, '.')+1:]
	if len(label) == len(text) || label == "" || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	letters := false
	for i := 0; i < len(label); i++ {
		switch {
		case isLetter(label[i:]) || label[i] == '-':
			letters = true
		case !isDigit(label[i:]):
			return false
		}
	}
	return letters
}

// isMacroString reports whether text has nothing but visible characters and macros with
// these letters (RFC 7208 section 7.1).
func isMacroString(text, letters string) bool {
	// Each percent sign begins a macro or an escape.
	for text != "" {
		c := text[0]
		if c <= ' ' || c > '~' {
			return false
		}
		if text = text[1:]; c != '%' {
			continue
		}
		if text == "" {
			return false
		}
		c, text = text[0], text[1:]
		if c == '{' {
			body, rest, closed := strings.Cut(text, "}")
			if !closed || !isMacro(body, letters) {
				return false
			}
			text = rest
		} else if strings.IndexByte("%_-", c) < 0 {
			return false
		}
	}
	return true
}

// isMacro reports whether text is a macro without its brackets: a letter, how many parts
// of the value count, whether their order is reversed, and the delimiters.
func isMacro(text, letters string) bool {
	// Letters in upper case ask for the same value, encoded for a URL.
	if text == "" || strings.IndexByte(letters, text[0]|0x20) < 0 {
		return false
	}
	// A number of parts that is zero would leave nothing of the value.
	rest := strings.TrimLeft(text[1:], "0123456789")
	digits := text[1 : len(text)-len(rest)]
	if digits != "" && strings.Trim(digits, "0") == "" {
		return false
	}
	if rest != "" && rest[0]|0x20 == 'r' {
		rest = rest[1:]
	}
	return strings.Trim(rest, ".-+,/_=") == ""
}

// isLetter and isDigit look at the first octet of s.
func isLetter(s string) bool { return s != "" && 'a' <= s[0]|0x20 && s[0]|0x20 <= 'z' }
func isDigit(s string) bool  { return s != "" && '0' <= s[0] && s[0] <= '9' }
