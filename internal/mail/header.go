package mail

import (
	"bytes"
	"slices"
	"strings"
)

// Header is the header section of a message as raw fields in order. Fields that
// nobody touches keep their bytes. Names compare without regard to case.
type Header struct {
	fields  [][]byte // "Name: value\r\n" with its folds, each
	changed bool
}

// ParseHeader reads the fields at the start of a message up to and including
// the empty line. size is how many bytes of b belong to the header section with
// that line. A message may lack the empty line: the section then ends before
// the first line that is neither a field nor a fold (complete is false), and
// the writer of the message adds the line. The "From " lines of a mailbox file
// become fields, see mailboxRun, and Changed reports true. b is kept, not copied.
func ParseHeader(b []byte) (h *Header, size int, complete bool) {
	h, size, complete, mailbox := parseHeader(b)
	for _, i := range mailbox {
		h.fields[i] = slices.Concat([]byte(mailboxField), h.fields[i])
		h.changed = true
	}
	return h, size, complete
}

// usualFields is for how many fields a header section has room at first.
const usualFields = 16

// parseHeader is ParseHeader, but leaves the mailbox lines as they are and returns
// which of the fields they are.
func parseHeader(b []byte) (h *Header, size int, complete bool, mailbox []int) {
	h = &Header{fields: make([][]byte, 0, usualFields)}
	seen := 0 // fields that mailboxRun has looked at
	for size < len(b) {
		line, rest := cutLine(b[size:])
		switch {
		case isEmpty(line):
			return h, size + len(line), true, mailbox
		case isFold(line):
			n := len(h.fields)
			if n == 0 {
				return h, size, false, mailbox
			}

			// A fold directly follows its field in b, so the field grows in place and nothing is
			// copied.
			last := h.fields[n-1]
			h.fields[n-1] = b[size-len(last) : len(b)-len(rest)]
		case isField(line):
			h.fields = append(h.fields, line[:len(line):len(line)])
		default:
			// Neither field nor fold: usually the end of a section without an empty line. It may
			// also be the separator of a mailbox file, with more fields below it.
			run := mailboxRun(h.fields[seen:], b[size:])
			if run == 0 {
				return h, size, false, mailbox
			}
			seen = len(h.fields)
			for end := size + run; size < end; {
				line, _ := cutLine(b[size:end])
				size += len(line)
				if isFold(line) {
					last := &h.fields[len(h.fields)-1]
					*last = b[size-len(line)-len(*last) : size]
					continue
				}
				mailbox = append(mailbox, len(h.fields))
				h.fields = append(h.fields, line[:len(line):len(line)])
			}
			continue
		}
		size += len(line)
	}
	return h, size, false, mailbox
}

// cutLine returns the first line of b with its line end, and what follows.
func cutLine(b []byte) (line, rest []byte) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1], b[i+1:]
	}
	return b, nil
}

// isEmpty reports whether nothing stands in a line.
func isEmpty(line []byte) bool { return len(bytes.TrimRight(line, "\r\n")) == 0 }

// isFold reports whether a line, which is not empty, continues the one before.
func isFold(line []byte) bool { return line[0] == ' ' || line[0] == '\t' }

// isField reports whether line begins with a field name and a colon (RFC 5322
// section 2.2; blanks before the colon are the obsolete form of 4.5).
func isField(line []byte) bool {
	i := bytes.IndexByte(line, ':')
	if i < 1 {
		return false
	}
	name := bytes.TrimRight(line[:i], " \t")
	for _, c := range name {
		if c <= ' ' || c == 0x7f {
			return false
		}
	}
	return len(name) > 0
}

// InHeader reports whether a line, with its line end, can stand in a header section
// behind its first field: it is a field, a fold, or perhaps a line of a mailbox file.
func InHeader(line []byte) bool { return isFold(line) || isField(line) || isMailboxLine(line) }

// Get returns the value of the first field of that name, unfolded and without
// surrounding blanks; "" if there is none.
func (h *Header) Get(name string) string {
	for _, f := range h.fields {
		if fieldIs(f, name) {
			return fieldValue(f)
		}
	}
	return ""
}

// All returns the values of every field of that name, top to bottom.
func (h *Header) All(name string) []string {
	var all []string
	for _, f := range h.fields {
		if fieldIs(f, name) {
			all = append(all, fieldValue(f))
		}
	}
	return all
}

// Count returns how many fields have that name.
func (h *Header) Count(name string) int {
	n := 0
	for _, f := range h.fields {
		if fieldIs(f, name) {
			n++
		}
	}
	return n
}

// Has reports whether there is a field of that name.
func (h *Header) Has(name string) bool { return h.Count(name) > 0 }

// MakesTLSOptional reports whether the header section says that delivery matters more than TLS: one
// field TLS-Required with the value No (RFC 8689 section 3).
func (h *Header) MakesTLSOptional() bool {
	return h.Count("TLS-Required") == 1 && strings.EqualFold(strings.TrimSpace(h.Get("TLS-Required")), "No")
}

// Add puts a field at the end of the section. Line breaks in value become
// folds, so that no value can make a second field.
func (h *Header) Add(name, value string) {
	h.fields = append(h.fields, makeField(name, value))
	h.changed = true
}

// AddLeading puts a field in front of all others.
func (h *Header) AddLeading(name, value string) {
	h.fields = append([][]byte{makeField(name, value)}, h.fields...)
	h.changed = true
}

// Remove takes away every field of that name.
func (h *Header) Remove(name string) {
	if !h.Has(name) {
		return
	}
	// The new slice never shares memory with the old one, which a copy of the header may still use.
	kept := h.fields[:0:0]
	for _, f := range h.fields {
		if !fieldIs(f, name) {
			kept = append(kept, f)
		}
	}
	h.fields, h.changed = kept, true
}

// Rename gives every field called from the name to and moves it to the end, with
// its folds.
func (h *Header) Rename(from, to string) {
	h.RenameIf(from, to, func(string) bool { return true })
}

// RenameIf is Rename for the fields whose values, as All returns them, match.
func (h *Header) RenameIf(from, to string, matches func(value string) bool) {
	found := func(f []byte) bool { return fieldIs(f, from) && matches(fieldValue(f)) }
	if !slices.ContainsFunc(h.fields, found) {
		return
	}
	var kept, renamed [][]byte
	for _, f := range h.fields {
		if found(f) {
			renamed = append(renamed, append([]byte(to), f[bytes.IndexByte(f, ':'):]...))
		} else {
			kept = append(kept, f)
		}
	}
	h.fields, h.changed = append(kept, renamed...), true
}

// Changed reports whether the section differs from what was parsed.
func (h *Header) Changed() bool { return h.changed }

// Len returns the number of fields.
func (h *Header) Len() int { return len(h.fields) }

// Bytes returns the section with its closing empty line.
func (h *Header) Bytes() []byte {
	n := 2
	for _, f := range h.fields {
		n += len(f) + 2
	}
	b := make([]byte, 0, n)
	for _, f := range h.fields {
		b = append(b, f...)
		if !bytes.HasSuffix(f, []byte("\n")) {
			b = append(b, '\r', '\n')
		}
	}
	return append(b, '\r', '\n')
}

func fieldIs(f []byte, name string) bool {
	return len(f) > len(name) && strings.EqualFold(string(f[:len(name)]), name) &&
		(f[len(name)] == ':' || f[len(name)] == ' ' || f[len(name)] == '\t') &&
		bytes.HasPrefix(bytes.TrimLeft(f[len(name):], " \t"), []byte(":"))
}

func fieldValue(f []byte) string {
	v := f[bytes.IndexByte(f, ':')+1:]
	v = bytes.ReplaceAll(v, []byte("\r\n"), nil)
	return strings.TrimSpace(string(bytes.ReplaceAll(v, []byte("\n"), nil)))
}

func makeField(name, value string) []byte {
	// Every line break becomes a fold. Values come from peers and plugins, and must not be able to
	// begin a field.
	value = strings.ReplaceAll(strings.ReplaceAll(value, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(strings.TrimRight(value, "\n"), "\n")
	var b strings.Builder
	b.WriteString(name + ": ")
	for i, line := range lines {
		if i > 0 {
			if strings.TrimSpace(line) == "" {
				continue // an empty line would end the header
			}
			b.WriteString("\r\n")
			if line[0] != ' ' && line[0] != '\t' {
				b.WriteByte('\t')
			}
		}
		b.WriteString(line)
	}
	b.WriteString("\r\n")
	return []byte(b.String())
}
