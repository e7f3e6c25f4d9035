// Package dkim signs messages and verifies their signatures (DomainKeys Identified
// Mail, RFC 6376, with the algorithms and key sizes of RFC 8301 and RFC 8463).
//
// A message is streamed: its header section is held, at most 1 MiB, and its body is
// hashed as it passes, once for each way to canonicalize it, however many signatures
// or keys there are. All work is linear in the size of the message, whatever its
// sender has put into it: signatures beyond a limit are not looked at, RSA keys are
// bounded in size, and keys are looked up, together and under one deadline, only for
// signatures that are well formed and whose body hash is right.
//
// A signature counts for the message as it stands on the wire. A Signer's fields are
// therefore the last change to a message: they go in front of it, and nothing behind
// them may change.
//
// Signatures by rsa-sha1 and those that leave a part of the body unsigned (l=) are
// never valid.
package dkim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// Resolver looks up keys. Its errors are those of package dns.
type Resolver interface {
	TXT(ctx context.Context, name string) ([]string, error)
}

// Status is what came of a signature. The zero value is None.
type Status uint8

// The results of RFC 8601 section 2.7.1.
const (
	None      Status = iota // there is no signature
	Pass                    // it is valid
	Fail                    // the message is not what was signed
	Policy                  // it is not acceptable here, valid or not
	TempError               // its key could not be had; may be different next time
	PermError               // it, or its key, can never be used
)

// String returns the word of RFC 8601, such as "temperror".
func (s Status) String() string {
	words := [...]string{"none", "pass", "fail", "policy", "temperror", "permerror"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("Status(%d)", s)
}

// Result is what a Verifier has found out about one signature. The texts are those of
// the signature, without blanks; they may hold any other characters.
type Result struct {
	Status Status
	Reason string // why it is not valid, in Haraka's words; "" with Pass, and with a Fail of the signature itself

	Domain    string   // d=, in lower case
	Selector  string   // s=, in lower case
	Identity  string   // i=, or what stands for it; "" until it could be read
	Algorithm string   // a=
	Start     string   // the first octets of b=, which tell signatures apart (RFC 6008)
	Headers   []string // h=
	Testing   bool     // the domain only tests DKIM (t=y of the key)
	KeyBits   int      // of an RSA key; 0: it was not looked up, or is none

	Created, Expires time.Time // t= and x=; zero: not said
}

// ErrHeader is the error of a message whose header section is too long to be held.
var ErrHeader = fmt.Errorf("dkim: header section of more than %d bytes", maxHeader)

// errNoHeader is that of a message without any header field.
var errNoHeader = errors.New("dkim: no header field")

// maxHeader is how many bytes of header section are held.
const maxHeader = 1 << 20

// fault is why a signature or a key cannot be used.
type fault struct {
	status Status
	text   string
}

// Error returns Haraka's words for the fault.
func (f *fault) Error() string { return f.text }

func permFault(text string) error { return &fault{PermError, text} }

var crlf = []byte("\r\n")

// scanner is an io.Writer that takes a message apart: it holds the header section and
// passes the body on.
type scanner struct {
	// begin is called with the whole header section, without the empty line, and
	// returns the way of the body.
	begin func(head []byte) error
	body  func(p []byte)

	head []byte
	done bool // the header section is whole
}

// windowSize is how much of what was written is searched for the end of the header
// section at a time: a body that comes in the same piece is not copied.
const windowSize = 4 << 10

// Write implements io.Writer.
func (s *scanner) Write(p []byte) (int, error) {
	all := len(p)
	for len(p) > 0 && !s.done {
		n := min(len(p), windowSize)
		from := max(0, len(s.head)-len("\n\r"))
		s.head = append(s.head, p[:n]...)

		// The empty line may begin in what came before.
		end, size := headerEnd(s.head, from)
		if max(end, len(s.head)-windowSize) > maxHeader {
			return 0, ErrHeader
		}
		if end < 0 {
			p = p[n:]
			continue
		}
		p = p[n-(len(s.head)-size):]
		s.head, s.done = s.head[:end], true
		if err := s.begin(s.head); err != nil {
			return 0, err
		}
	}
	if len(p) > 0 {
		s.body(p)
	}
	return all, nil
}

// headerEnd finds the empty line behind the header section, and how many bytes both
// have; end is -1 if it has not come yet.
func headerEnd(b []byte, from int) (end, size int) {
	if bytes.HasPrefix(b, crlf) {
		return 0, len(crlf)
	}
	if i := bytes.Index(b[from:], []byte("\n\r\n")); i >= 0 {
		end = from + i + 1
		return end, end + len(crlf)
	}
	return -1, 0
}

// finish is called when all is written: a message may end with its header section.
func (s *scanner) finish() error {
	if s.done {
		return nil
	}
	if s.done = true; len(s.head) > maxHeader {
		return ErrHeader
	}
	return s.begin(s.head)
}

// section is a header section, ready to be picked from.
type section struct {
	fields [][]byte         // raw, with folds and line ends
	byName map[string][]int // places in fields by name in lower case, top to bottom
}

// splitSection reads a header section. Lines that are no fields have no name.
func splitSection(head []byte) (*section, error) {
	s := &section{byName: map[string][]int{}}
	for len(head) > 0 {
		end := fieldEnd(head)
		field := head[:end]
		head = head[end:]
		if colon := bytes.IndexByte(field, ':'); colon > 0 {
			name := string(bytes.ToLower(bytes.TrimRight(field[:colon], " \t")))
			s.byName[name] = append(s.byName[name], len(s.fields))
		}
		s.fields = append(s.fields, field)
	}
	if len(s.byName) == 0 {
		return nil, errNoHeader
	}
	return s, nil
}

// fieldEnd is where the first field of b ends, with its folds.
func fieldEnd(b []byte) int {
	at := 0
	for {
		i := bytes.IndexByte(b[at:], '\n')
		if i < 0 {
			return len(b)
		}
		at += i + 1
		if at == len(b) || b[at] != ' ' && b[at] != '\t' {
			return at
		}
	}
}

// value returns a field's text behind the colon, as it stands.
func value(field []byte) string {
	return string(field[bytes.IndexByte(field, ':')+1:])
}

// pick returns, for each of names, the field that it stands for: the last one of that
// name, then the one above it, and so on (RFC 6376 section 5.4.2); names beyond the
// last field of theirs stand for nothing.
func (s *section) pick(names []string) [][]byte {
	picked := make([][]byte, 0, len(names))
	used := make(map[string]int, len(names))
	for _, name := range names {
		places := s.byName[name]
		if n := used[name]; n < len(places) {
			picked = append(picked, s.fields[places[len(places)-1-n]])
			used[name] = n + 1
		}
	}
	return picked
}
