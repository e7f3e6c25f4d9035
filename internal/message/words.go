package message

import (
	"io"
	"mime"
)

// DecodeWords returns the value of a field with its encoded words (RFC 2047) decoded.
// Text in a charset that is not known stays as it is.
func DecodeWords(value string) string {
	decoder := mime.WordDecoder{CharsetReader: func(_ string, text io.Reader) (io.Reader, error) { return text, nil }}
	if decoded, err := decoder.DecodeHeader(value); err == nil {
		return decoded
	}
	return value
}
