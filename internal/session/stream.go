package session

import (
	"bytes"
	"cmp"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"tarishi/internal/reply"
)

const (
	commandBuffer = 1 << 10  // what an idle session holds for input
	contentBuffer = 32 << 10 // while content arrives, or much is pipelined
	outBuffer     = 4 << 10  // replies are sent at the latest when they are so many
	keptOut       = 512      // what an idle session holds for output

	// lingering is how long, and how much, a connection that is closed in anger
	// is still read from, so that the reply is not lost to a reset.
	lingering  = 2 * time.Second
	lingerMost = 1 << 20
	// farewell bounds the sending of the last replies: a client that does not read
	// has had its time already.
	farewell = 10 * time.Second
)

// The ways in which reading ends, besides the errors of the socket.
var (
	errLineTooLong = errors.New("command line too long")
	errTLSInClear  = errors.New("TLS on a plain port")
	errShutdown    = errors.New("shutting down")
	errTimeout     = errors.New("timeout")
	errTooSlow     = errors.New("below the minimum data rate")
	errTooLong     = errors.New("the transaction takes too long")
	errGiveWay     = errors.New("memory is needed for faster clients")
)

var contentBuffers = sync.Pool{New: func() any { b := make([]byte, contentBuffer); return &b }}

// stream is the plaintext side of a connection: command lines and content in,
// replies out. All methods but wake and kill belong to the goroutine that holds
// the conversation.
//
// Replies are kept until the stream has to wait for the client, so that those
// to pipelined commands share a segment and a TLS record (RFC 2920 section 3.2).
type stream struct {
	raw  net.Conn // the socket
	conn net.Conn // the socket, or TLS on it

	buf   []byte // [r:w] is received and not used: small, or big
	r, w  int
	small []byte
	big   *[]byte // from contentBuffers; nil: buf is small
	out   []byte
	gone  bool // the client cannot be written to any more

	maxLine    int
	inactivity time.Duration
	pace       *pace // of the transaction; nil: there is none
	trickles   bool  // content comes in small pieces, for which no large buffer is held
	onReply    func(code int, line []byte)

	mu      sync.Mutex
	waiting bool // blocked in a read that Shutdown may end at any time
	blocked bool // in any read but a handshake
	ending  bool // Shutdown wants no more commands
	yielded bool // the session has to give way
}

func newStream(conn net.Conn, o *Options) *stream {
	s := &stream{raw: conn, conn: conn, maxLine: o.MaxLine, inactivity: o.InactivityTimeout, small: make([]byte, commandBuffer)}
	s.buf = s.small
	return s
}

// line returns the next command line with its line end. It is valid until the
// next read. A client gets the inactivity timeout for a whole line, so that one
// that sends a byte now and then does not live for ever.
func (s *stream) line() ([]byte, error) {
	scanned, first, overdue := 0, true, errTimeout
	if s.gone { // nor is what it pipelined done any more: nobody would learn of it
		return nil, net.ErrClosed
	}
	if s.isEnding() {
		return nil, errShutdown
	}
	for {
		pending := s.buf[s.r:s.w]
		if len(pending) > 0 && pending[0] == 0x16 && s.conn == s.raw { // a TLS handshake record
			return nil, errTLSInClear
		}
		i := bytes.IndexByte(pending[scanned:], '\n')
		if n := scanned + i + 1; i >= 0 && n <= s.maxLine {
			s.r += n
			return pending[:n], nil
		}
		if scanned = len(pending); i >= 0 || scanned >= s.maxLine {
			return nil, errLineTooLong
		}
		if err := s.flush(); err != nil {
			return nil, err
		}
		began, limit := time.Now(), time.Duration(0)
		if first {
			limit, overdue = s.pace.limit(began, s.inactivity)
			limit, first = max(limit, 1), false
		}
		if err := s.wait(began, limit); err != nil {
			return nil, err
		}
		s.pace.wait(began)
		err := s.fill(false)
		why := s.awake()
		s.pace.awake(time.Since(began))
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return nil, cmp.Or(why, overdue)
		}
		if err != nil {
			return nil, err
		}
	}
}

// wait announces that the session is about to wait for something that a Shutdown
// need not wait for. A limit of 0 leaves the deadline as it is.
func (s *stream) wait(now time.Time, limit time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending {
		return errShutdown
	}
	if err := s.block(now, limit); err != nil {
		return err
	}
	s.waiting = true
	return nil
}

// block announces a read. The caller holds s.mu.
func (s *stream) block(now time.Time, limit time.Duration) error {
	if s.yielded {
		return errGiveWay
	}
	if limit > 0 {
		if err := s.raw.SetReadDeadline(now.Add(limit)); err != nil {
			return err
		}
	}
	s.blocked = true
	return nil
}

// awake takes back what wait or block announced. It returns why the read was
// ended, if somebody did that: errShutdown or errGiveWay.
func (s *stream) awake() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.waiting && s.ending
	s.waiting, s.blocked = false, false
	switch {
	case ended:
		return errShutdown
	case s.yielded:
		return errGiveWay
	}
	return nil
}

// wake makes a session that waits for a command return with errShutdown, now or
// when it next wants to. It may be called from any goroutine.
func (s *stream) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ending = true
	if s.waiting {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// yield makes the session return with errGiveWay from the read that it is in, or
// from the next. It may be called from any goroutine.
func (s *stream) yield() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.yielded = true
	if s.blocked {
		_ = s.raw.SetReadDeadline(time.Unix(1, 0))
	}
}

// stay takes yield back.
func (s *stream) stay() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.yielded = false
}

// kill cuts the connection. It may be called from any goroutine.
func (s *stream) kill() { s.raw.Close() }

// isEnding reports whether Shutdown wants no more commands.
func (s *stream) isEnding() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ending
}

// content hands what arrives to f until f is done or fails. f says how many
// bytes it used; it must use all but a few when it wants more. The client has
// to send something within the inactivity timeout, and the minimum rate on average
// over a window of waiting; our own slowness does not count. w, unless nil, may free
// memory meanwhile.
func (s *stream) content(f func(b []byte) (n int, done bool, err error), w waiter) error {
	if s.gone {
		return net.ErrClosed
	}
	s.trickles = false
	for {
		if s.r < s.w {
			n, done, err := f(s.buf[s.r:s.w])
			s.r += n
			s.pace.content(n)
			if done || err != nil {
				return err
			}
			if s.pace.tooSlow() {
				return errTooSlow
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
		err := s.receive(w)
		if err == errGiveWay && w != nil && w.giveWay() {
			s.stay()
			continue
		}
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
}

// waiter is what content waits for. spare is called now and then while nothing
// comes; giveWay when a faster client needs memory: true lets the session stay.
type waiter interface {
	spare()
	giveWay() bool
}

// smallPiece and longWait tell a trickle from a client that is worth a large
// buffer.
const (
	smallPiece = commandBuffer / 2
	longWait   = 100 * time.Millisecond
)

// receive reads content behind what is there.
func (s *stream) receive(w waiter) error {
	for {
		began := time.Now()
		limit, overdue := s.pace.limit(began, s.inactivity)
		look := w != nil && limit > paceWindow
		if look {
			limit = paceWindow
		}
		s.mu.Lock()
		err := s.block(began, max(limit, 1))
		s.mu.Unlock()
		if err != nil {
			return err
		}
		s.pace.wait(began)
		before := s.w - s.r
		err = s.fill(!s.trickles)
		why := s.awake()
		waited := time.Since(began)
		s.pace.awake(waited)
		s.trickles = s.w-s.r-before < smallPiece && waited >= longWait
		switch {
		case err == nil || !errors.Is(err, os.ErrDeadlineExceeded):
			return err
		case why != nil:
			return why
		case !look:
			return overdue
		}
		w.spare()
	}
}

// fill reads at least one byte behind what is there.
func (s *stream) fill(content bool) error {
	if s.r == s.w {
		s.r, s.w = 0, 0
	}
	if s.big != nil && !content && s.w-s.r < fewBytes {
		s.release()
	}
	if content && s.big == nil {
		s.enlarge()
	}
	if s.w == len(s.buf) {
		if s.r == 0 {
			s.enlarge()
		} else {
			s.w = copy(s.buf, s.buf[s.r:s.w])
			s.r = 0
		}
	}
	for range 100 {
		n, err := s.conn.Read(s.buf[s.w:])
		if s.w += n; n > 0 {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// enlarge moves to a content buffer. Neither a line nor what content leaves
// unused fills one, so it is called at most once before release.
func (s *stream) enlarge() {
	s.big = contentBuffers.Get().(*[]byte)
	s.w = copy(*s.big, s.buf[s.r:s.w])
	s.r, s.buf = 0, *s.big
}

// fewBytes is more than content can leave unused.
const fewBytes = 8

// release gives a content buffer back, in which only a few bytes may be left.
func (s *stream) release() {
	s.w = copy(s.small, s.buf[s.r:s.w])
	contentBuffers.Put(s.big)
	s.r, s.buf, s.big = 0, s.small, nil
}

// pending reports whether the client sent more than was used.
func (s *stream) pending() bool { return s.r < s.w }

// Write appends one reply line to what is sent with the next flush. It never
// fails: who cannot be written to will not be read from either.
func (s *stream) Write(line []byte) (int, error) {
	if s.gone {
		return len(line), nil
	}
	if s.onReply != nil && len(line) > 3 {
		if code, err := strconv.Atoi(string(line[:3])); err == nil {
			s.onReply(code, line)
		}
	}
	s.out = append(s.out, line...)
	if len(s.out) >= outBuffer {
		_ = s.flush()
	}
	return len(line), nil
}

// say writes a reply of our own.
func (s *stream) say(code int, enhanced, text string) { s.send(reply.New(code, enhanced, text)) }

// send writes r, with as many lines as its text has.
func (s *stream) send(r *reply.Reply) {
	head := strconv.Itoa(r.Code)
	status := r.Enhanced.String()
	if status != "" {
		status += " "
	}
	text := clean(r.Text)
	for {
		line, rest, more := bytes.Cut([]byte(text), []byte("\n"))
		sep := " "
		if more {
			sep = "-"
		}
		_, _ = s.Write([]byte(head + sep + status + string(line) + "\r\n"))
		if !more {
			return
		}
		text = string(rest)
	}
}

// flush sends the replies that are kept. The client has the inactivity timeout
// to take them; net.ErrClosed says that it did not, or is gone.
func (s *stream) flush() error { return s.flushWithin(s.inactivity) }

func (s *stream) flushWithin(limit time.Duration) error {
	if s.gone {
		s.out = nil
		return net.ErrClosed
	}
	if len(s.out) == 0 {
		return nil
	}
	err := s.raw.SetWriteDeadline(time.Now().Add(limit))
	if err == nil {
		_, err = s.conn.Write(s.out)
	}
	if s.out = s.out[:0]; cap(s.out) > keptOut {
		s.out = nil
	}
	s.gone = err != nil
	return err
}

// startTLS begins TLS as a server. Whatever came in clear is forgotten.
func (s *stream) startTLS(c *tls.Config) (tls.ConnectionState, error) {
	s.r, s.w = 0, 0
	t := tls.Server(s.raw, c)
	if err := s.wait(time.Now(), s.inactivity); err != nil {
		return tls.ConnectionState{}, err
	}
	_ = s.raw.SetWriteDeadline(time.Now().Add(s.inactivity))
	err := t.Handshake()
	s.awake()
	if err != nil {
		s.gone = true // neither in clear nor under TLS can anything be said
		return tls.ConnectionState{}, err
	}
	s.conn = t
	return t.ConnectionState(), nil
}

// close sends what is kept and closes.
func (s *stream) close() {
	_ = s.flushWithin(min(s.inactivity, farewell))
	s.gone = true
	s.conn.Close()
	if s.big != nil {
		s.r, s.w = 0, 0
		s.release()
	}
}

// half sends what is kept and closes our direction. If the client sent, or is
// still sending, what nobody reads, the kernel would answer a close with a reset
// that can destroy the last reply on its way.
func (s *stream) half() {
	_ = s.flushWithin(min(s.inactivity, farewell))
	c, ok := s.raw.(interface{ CloseWrite() error })
	if !ok || s.gone {
		s.close()
		return
	}
	_ = s.raw.SetDeadline(time.Now().Add(lingering))
	if t, ok := s.conn.(*tls.Conn); ok {
		_ = t.CloseWrite()
	}
	_ = c.CloseWrite()
}

// drain reads, after half, until the client closes too, for a while.
func (s *stream) drain() {
	if !s.gone && s.wait(time.Now(), lingering) == nil {
		_, _ = io.CopyN(io.Discard, s.raw, lingerMost)
	}
	s.close()
}
