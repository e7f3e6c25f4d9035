package mail

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

// Size limits of addresses in octets. MaxPath is RFC 5321 section 4.5.3.1.3;
// MaxPathRelaxed is what Haraka's connection.ini main.postel permits.
const (
	MaxPath        = 256
	MaxPathRelaxed = 998
	maxDomain      = 255
	maxLabel       = 63
)

// Address is a mailbox: the reverse-path or one forward-path without its angle
// brackets. The zero value is the null reverse-path. Local is kept unquoted
// (String quotes it where the grammar asks for it); Domain is kept as it was
// received, possibly UTF-8 or an address literal in square brackets, and may be
// empty only in the null path and in the bare "postmaster".
type Address struct {
	Local  string
	Domain string
}

// ErrAddress is what every error of ParseAddress wraps.
var ErrAddress = errors.New("invalid address")

// ParseAddress reads "local@domain", with or without angle brackets and with
// the local part quoted or not. "" and "<>" give the null Address. The last @
// separates the parts. A source route is dropped (RFC 5321 appendix C). Control
// characters, invalid UTF-8, empty labels, and a domain that is neither a
// hostname nor an address literal are errors that wrap ErrAddress. A hostname may
// have underscores; see IsHostName. Characters of IsHidden beyond ASCII pass: the
// envelopes of messages that are in a queue may have them.
func ParseAddress(s string) (Address, error) {
	if len(s) > 1 && s[0] == '<' && s[len(s)-1] == '>' {
		s = s[1 : len(s)-1]
	}

	// The null path has no parts to look at. Everything below it is checked for bytes that no
	// address may carry, before it is taken apart.
	if s == "" {
		return Address{}, nil
	}
	if len(s) > MaxPathRelaxed {
		return Address{}, fmt.Errorf("%w: longer than %d octets", ErrAddress, MaxPathRelaxed)
	}
	if !utf8.ValidString(s) {
		return Address{}, fmt.Errorf("%w: not UTF-8", ErrAddress)
	}
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return Address{}, fmt.Errorf("%w: control character", ErrAddress)
		}
	}

	// A source route names hosts that nobody relays through any more. RFC 5321 wants it accepted
	// and ignored.
	if s[0] == '@' {
		if i := strings.IndexByte(s, ':'); i > 0 {
			s = s[i+1:]
		}
	}

	// A quoted local part may hold an @, a domain never does: the last one separates.
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		if strings.EqualFold(s, "postmaster") { // RFC 5321 section 4.5.1
			return Address{Local: s}, nil
		}
		return Address{}, fmt.Errorf("%w: no domain", ErrAddress)
	}

	// The quotes are syntax, not part of the mailbox. Without them two spellings of one address
	// compare equal.
	local, domain := s[:at], s[at+1:]
	if n := len(local); n > 1 && local[0] == '"' && local[n-1] == '"' {
		u, ok := unquote(local[1 : n-1])
		if !ok {
			return Address{}, fmt.Errorf("%w: malformed quoted string", ErrAddress)
		}
		local = u
	}
	if local == "" {
		return Address{}, fmt.Errorf("%w: empty local part", ErrAddress)
	}
	if err := checkDomain(domain); err != nil {
		return Address{}, err
	}
	return Address{Local: local, Domain: domain}, nil
}

func unquote(s string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			if i++; i == len(s) {
				return "", false
			}
		case '"':
			return "", false
		}
		b.WriteByte(s[i])
	}
	return b.String(), true
}

func checkDomain(d string) error {
	switch {
	case d == "":
		return fmt.Errorf("%w: empty domain", ErrAddress)
	case len(d) > maxDomain:
		return fmt.Errorf("%w: domain longer than %d octets", ErrAddress, maxDomain)
	case d[0] == '[':
		if _, ok := parseLiteral(d); !ok {
			return fmt.Errorf("%w: bad address literal", ErrAddress)
		}
		return nil
	}

	// IDNA has its own rules for labels beyond ASCII, and its A-labels pass checkLabels afterwards.
	if !IsASCII(d) {
		_, err := toASCII(d)
		return err
	}
	return checkLabels(d)
}

// checkLabels checks a domain in ASCII. The underscore is no character of a host
// name (RFC 952, RFC 1123), but containers and old hosts are called so.
func checkLabels(d string) error {
	for label := range strings.SplitSeq(d, ".") {
		switch {
		case label == "":
			return fmt.Errorf("%w: empty label in domain", ErrAddress)
		case len(label) > maxLabel:
			return fmt.Errorf("%w: label longer than %d octets", ErrAddress, maxLabel)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("%w: label begins or ends with a hyphen", ErrAddress)
		}
		for i := 0; i < len(label); i++ {
			if c := label[i]; !isLetDig(c) && c != '-' && c != '_' {
				return fmt.Errorf("%w: character %q in domain", ErrAddress, c)
			}
		}
	}
	return nil
}

// lookup is idna.Lookup, but with underscores. What else of ASCII it lets pass
// checkLabels refuses.
var lookup = idna.New(idna.MapForLookup(), idna.BidiRule(), idna.StrictDomainName(false))

// toASCII returns a domain in lower case with A-labels (RFC 5890).
func toASCII(d string) (string, error) {
	ascii, err := lookup.ToASCII(d)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrAddress, err)
	}
	if len(ascii) > maxDomain {
		return "", fmt.Errorf("%w: domain longer than %d octets", ErrAddress, maxDomain)
	}
	return ascii, checkLabels(ascii)
}

// IsHostName reports whether a domain keeps to letters, digits and hyphens
// (RFC 1123 section 2.1), in its A-labels where it is not ASCII.
func IsHostName(domain string) bool {
	d := CanonicalDomain(domain)
	return d != "" && len(d) <= maxDomain && checkLabels(d) == nil && !strings.Contains(d, "_")
}

func parseLiteral(d string) (netip.Addr, bool) {
	if len(d) < 3 || d[0] != '[' || d[len(d)-1] != ']' {
		return netip.Addr{}, false
	}
	s := d[1 : len(d)-1]
	if len(s) > 5 && strings.EqualFold(s[:5], "IPv6:") {
		a, err := netip.ParseAddr(s[5:])
		return a, err == nil && a.Is6() && a.Zone() == ""
	}
	a, err := netip.ParseAddr(s)
	return a, err == nil && a.Is4()
}

// IsNull reports whether a is the null reverse-path.
func (a Address) IsNull() bool { return a.Local == "" && a.Domain == "" }

// Host returns the domain in the form in which domains are compared: lower
// case, A-labels. Address literals are only lower-cased.
func (a Address) Host() string { return CanonicalDomain(a.Domain) }

// CanonicalDomain returns d in lower case with A-labels (RFC 5890) and without
// a trailing dot. What IDNA refuses is only lower-cased.
func CanonicalDomain(d string) string {
	d = strings.TrimSuffix(d, ".")
	if !IsASCII(d) {
		if ascii, err := toASCII(d); err == nil {
			return ascii
		}
	}
	return strings.ToLower(d)
}

// Literal returns the address in a domain that is an address literal
// (RFC 5321 section 4.1.3).
func (a Address) Literal() (netip.Addr, bool) { return parseLiteral(a.Domain) }

// IsUTF8 reports whether a needs SMTPUTF8 as it is written (RFC 6531).
func (a Address) IsUTF8() bool { return !IsASCII(a.Local) || !IsASCII(a.Domain) }

// ASCII returns a with its domain in A-labels; ok is false when the local part
// still is not ASCII, so that no ASCII form exists.
func (a Address) ASCII() (ascii Address, ok bool) {
	if !IsASCII(a.Domain) {
		a.Domain = CanonicalDomain(a.Domain)
	}
	return a, IsASCII(a.Local) && IsASCII(a.Domain)
}

// String returns local@domain as it goes on the wire, quoted where needed, or
// "" for the null path.
func (a Address) String() string {
	switch local := a.quotedLocal(); {
	case a.IsNull():
		return ""
	case a.Domain == "":
		return local
	default:
		return local + "@" + a.Domain
	}
}

// AppendTo appends String to b.
func (a Address) AppendTo(b []byte) []byte {
	switch {
	case a.IsNull():
		return b
	case isDotString(a.Local):
		b = append(b, a.Local...)
	default:
		b = append(b, a.quotedLocal()...)
	}
	if a.Domain == "" {
		return b
	}
	return append(append(b, '@'), a.Domain...)
}

// ReadsBack returns an error unless ParseAddress reads a from its String.
func (a Address) ReadsBack() error {
	// What needs no quotes comes apart at the @ as it was put together.
	if a.Domain != "" && isDotString(a.Local) && IsASCII(a.Local) && IsASCII(a.Domain) && len(a.Local)+len(a.Domain) < MaxPathRelaxed {
		return checkDomain(a.Domain)
	}

	// Everything else is parsed for real: the queue stores the string, so the string has to give
	// the same address after a restart.
	b, err := ParseAddress(a.String())
	if err == nil && a != b {
		err = fmt.Errorf("%w: it would read back as another one", ErrAddress)
	}
	return err
}

// quotedLocal is Local as it goes on the wire.
func (a Address) quotedLocal() string {
	if isDotString(a.Local) {
		return a.Local
	}
	return `"` + quoter.Replace(a.Local) + `"`
}

// HasHidden reports whether a has a character of IsHidden. The joiners of some
// scripts may stand in a domain, where IDNA looks after them, and within the words
// of these scripts in the local part.
func (a Address) HasHidden() bool {
	if strings.ContainsFunc(a.Domain, func(r rune) bool { return IsHidden(r) && !isJoiner(r) }) {
		return true
	}

	// A joiner belongs only between two letters of a script that uses it. Anywhere else it makes
	// two addresses look alike.
	before := ' '
	for i, r := range a.Local {
		if IsHidden(r) {
			after, _ := utf8.DecodeRuneInString(a.Local[i+utf8.RuneLen(r):])
			if !isJoiner(r) || !unicode.In(before, joined...) || !unicode.In(after, joined...) {
				return true
			}
		}
		before = r
	}
	return false
}

// isJoiner reports whether r is one of the two joiners, which IDNA allows where a
// script needs them (RFC 5892 appendix A).
func isJoiner(r rune) bool { return r == '\u200c' || r == '\u200d' }

// joined lists the scripts with letters that change shape beside a joiner, so that
// words are spelled with it.
var joined = []*unicode.RangeTable{
	unicode.Arabic, unicode.Bengali, unicode.Devanagari, unicode.Gujarati, unicode.Gurmukhi, unicode.Kannada, unicode.Khmer, unicode.Malayalam,
	unicode.Mongolian, unicode.Myanmar, unicode.Nko, unicode.Oriya, unicode.Sinhala, unicode.Syriac, unicode.Tamil, unicode.Telugu,
}

// IsHidden reports whether r cannot be seen, or changes how others are shown:
// control characters, line and paragraph separators, blanks but the one of ASCII,
// format characters with those that turn the direction of text, the ones
// ignored by default, and code points that are no characters.
func IsHidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return r == '\u2800' || unicode.In(r, hidden...) // BRAILLE PATTERN BLANK
}

var hidden = []*unicode.RangeTable{
	unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Zs, unicode.Variation_Selector,
	unicode.Other_Default_Ignorable_Code_Point, unicode.Noncharacter_Code_Point,
}

// Path returns String in angle brackets: "<>" for the null path.
func (a Address) Path() string {
	if a.IsNull() || a.Domain == "" {
		return "<" + a.String() + ">"
	}
	return "<" + a.quotedLocal() + "@" + a.Domain + ">"
}

// MarshalText implements encoding.TextMarshaler with String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler with ParseAddress.
func (a *Address) UnmarshalText(b []byte) error {
	p, err := ParseAddress(string(b))
	if err == nil {
		*a = p
	}
	return err
}

var quoter = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// isDotString reports whether s is a Dot-string (RFC 5321 section 4.1.2), with
// UTF-8 allowed (RFC 6531 section 3.3).
func isDotString(s string) bool {
	if s == "" || s[0] == '.' || s[len(s)-1] == '.' || strings.Contains(s, "..") {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf || isLetDig(c) || c == '.' || strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0 {
			continue
		}
		return false
	}
	return true
}

func isLetDig(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// AddressLiteral returns a as an address literal (RFC 5321 section 4.1.3). A zone,
// which has no place in one, is the caller's to take off.
func AddressLiteral(a netip.Addr) string {
	if a.Is6() {
		return "[IPv6:" + a.String() + "]"
	}
	return "[" + a.String() + "]"
}
