// Package srs is the Sender Rewriting Scheme: it writes senders of forwarded mail into
// addresses of this site, so that SPF finds the forwarder and reports find the way back.
// Addresses are those of postsrsd and libsrs2:
//
//	SRS0=HASH=TT=domain=local@us          of local@domain
//	SRS1=HASH=first==HASH=TT=domain=local@us  of SRS0=HASH=TT=domain=local@first
//
// TT is a day, in two digits of base32, which comes round every 1024 days. HASH is the
// beginning of an HMAC in base64; case does not count, for servers on the way may change
// it. An address of another forwarder is not written into another one a third time: the
// report goes straight to the first.
package srs

import (
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"tarishi/internal/mail"
)

// The errors of Reverse, and of Sign.
var (
	ErrMalformed = errors.New("srs: the address is malformed")
	ErrHash      = errors.New("srs: the hash is wrong")
	ErrExpired   = errors.New("srs: the address has expired")
	ErrLength    = errors.New("srs: the address becomes too long")
)

// MostHash is the longest hash that there is, in characters: all of SHA-1.
const MostHash = 27

// Options is what a Scheme works with. All fields are needed.
type Options struct {
	Secrets   []string // the first one signs, all verify
	Domain    string   // of the addresses that Sign makes
	Separator byte     // behind SRS0 and SRS1: one of Separators
	Hash      func() hash.Hash
	// Length is how many characters of a hash there are, Shortest how many suffice.
	Length, Shortest int
	MaxAge           int // days for which an address is good
	Now              func() time.Time
}

// Scheme makes addresses and takes them back. It may be used from any goroutine.
type Scheme struct{ o Options }

// New returns a Scheme.
func New(o Options) *Scheme { return &Scheme{o} }

// Separators are the characters that may follow SRS0 and SRS1.
const Separators = "=-+"

const (
	first  = "SRS0"
	second = "SRS1"
)

// tagged returns what follows the tag of a local part, with its separator; ok is false if it
// has another one, or none.
func tagged(local, tag string) (rest string, ok bool) {
	if len(local) <= len(tag) || !strings.EqualFold(local[:len(tag)], tag) || strings.IndexByte(Separators, local[len(tag)]) < 0 {
		return "", false
	}
	return local[len(tag):], true
}

// IsSRS reports whether an address looks like one of the scheme, of whatever domain.
func IsSRS(a mail.Address) bool {
	_, zero := tagged(a.Local, first)
	_, one := tagged(a.Local, second)
	return zero || one
}

// Sign returns the address that stands for a sender.
func (s *Scheme) Sign(a mail.Address) (mail.Address, error) {
	// A forwarder before us has it in an address already; its text there is its own.
	host := a.Host()
	var local string
	if rest, ok := tagged(a.Local, second); ok {
		_, rest, _ = strings.Cut(rest[1:], "=")
		origin, user, ok := strings.Cut(rest, "=")
		if !ok || origin == "" || user == "" {
			return mail.Address{}, ErrMalformed
		}
		local = s.join(second, origin, user)
	} else if rest, ok := tagged(a.Local, first); ok {
		local = s.join(second, host, rest)
	} else {
		local = s.join(first, s.today(), host, a.Local)
	}

	signed := mail.Address{Local: local, Domain: s.o.Domain}
	if len(signed.Path()) > mail.MaxPath {
		return mail.Address{}, ErrLength
	}
	return signed, signed.ReadsBack()
}

// join makes a local part of its fields.
func (s *Scheme) join(tag string, fields ...string) string {
	return tag + string(s.o.Separator) + s.sum(s.o.Secrets[0], fields...) + "=" + strings.Join(fields, "=")
}

// sum is the hash of some fields, which are put together in lower case.
func (s *Scheme) sum(secret string, fields ...string) string {
	h := hmac.New(s.o.Hash, []byte(secret))
	for _, field := range fields {
		h.Write([]byte(lower(field)))
	}
	return base64.RawStdEncoding.EncodeToString(h.Sum(nil))[:s.o.Length]
}

// lower returns a text with the letters of ASCII in lower case, as postsrsd does.
func lower(text string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, text)
}

// Reverse returns the sender that an address stands for: that of the message, or the
// address that the first forwarder has made of it. The error is ErrMalformed, ErrHash or
// ErrExpired.
func (s *Scheme) Reverse(a mail.Address) (mail.Address, error) {
	// The hash is looked at before the time, so that nobody learns of the one by the other.
	if rest, ok := tagged(a.Local, second); ok {
		field := strings.SplitN(rest[1:], "=", 3)
		if len(field) < 3 || field[1] == "" || field[2] == "" {
			return mail.Address{}, ErrMalformed
		}
		if !s.verify(field[0], field[1:]...) {
			return mail.Address{}, ErrHash
		}
		// The first forwarder will look at its time too; a report that it refuses is lost.
		if inner := strings.SplitN(field[2][1:], "=", 3); len(inner) == 3 {
			if day, ok := parseDay(inner[1]); ok && s.isOld(day) {
				return mail.Address{}, ErrExpired
			}
		}
		return parse(first+field[2], field[1])
	}
	rest, ok := tagged(a.Local, first)
	if !ok {
		return mail.Address{}, ErrMalformed
	}
	field := strings.SplitN(rest[1:], "=", 4)
	if len(field) < 4 || field[2] == "" || field[3] == "" {
		return mail.Address{}, ErrMalformed
	}
	day, ok := parseDay(field[1])
	switch {
	case !ok:
		return mail.Address{}, ErrMalformed
	case !s.verify(field[0], field[1:]...):
		return mail.Address{}, ErrHash
	case s.isOld(day):
		return mail.Address{}, ErrExpired
	}
	return parse(field[3], field[2])
}

// parse returns the address of a local part and a domain.
func parse(local, domain string) (mail.Address, error) {
	a := mail.Address{Local: local, Domain: domain}
	if err := a.ReadsBack(); err != nil {
		return mail.Address{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return a, nil
}

// verify reports whether a hash is that of some fields, by one of the secrets. The comparison
// takes the same time wherever the two differ.
func (s *Scheme) verify(given string, fields ...string) bool {
	if len(given) < s.o.Shortest {
		return false
	}
	given = lower(given[:min(len(given), s.o.Length)])
	good := false
	for _, secret := range s.o.Secrets {
		want := lower(s.sum(secret, fields...))[:len(given)]
		good = hmac.Equal([]byte(given), []byte(want)) || good
	}
	return good
}

// digits are those of base32.
const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

// days is after how many of them a day has the same digits again.
const days = len(digits) * len(digits)

// day is the number of this day.
func (s *Scheme) day() int { return int(s.o.Now().Unix()/(24*60*60)) % days }

// today is this day in two digits.
func (s *Scheme) today() string {
	day := s.day()
	return string([]byte{digits[day/len(digits)], digits[day%len(digits)]})
}

// parseDay reads two digits.
func parseDay(text string) (day int, ok bool) {
	text = strings.ToUpper(text)
	if len(text) != 2 {
		return 0, false
	}
	high, low := strings.IndexByte(digits, text[0]), strings.IndexByte(digits, text[1])
	return high*len(digits) + low, high >= 0 && low >= 0
}

// isOld reports whether a day is too long ago. Tomorrow is not: another server's clock may
// be ahead.
func (s *Scheme) isOld(day int) bool { return (s.day()-day+1+days)%days > s.o.MaxAge+1 }
