package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
)

// Limits of one reply. RFC 5321 section 4.5.3.1.5 asks for lines of 512
// octets; servers send longer ones.
const (
	maxReplyLine  = 2048
	maxReplyLines = 128
	maxReplyBytes = 64 << 10
)

// reader reads replies. src is the connection; its buffer holds any line that
// is within the limit.
type reader struct {
	src  io.Reader
	buf  []byte
	r, w int
}

func newReader(src io.Reader) reader { return reader{src: src, buf: make([]byte, 2*maxReplyLine)} }

// buffered is how many bytes have arrived that no reply has used.
func (r *reader) buffered() int { return r.w - r.r }

// readLine returns the next line without its line end. It is valid until the next
// call. Of a line longer than maxReplyLine only the beginning comes, with
// ErrTooLong; nothing can be read behind it.
func (r *reader) readLine() ([]byte, error) {
	seen := 0
	for {
		if i := bytes.IndexByte(r.buf[r.r+seen:r.w], '\n'); i >= 0 {
			end := r.r + seen + i
			line := r.buf[r.r:end]
			r.r = end + 1
			if n := len(line); n > 0 && line[n-1] == '\r' {
				line = line[:n-1]
			}
			if len(line) > maxReplyLine {
				return line[:maxReplyLine], ErrTooLong
			}
			return line, nil
		}

		// No line end yet: a line that is too long already is cut, else more is read.
		seen = r.w - r.r
		if seen > maxReplyLine {
			return r.buf[r.r : r.r+maxReplyLine], ErrTooLong
		}
		if n, err := r.readMore(); n == 0 && err != nil {
			if err == io.EOF && seen > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// readMore reads once from src.
func (r *reader) readMore() (n int, err error) {
	if r.r > 0 {
		copy(r.buf, r.buf[r.r:r.w])
		r.r, r.w = 0, r.w-r.r
	}
	n, err = r.src.Read(r.buf[r.w:])
	r.w += n
	return n, err
}

// Response is a parsed reply in reused memory.
type Response struct {
	Code     int
	Enhanced reply.Enhanced
	Text     []byte // clean UTF-8, lines joined by \n; it may have secrets in it

	Login bool // it is to AUTH: the user's name is hidden too

	hides *Secrets // what Reply and errors must not tell
}

// Class is the first digit of the code.
func (p *Response) Class() int { return p.Code / 100 }

// Reply copies p into a new Reply, which tells no secrets. Nothing else
// that the server says is kept anywhere, but by read's errors.
func (p *Response) Reply() *reply.Reply {
	return &reply.Reply{Code: p.Code, Enhanced: p.Enhanced, Text: string(p.Mask(p.Text))}
}

// Mask returns text without the secrets, as those of a reply now.
func (p *Response) Mask(text []byte) []byte { return p.hides.Mask(text, p.Login) }

// Hide adds the words of an exchange of AUTH to the secrets.
func (p *Response) Hide(mechanism string, answer []byte) { p.hides.Answered(mechanism, answer) }

// HideSecret adds an access token to the secrets.
func (p *Response) HideSecret(token string) { p.hides.addSecret(token) }

// readReply reads one reply, of one or more lines, into p. Anything but a reply of
// class 2 to 5, has lines with different codes or breaks a limit is an error
// that wraps ErrGarbled; other errors are the connection's. Decided tells whether
// p says something in spite of the error.
func (p *Response) readReply(r *reader) error {
	p.Code, p.Enhanced, p.Text = 0, reply.Enhanced{}, p.Text[:0]
	total := 0
	for lines := 1; ; lines++ {
		line, long := r.readLine()
		if long != nil && long != ErrTooLong {
			return long
		}
		code, last, text, ok := splitLine(line)
		if !ok {
			return Garbled("%q", shorten(p.Mask(line)))
		}

		// All lines of a reply have one code (RFC 5321 section 4.2.1).
		if lines == 1 {
			p.Code = code
		} else {
			if code != p.Code {
				return Garbled("codes %d and %d in one reply", p.Code, code)
			}
			p.Text = append(p.Text, '\n')
		}
		p.appendText(text, lines == 1)

		// The bounds are checked behind the text, so that what was said until then is
		// known.
		if total += len(line); long != nil || lines > maxReplyLines || total > maxReplyBytes {
			return ErrTooLong
		}
		if last {
			return nil
		}
	}
}

// ErrTooLong is the error of a reply with lines that agree as far as they were read.
var ErrTooLong = Garbled("more than %d lines, %d bytes in a line or %d in all", maxReplyLines, maxReplyLine, maxReplyBytes)

// Decided reports whether a reply that could not be read to its end, because of err,
// has a meaning nevertheless: its lines had one code (RFC 5321 section 4.2.1), and
// only the end was missing. Its text is incomplete then, and nothing more can be read.
func (p *Response) Decided(err error) bool {
	return p.Code != 0 && (errors.Is(err, ErrTooLong) || errors.Is(err, os.ErrDeadlineExceeded))
}

// Clip shortens the text of a reply that had no end to that of one long line.
func (p *Response) Clip() {
	p.Text = bytes.ToValidUTF8(p.Text[:min(len(p.Text), maxReplyLine)], nil)
}

// splitLine takes a line of a reply apart (RFC 5321 section 4.2).
func splitLine(line []byte) (code int, last bool, text []byte, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' || !isDigit(line[1]) || !isDigit(line[2]) {
		return 0, false, nil, false
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, nil, true
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, nil, false
	}
	return code, line[3] == ' ', line[4:], true
}

func isDigit(b byte) bool { return '0' <= b && b <= '9' }

func shorten(line []byte) []byte { return line[:min(len(line), 80)] }

// appendText adds one line's text: without its enhanced code (RFC 2034), which
// counts only where it fits the reply code, and with control characters and
// invalid UTF-8 replaced.
func (p *Response) appendText(text []byte, first bool) {
	if e, rest, ok := cutEnhanced(text); ok && e[0] == p.Code/100 && (first || e == p.Enhanced) {
		p.Enhanced, text = e, rest
	}

	// Nearly every text is printable ASCII and is copied as it is.
	plain := true
	for _, b := range text {
		if b < ' ' || b >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		p.Text = append(p.Text, text...)
		return
	}
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\t':
			r = ' '
		case r == '\u00a0' || r == '\u3000': // the blanks that people type
			r = ' '
		case r == utf8.RuneError && n == 1, mail.IsHidden(r):
			r = '?'
		}
		p.Text = utf8.AppendRune(p.Text, r)
		text = text[n:]
	}
}

// cutEnhanced splits "5.7.26 text". It is ParseEnhanced without an allocation
// for the common case that there is none or that it is short.
func cutEnhanced(text []byte) (e reply.Enhanced, rest []byte, ok bool) {
	if len(text) < 5 || text[1] != '.' {
		return e, text, false
	}
	part, digits, i := 0, 0, 0
	for ; i < len(text) && text[i] != ' '; i++ {
		switch b := text[i]; {
		case isDigit(b) && digits < 3:
			e[part] = e[part]*10 + int(b-'0')
			digits++
		case b == '.' && digits > 0 && part < 2:
			part, digits = part+1, 0
		default:
			return reply.Enhanced{}, text, false
		}
	}
	if part != 2 || digits == 0 || e[0] != 2 && e[0] != 4 && e[0] != 5 {
		return reply.Enhanced{}, text, false
	}
	return e, bytes.TrimPrefix(text[i:], []byte(" ")), true
}

// ErrGarbled is the reason of every reply that is none.
var ErrGarbled = errors.New("not an SMTP reply")

// Garbled returns an error that wraps ErrGarbled.
func Garbled(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrGarbled, fmt.Sprintf(format, args...))
}
