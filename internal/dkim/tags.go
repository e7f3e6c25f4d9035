package dkim

import (
	"errors"
	"strings"
)

// tag is one of a tag list (RFC 6376 section 3.2). start and end are where all that
// stands behind the equals sign is in the list.
type tag struct {
	name, value string
	start, end  int
}

type tags []tag

// maxTags is how many tags a list may have. The longest that are known have 20.
const maxTags = 64

var (
	errTag      = errors.New("no tag list")
	errTwice    = errors.New("a tag stands there twice")
	errManyTags = errors.New("too many tags")
)

// parseTags reads a tag list, such as a signature or a key record. Tags with names that
// nobody knows are kept.
func parseTags(s string) (tags, error) {
	var all tags
	for at := 0; at < len(s); {
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
		case all.has(name):
			return nil, errTwice
		case len(all) == maxTags:
			return nil, errManyTags
		}
		all = append(all, tag{name, trimSpace(s[start:end]), start, end})
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

// find returns the tag of that name, with an empty name if there is none.
func (t tags) find(name string) tag {
	for _, one := range t {
		if one.name == name {
			return one
		}
	}
	return tag{}
}

func (t tags) has(name string) bool { return t.find(name).name != "" }

// text returns the value of a tag without any blanks; "" if there is none.
func (t tags) text(name string) string { return dropSpace(t.find(name).value) }

// list returns the value of a tag as a list with colons; nil if there is none.
func (t tags) list(name string) []string {
	if !t.has(name) {
		return nil
	}
	return strings.Split(t.text(name), ":")
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
