package canon

import (
	"errors"
	"strings"
)

// Tag is one of a tag list. Start and End are where all that stands behind the equals sign
// is in the list.
type Tag struct {
	Name, Value string
	Start, End  int
}

// Tags is a tag list (RFC 6376 section 3.2).
type Tags []Tag

// maxTags is how many tags a list may have. The longest that are known have 20.
const maxTags = 64

var (
	errTag      = errors.New("no tag list")
	errTwice    = errors.New("a tag stands there twice")
	errManyTags = errors.New("too many tags")
)

// ParseTags reads a tag list, such as a signature or a key record. Tags with names that
// nobody knows are kept.
func ParseTags(s string) (Tags, error) {
	var all Tags
	for at := 0; at < len(s); {
		// Values are found before they are judged, for b= has to be cut out of the raw text.
		end := len(s)
		if i := strings.IndexByte(s[at:], ';'); i >= 0 {
			end = at + i
		}
		name, _, found := strings.Cut(s[at:end], "=")
		start := at + len(name) + 1
		at = end + 1

		// Nothing but blanks may stand behind the last semicolon.
		name = trimSpace(name)
		switch {
		case !found && name == "" && at >= len(s):
			continue
		case !found || !isTagName(name):
			return nil, errTag
		case all.Has(name):
			return nil, errTwice
		case len(all) == maxTags:
			return nil, errManyTags
		}
		all = append(all, Tag{name, trimSpace(s[start:end]), start, end})
	}
	return all, nil
}

func isTagName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i] | 0x20
		isLetter := 'a' <= c && c <= 'z'
		if !isLetter && (i == 0 || (s[i] < '0' || s[i] > '9') && s[i] != '_') {
			return false
		}
	}
	return s != ""
}

// Find returns the tag of that name, with an empty name if there is none.
func (t Tags) Find(name string) Tag {
	for _, one := range t {
		if one.Name == name {
			return one
		}
	}
	return Tag{}
}

// Has reports whether there is a tag of that name.
func (t Tags) Has(name string) bool { return t.Find(name).Name != "" }

// Text returns the value of a tag without any blanks; "" if there is none.
func (t Tags) Text(name string) string { return dropSpace(t.Find(name).Value) }

// List returns the value of a tag as a list with colons; nil if there is none.
func (t Tags) List(name string) []string {
	if !t.Has(name) {
		return nil
	}
	return strings.Split(t.Text(name), ":")
}

const space = " \t\r\n"

func trimSpace(s string) string { return strings.Trim(s, space) }

// dropSpace returns s without its blanks and folds.
func dropSpace(s string) string {
	if !strings.ContainsAny(s, space) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if strings.IndexByte(space, s[i]) < 0 {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}
