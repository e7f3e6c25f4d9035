// Package sevenbit brings messages into the form that every mail system carries:
// ASCII in short lines, with the leaves of the MIME tree encoded where needed.
package sevenbit

import (
	"bytes"
	"encoding/base64"
	"mime"
	"mime/quotedprintable"
	"strings"

	"tarishi/internal/mail"
)

// maxLine is the longest line, without CRLF, that goes out unencoded (RFC 5322
// section 2.1.1).
const maxLine = 998

// maxDepth is how deep MIME parts may be nested for Encode to look into them.
const maxDepth = 20

// Encode returns a message as 7bit data (RFC 2045 section 2.7), which any mail
// system carries: as it is, or with its leaves encoded, as RFC 6152 section 3 has
// it. message/rfc822 and multipart must not be encoded themselves (RFC 2046
// sections 5.1 and 5.2.1). ok is false if that cannot be done, or would break a
// signature.
func Encode(message []byte) (encoded []byte, ok bool) {
	encoded, ok = recode(message, "", 0)
	return encoded, ok && IsPlain(encoded)
}

// recode is Encode for an entity below a parent of some type: "" is none, the entity
// is a message.
func recode(b []byte, parent string, depth int) ([]byte, bool) {
	// Most messages, and most parts of the others, need nothing.
	if IsPlain(b) {
		return b, true
	}
	header, n, _ := mail.ParseHeader(b)
	if depth > maxDepth || !IsPlain(b[:n]) {
		return nil, false
	}
	kind, params, ok := typeOf(header, parent)
	if !ok {
		return nil, false
	}

	// Only data in its raw form may be encoded: a second encoding would bury the first.
	switch strings.ToLower(header.Get("Content-Transfer-Encoding")) {
	case "", "7bit", "8bit", "binary":
	default:
		return nil, false // encoded, and yet not plain
	}

	// Composite types are never encoded themselves, only their leaves. Signed and encrypted parts
	// must keep every byte, so a message that has them stays as it is.
	var body []byte
	encoding := ""
	switch {
	case kind == "multipart/signed" || kind == "multipart/encrypted":
		return nil, false
	case strings.HasPrefix(kind, "multipart/"):
		body, ok = recodeParts(b[n:], params["boundary"], kind, depth)
	case kind == "message/rfc822":
		body, ok = recode(b[n:], "", depth+1)
	case strings.HasPrefix(kind, "message/"):
		return nil, false
	default:
		body, encoding = encodeLeaf(b[n:], strings.HasPrefix(kind, "text/"))
	}
	if !ok {
		return nil, false
	}

	// The header now has to describe the new body.
	header.Remove("Content-Transfer-Encoding")
	if encoding != "" {
		header.Add("Content-Transfer-Encoding", encoding)
		if message := parent == "" || parent == "message/rfc822"; message && !header.Has("MIME-Version") {
			header.Add("MIME-Version", "1.0")
			if !header.Has("Content-Type") { // RFC 1428 section 3
				header.Add("Content-Type", "text/plain; charset=unknown-8bit")
			}
		}
	}
	return append(header.Bytes(), body...), true
}

// typeOf returns the media type of an entity below a parent of some type; ok is false if
// it cannot be read.
func typeOf(header *mail.Header, parent string) (kind string, params map[string]string, ok bool) {
	t := header.Get("Content-Type")
	switch {
	case t == "" && parent == "multipart/digest":
		return "message/rfc822", nil, true // RFC 2046 section 5.1.5
	case t == "":
		return "text/plain", nil, true
	}
	kind, params, err := mime.ParseMediaType(t)
	return kind, params, err == nil
}

// recodeParts recodes each part of a multipart; what stands around them must be
// plain as it is.
func recodeParts(b []byte, boundary, kind string, depth int) ([]byte, bool) {
	if boundary == "" {
		return nil, false
	}
	var all []byte
	start, parts, ended := 0, 0, false // of what stands before the next delimiter

	// The preamble, the epilogue and the delimiters belong to no part and cannot be encoded. They
	// must be plain already.
	flush := func(end int) bool {
		piece := b[start:end]
		switch {
		case parts == 0 || ended:
			all = append(all, piece...)
			return IsPlain(piece)
		case len(piece) < 2: // an empty part
			all = append(all, piece...)
			return true
		}
		inner, ok := recode(piece[:len(piece)-2], kind, depth+1) // the line end belongs to the delimiter
		all = append(append(all, inner...), "\r\n"...)
		return ok
	}

	// The scan goes line by line, since a delimiter counts only at the start of a line.
	for at := 0; at < len(b); {
		end := bytes.IndexByte(b[at:], '\n') + at + 1
		if end == at {
			end = len(b)
		}
		if closes, ok := delimiter(b[at:end], boundary); ok && !ended {
			if !flush(at) {
				return nil, false
			}
			all = append(all, b[at:end]...)
			start, ended = end, closes
			parts++
		}
		at = end
	}
	if parts > 0 && !ended { // cut off
		return nil, false
	}
	return all, parts > 0 && flush(len(b))
}

// delimiter reports whether a line is a boundary's, and whether it is the closing
// one (RFC 2046 section 5.1.1).
func delimiter(line []byte, boundary string) (closes, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("--"+boundary))
	if !ok {
		return false, false
	}
	rest, closes = bytes.CutPrefix(rest, []byte("--"))
	return closes, len(bytes.Trim(rest, " \t\r\n")) == 0
}

// encodeLeaf encodes a body: text that is mostly ASCII as quoted-printable, which
// people can read, all else as base64.
func encodeLeaf(b []byte, text bool) (encoded []byte, encoding string) {
	if text && mostlyASCII(b) {
		var q bytes.Buffer
		w := quotedprintable.NewWriter(&q)
		w.Write(b)
		w.Close()
		// A line must not look like a delimiter only because of where it was broken.
		if !bytes.Contains(q.Bytes(), []byte("=\r\n--")) {
			return q.Bytes(), "quoted-printable"
		}
	}
	return Base64Lines(b), "base64"
}

func mostlyASCII(b []byte) bool {
	n := 0
	for _, c := range b {
		if c >= 0x80 || c == 0 {
			n++
		}
	}
	return n <= len(b)/6
}

// IsPlain reports whether b is 7bit data (RFC 2045 section 2.7): ASCII without
// NUL, with CRLF only as line ends, and no line too long.
func IsPlain(b []byte) bool {
	return mail.IsASCII(b) && IsLines(b)
}

// IsLines is IsPlain for 8bit data.
func IsLines(b []byte) bool {
	if bytes.IndexByte(b, 0) >= 0 {
		return false
	}
	for line := range bytes.Lines(b) {
		text, ended := bytes.CutSuffix(line, []byte("\r\n"))
		if len(text) > maxLine || bytes.IndexByte(text, '\r') >= 0 || !ended && bytes.IndexByte(text, '\n') >= 0 {
			return false
		}
	}
	return true
}

// Base64Lines encodes b in lines of 76 characters.
func Base64Lines(b []byte) []byte {
	const in, out = 57, 76
	lines := (len(b) + in - 1) / in
	all := make([]byte, 0, lines*(out+2))
	for len(b) > 0 {
		n := min(in, len(b))
		all = base64.StdEncoding.AppendEncode(all, b[:n])
		all = append(all, '\r', '\n')
		b = b[n:]
	}
	return all
}
