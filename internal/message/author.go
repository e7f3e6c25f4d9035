package message

import (
	"errors"
	"io"
	"mime"
	"strings"

	netmail "net/mail"

	"tarishi/internal/mail"
)

// ErrAuthors is the error of a field in which no list of mailboxes can be read.
var ErrAuthors = errors.New("message: the field is no list of mailboxes (RFC 5322 section 3.4)")

// newDecoder returns a decoder of RFC 2047. Text in a charset that it does not know stays
// as it is, for an address has to be found beside any name.
func newDecoder() *mime.WordDecoder {
	return &mime.WordDecoder{CharsetReader: func(_ string, text io.Reader) (io.Reader, error) { return text, nil }}
}

// DecodeWords returns the value of a field with its encoded words decoded.
func DecodeWords(value string) string {
	if decoded, err := newDecoder().DecodeHeader(value); err == nil {
		return decoded
	}
	return value
}

// Authors returns the addresses of a field such as From, in their order. The error is
// ErrAuthors if it cannot be read; a group without members yields no address and no
// error.
func Authors(value string) ([]mail.Address, error) {
	parser := netmail.AddressParser{WordDecoder: newDecoder()}
	list, err := parser.ParseList(value)
	if err != nil {
		// Names that are addresses themselves stand in front of the real one, without quotes.
		list, err = parser.ParseList(quoteNames(value))
	}
	if err != nil {
		if strings.HasSuffix(value, ":;") {
			return nil, nil
		}
		return nil, ErrAuthors
	}

	var all []mail.Address
	for _, one := range list {
		// What no envelope can hold is no author either.
		a, err := mail.ParseAddress(one.Address)
		if err != nil {
			return nil, ErrAuthors
		}
		all = append(all, a)
	}
	return all, nil
}

// quoteNames puts the name in front of each address in angle brackets into quotes, if
// it has an @ and no quotes.
func quoteNames(value string) string {
	parts := strings.SplitAfter(value, ">")
	for i, part := range parts {
		name, address, found := strings.Cut(part, "<")
		separator := name[:len(name)-len(strings.TrimLeft(name, ", \t"))]
		name = strings.TrimSpace(name[len(separator):])
		if found && strings.Contains(name, "@") && !strings.ContainsAny(name, `",;:\`) {
			parts[i] = separator + `"` + name + `" <` + address
		}
	}
	return strings.Join(parts, "")
}
