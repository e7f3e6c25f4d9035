// Package pattern compiles the regular expressions of configuration files, which are
// written for JavaScript, with RE2.
//
// The meaning is JavaScript's where RE2 can express it: classes and escapes are
// translated. Look-around and back references it cannot express; they are errors.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// The errors of what RE2 cannot express.
var (
	ErrLookAround    = errors.New("look-around such as (?=…) and (?!…) cannot be expressed here")
	ErrBackReference = errors.New(`back references such as \1 cannot be expressed here`)
)

// Whole compiles an expression that has to match a whole text, in any case.
func Whole(expression string) (*regexp.Regexp, error) {
	// The expression is compiled alone first, so that an error quotes the line as written.
	translated, err := translate(expression)
	if err != nil {
		return nil, err
	}
	if _, err := regexp.Compile(translated); err != nil {
		return nil, err
	}
	return regexp.Compile("^(?i:" + translated + ")$")
}

// Part compiles an expression that has to match somewhere in a text.
func Part(expression string) (*regexp.Regexp, error) {
	translated, err := translate(expression)
	if err != nil {
		return nil, err
	}
	return regexp.Compile(translated)
}

// PartFold compiles an expression that has to match somewhere in a text, in any case.
func PartFold(expression string) (*regexp.Regexp, error) {
	// The expression is compiled alone first, as in Whole.
	if _, err := Part(expression); err != nil {
		return nil, err
	}
	translated, _ := translate(expression)
	return regexp.Compile("(?i:" + translated + ")")
}

// blanks are what JavaScript's \s matches.
const blanks = `\t\n\v\f\r \x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}\x{feff}`

// translate writes an expression of JavaScript's in the syntax of RE2.
func translate(expression string) (string, error) {
	// The expression is copied, but for what means something else, or nothing, in RE2.
	var b strings.Builder
	inClass := false
	for i := 0; i < len(expression); {
		rest := expression[i:]
		n, out := 1, rest[:1]
		switch {
		case rest[0] == '\\':
			var err error
			if n, out, err = translateEscape(rest, inClass); err != nil {
				return "", err
			}
		case inClass:
			inClass = rest[0] != ']'
			if rest[0] == '[' {
				out = `\[` // RE2 would look for the name of a class
			}
		case strings.HasPrefix(rest, "[^]"):
			n, out = 3, `[\s\S]`
		case strings.HasPrefix(rest, "[]"):
			n, out = 2, `[^\x00-\x{10FFFF}]`
		case rest[0] == '[':
			inClass = true
			if strings.HasPrefix(rest, "[^") {
				n, out = 2, "[^"
			}
		case rest[0] == '.':
			out = `[^\n\r\x{2028}\x{2029}]`
		case strings.HasPrefix(rest, "(?=") || strings.HasPrefix(rest, "(?!") || strings.HasPrefix(rest, "(?<=") || strings.HasPrefix(rest, "(?<!"):
			return "", ErrLookAround
		}
		b.WriteString(out)
		i += n
	}
	return b.String(), nil
}

// translateEscape translates the escape at the start of rest and returns how many bytes it
// took.
func translateEscape(rest string, inClass bool) (n int, out string, err error) {
	if len(rest) == 1 {
		return 1, rest, nil // RE2 complains of it
	}
	// Escapes of other languages, such as \A and \Z, are plain letters in JavaScript.
	c := rest[1]
	switch {
	case c >= '1' && c <= '9' || c == 'k':
		return 0, "", ErrBackReference
	case c == '0':
		return 2, `\x00`, nil
	case c == 'u' && len(rest) >= 6 && isHex(rest[2:6]):
		return 6, `\x{` + rest[2:6] + `}`, nil
	case c == 'c' && len(rest) >= 3 && isLetter(rest[2]):
		return 3, fmt.Sprintf(`\x%02x`, rest[2]&0x1f), nil
	case c == 's' && inClass:
		return 2, blanks, nil
	case c == 's':
		return 2, "[" + blanks + "]", nil
	case c == 'S' && !inClass:
		return 2, "[^" + blanks + "]", nil
	case c == 'b' && inClass:
		return 2, `\x08`, nil
	case strings.IndexByte("bBdDwWtnvfrSx", c) >= 0:
		return 2, rest[:2], nil
	case isLetter(c) || c == '_':
		return 2, rest[1:2], nil // a needless escape means the character itself
	}
	return 2, rest[:2], nil
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

func isLetter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
