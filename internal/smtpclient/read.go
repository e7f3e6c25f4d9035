package smtpclient

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
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

// line returns the next line without its line end. It is valid until the next
// call. Of a line longer than maxReplyLine only the beginning comes, with
// errTooLong; nothing can be read behind it.
func (r *reader) line() ([]byte, error) {
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
				return line[:maxReplyLine], errTooLong
			}
			return line, nil
		}
		seen = r.w - r.r
		if seen > maxReplyLine {
			return r.buf[r.r : r.r+maxReplyLine], errTooLong
		}
		if n, err := r.more(); n == 0 && err != nil {
			if err == io.EOF && seen > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// more reads once from src.
func (r *reader) more() (n int, err error) {
	if r.r > 0 {
		copy(r.buf, r.buf[r.r:r.w])
		r.r, r.w = 0, r.w-r.r
	}
	n, err = r.src.Read(r.buf[r.w:])
	r.w += n
	return n, err
}

// response is a parsed reply in reused memory.
type response struct {
	code     int
	enhanced reply.Enhanced
	text     []byte // clean UTF-8, lines joined by \n

	hides *secrets // what reply and errors must not tell
	login bool     // it is to AUTH
}

func (p *response) class() int { return p.code / 100 }

// reply copies p into a Reply of its own, which tells no secrets. Nothing else
// that the server says is kept anywhere, but by read's errors.
func (p *response) reply() *reply.Reply {
	return &reply.Reply{Code: p.code, Enhanced: p.enhanced, Text: string(p.hides.mask(p.text, p.login))}
}

// read reads one reply, of one or more lines, into p. What is not a reply of
// class 2 to 5, has lines with different codes or breaks a limit is an error
// that wraps errGarbled; other errors are the connection's. decided tells whether
// p says something in spite of the error.
func (p *response) read(r *reader) error {
	p.code, p.enhanced, p.text = 0, reply.Enhanced{}, p.text[:0]
	total := 0
	for lines := 1; ; lines++ {
		line, long := r.line()
		if long != nil && long != errTooLong {
			return long
		}
		code, last, text, ok := splitLine(line)
		if !ok {
			return garbled("%q", clip(p.hides.mask(line, p.login)))
		}
		if lines == 1 {
			p.code = code
		} else {
			if code != p.code {
				return garbled("codes %d and %d in one reply", p.code, code)
			}
			p.text = append(p.text, '\n')
		}
		p.appendText(text, lines == 1)
		if total += len(line); long != nil || lines > maxReplyLines || total > maxReplyBytes {
			return errTooLong
		}
		if last {
			return nil
		}
	}
}

// errTooLong is of a reply whose lines agree as far as they were read.
var errTooLong = garbled("more than %d lines, %d bytes in a line or %d in all", maxReplyLines, maxReplyLine, maxReplyBytes)

// decided reports whether the reply that read gave up with err has said all the
// same what it means: its lines had one code (RFC 5321 section 4.2.1), and it is
// only that there was no end to them. Its text lacks what came behind. Nothing
// more can be read then.
func (p *response) decided(err error) bool {
	return p.code != 0 && (errors.Is(err, errTooLong) || errors.Is(err, os.ErrDeadlineExceeded))
}

// clip shortens the text of a reply that had no end to that of one long line.
func (p *response) clip() {
	p.text = bytes.ToValidUTF8(p.text[:min(len(p.text), maxReplyLine)], nil)
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

func clip(line []byte) []byte { return line[:min(len(line), 80)] }

// appendText adds one line's text: without its enhanced code (RFC 2034), which
// counts only where it fits the reply code, and with control characters and
// invalid UTF-8 replaced.
func (p *response) appendText(text []byte, first bool) {
	if e, rest, ok := cutEnhanced(text); ok && e[0] == p.code/100 && (first || e == p.enhanced) {
		p.enhanced, text = e, rest
	}
	plain := true
	for _, b := range text {
		if b < ' ' || b >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		p.text = append(p.text, text...)
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
		p.text = utf8.AppendRune(p.text, r)
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

// Extensions is what EHLO or LHLO offered.
type Extensions struct {
	Pipelining, EightBitMIME, SMTPUTF8, DSN, StartTLS, Chunking, EnhancedStatusCodes, RequireTLS bool

	Size    bool     // SIZE is offered
	MaxSize int64    // its argument; 0: none
	Auth    []string // mechanisms, upper case

	XForward, XClient []string // attributes, upper case; nil: not offered
}

// parseExtensions reads the text of a reply to EHLO; its first line is only a
// greeting.
func parseExtensions(text string) Extensions {
	var x Extensions
	_, text, _ = strings.Cut(text, "\n")
	for line := range strings.SplitSeq(text, "\n") {
		// AUTH=PLAIN is the form of a draft that old servers still announce.
		word, arg, _ := strings.Cut(strings.Replace(strings.ToUpper(strings.TrimSpace(line)), "AUTH=", "AUTH ", 1), " ")
		switch word {
		case "PIPELINING":
			x.Pipelining = true
		case "8BITMIME":
			x.EightBitMIME = true
		case "SMTPUTF8":
			x.SMTPUTF8 = true
		case "DSN":
			x.DSN = true
		case "STARTTLS":
			x.StartTLS = true
		case "CHUNKING":
			x.Chunking = true
		case "ENHANCEDSTATUSCODES":
			x.EnhancedStatusCodes = true
		case "REQUIRETLS":
			x.RequireTLS = true
		case "SIZE":
			x.Size, x.MaxSize = true, parseSize(arg)
		case "XFORWARD":
			x.XForward = strings.Fields(arg)
		case "XCLIENT":
			x.XClient = strings.Fields(arg)
		case "AUTH":
			x.Auth = append(x.Auth, strings.Fields(arg)...)
		}
	}
	return x
}

// parseSize reads SIZE's argument. What is no number is no limit.
func parseSize(s string) int64 {
	var n int64
	s = strings.TrimSpace(s)
	if len(s) > 18 {
		return 0
	}
	for i := 0; i < len(s); i++ {
		if !isDigit(s[i]) {
			return 0
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n
}
