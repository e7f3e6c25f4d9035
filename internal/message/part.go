package message

import (
	"bufio"
	"encoding/base64"
	"errors"
	"io"
	"mime"
	"mime/quotedprintable"
	"strings"

	"tarishi/internal/mail"
)

// Part is one node of the MIME tree (RFC 2045 section 2.4). It must not be changed.
type Part struct {
	Header *mail.Header
	// Type is the media type in lower case, "text/plain" if the part has none
	// that can be read. Params are its parameters, by names in lower case.
	Type   string
	Params map[string]string
	// Encoding is the transfer encoding in lower case, "7bit" if none is named.
	Encoding string
	// Parts are those of a multipart, or the enclosed message of a message/rfc822.
	Parts []*Part

	message *Message
	start   int64 // offset of the line end before the delimiter, in the content
	head    int64 // offset of the header section
	body    int64 // offset behind it
	end     int64 // offset of the line end before the next delimiter
}

// The transfer encodings of RFC 2045 section 6.1 that change bytes.
const (
	encodingBase64 = "base64"
	encodingQP     = "quoted-printable"
)

// describe reads what the header of a part says of its body. preset is the media
// type of a part that names none.
func (p *Part) describe(preset string) {
	p.Type, p.Params = mediaType(p.Header.Get("Content-Type"))
	if p.Type == "" {
		p.Type = preset
	}
	p.Encoding = strings.ToLower(strings.TrimSpace(p.Header.Get("Content-Transfer-Encoding")))
	if comment := strings.IndexAny(p.Encoding, "(; \t"); comment >= 0 {
		p.Encoding = p.Encoding[:comment]
	}
	if p.Encoding == "" {
		p.Encoding = "7bit"
	}
}

// IsMultipart reports whether the part is made of other parts.
func (p *Part) IsMultipart() bool { return strings.HasPrefix(p.Type, "multipart/") }

// Charset is the charset that the part names, in lower case; "" if it names none.
func (p *Part) Charset() string { return strings.ToLower(p.Params["charset"]) }

// Disposition is "attachment", "inline" or another word in lower case; "" if the
// part names none (RFC 2183).
func (p *Part) Disposition() string {
	disposition, _ := mediaType(p.Header.Get("Content-Disposition"))
	return disposition
}

// Filename is the name that the part has for its content as a file, decoded from RFC
// 2231 and, though that is not allowed there, RFC 2047; "" if it has none. A
// sender chooses it: it may hold slashes and dots.
func (p *Part) Filename() string {
	_, params := mediaType(p.Header.Get("Content-Disposition"))
	name := params["filename"]
	if name == "" {
		name = p.Params["name"]
	}
	if decoded, err := new(mime.WordDecoder).DecodeHeader(name); err == nil {
		return decoded
	}
	return name // a charset that the standard library does not know
}

// Size is how many bytes the body takes in the message, encoded as it is.
func (p *Part) Size() int64 { return p.end - p.body }

// OpenRaw returns the body as it stands in the message.
func (p *Part) OpenRaw() (io.ReadCloser, error) { return p.message.section(p.body, p.end) }

// Open returns the body without its transfer encoding. The text of a part keeps its
// charset.
func (p *Part) Open() (io.ReadCloser, error) {
	raw, err := p.OpenRaw()
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{p.decode(raw), raw}, nil
}

// decode takes the transfer encoding off a body.
func (p *Part) decode(raw io.Reader) io.Reader {
	switch p.Encoding {
	case encodingBase64:
		return &unpadded{base64.NewDecoder(base64.RawStdEncoding, &alphabet{from: bufio.NewReader(raw)})}
	case encodingQP:
		return quotedprintable.NewReader(raw)
	}
	return raw
}

// leaves yields the parts below p that have a body, and reports whether to go on.
func (p *Part) leaves(yield func(*Part) bool) bool {
	if len(p.Parts) == 0 {
		return yield(p)
	}
	for _, child := range p.Parts {
		if !child.leaves(yield) {
			return false
		}
	}
	return true
}

// alphabet passes on the characters of base64 and nothing else, which RFC 2045
// section 6.8 asks of a decoder, up to the padding.
type alphabet struct {
	from  *bufio.Reader
	ended bool
}

// Read implements io.Reader.
func (a *alphabet) Read(to []byte) (int, error) {
	if a.ended || len(to) == 0 {
		return 0, io.EOF
	}
	// Nothing may be left of what was read: then there is more to read.
	for {
		n, err := a.from.Read(to)
		kept := to[:0]
		for _, c := range to[:n] {
			if c == '=' {
				a.ended = true
				break
			}
			if 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/' {
				kept = append(kept, c)
			}
		}
		if len(kept) > 0 || err != nil || a.ended {
			if err == nil && a.ended {
				err = io.EOF
			}
			return len(kept), err
		}
	}
}

// unpadded ends a base64 body at its last whole byte: a body that was cut short is
// shown as far as it goes.
type unpadded struct{ from io.Reader }

// Read implements io.Reader.
func (u *unpadded) Read(to []byte) (int, error) {
	n, err := u.from.Read(to)
	var corrupt base64.CorruptInputError
	if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// mediaType reads the value of Content-Type or Content-Disposition: the word before
// the parameters in lower case, and these. What the standard library refuses as
// malformed is read more generously, for a boundary or a file name in it counts with
// mail readers.
func mediaType(value string) (word string, params map[string]string) {
	word, params, err := mime.ParseMediaType(value)
	if err == nil {
		return word, params
	}

	// The first of several parameters of one name counts.
	word, rest, _ := strings.Cut(value, ";")
	word = strings.ToLower(strings.TrimSpace(word))
	params = map[string]string{}
	for rest != "" {
		var one string
		one, rest = cutParameter(rest)
		name, text, _ := strings.Cut(one, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, again := params[name]; !again && name != "" {
			params[name] = unquote(strings.TrimSpace(text))
		}
	}
	return word, params
}

// cutParameter returns what stands before the next semicolon outside of quotes, and
// what follows it.
func cutParameter(text string) (one, rest string) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			quoted = !quoted
		case ';':
			if !quoted {
				return text[:i], text[i+1:]
			}
		}
	}
	return text, ""
}

// unquote takes the quotes off a parameter's value, which may lack the last.
func unquote(text string) string {
	if !strings.HasPrefix(text, `"`) {
		word, _, _ := strings.Cut(text, " ")
		return word
	}
	var b strings.Builder
	for i := 1; i < len(text) && text[i] != '"'; i++ {
		if text[i] == '\\' && i+1 < len(text) {
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String()
}
