package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// SinkOptions is how a Sink behaves. The zero value takes everything at once.
type SinkOptions struct {
	Addr    string                 // where to listen; "127.0.0.1:0"
	Latency time.Duration          // before the reply to the final dot
	Defer   float64                // this share of the messages gets 451 to the final dot
	Rcpt    func(to string) string // reply line to RCPT, "" for 250; called by many goroutines
	Keep    bool                   // keep messages for Messages

	NoPipelining bool // PIPELINING is not offered
}

// Sink is an SMTP server that takes mail, counts it and throws it away. It
// takes a lone LF for a line end, as careless servers do, so that a message
// smuggled past the server in front of it is seen as the second one it is.
type Sink struct {
	options SinkOptions
	ln      net.Listener

	mu    sync.Mutex
	seen  map[ID]int
	runs  map[uint16]int // distinct recipients of each run
	stats SinkStats
	kept  []Message
	debt  float64 // Defer, summed up since the last deferral
}

// SinkStats is what a Sink counted.
type SinkStats struct {
	Connections int       // accepted ones
	Open        int       // at this moment
	Peak        int       // at the same time
	Busy        int       // messages at this moment, from 354 to the reply
	Messages    int       // answered with 250
	Recipients  int       // of those messages
	Deferred    int       // messages answered with 451
	Refused     int       // recipients that Rcpt refused
	Mixed       int       // recipients that got another message's content
	Last        time.Time // when the last message was taken
}

// Message is what a Sink with Keep took.
type Message struct {
	From       string   // as in MAIL: the argument behind "FROM:"
	Recipients []string // addresses without brackets
	Content    string   // without dot-stuffing
}

// Listen binds the sink's address.
func Listen(o SinkOptions) (*Sink, error) {
	if o.Addr == "" {
		o.Addr = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", o.Addr)
	if err != nil {
		return nil, err
	}
	return &Sink{options: o, ln: ln, seen: make(map[ID]int), runs: make(map[uint16]int)}, nil
}

// Addr is the address that the sink listens on.
func (s *Sink) Addr() string { return s.ln.Addr().String() }

// Port is the port of Addr.
func (s *Sink) Port() int { return s.ln.Addr().(*net.TCPAddr).Port }

// Run serves until ctx ends and returns when the last connection is closed.
func (s *Sink) Run(ctx context.Context) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	context.AfterFunc(ctx, func() { s.ln.Close() })
	for {
		c, err := s.ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		conns.Go(func() {
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			defer c.Close()
			s.opened(1)
			defer s.opened(-1)
			sess := &sinkSession{sink: s, ctx: ctx, in: bufio.NewReaderSize(c, 64<<10), out: bufio.NewWriter(c)}
			sess.serve()
		})
	}
}

func (s *Sink) opened(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > 0 {
		s.stats.Connections++
	}
	s.stats.Open += n
	s.stats.Peak = max(s.stats.Peak, s.stats.Open)
}

// busy counts a message that begins or ends.
func (s *Sink) busy(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Busy += n
}

// Stats returns the counts so far.
func (s *Sink) Stats() SinkStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Messages returns what was kept so far, in the order of arrival.
func (s *Sink) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Message(nil), s.kept...)
}

// sinkSession is one connection to a Sink.
type sinkSession struct {
	sink *Sink
	ctx  context.Context // the sink's
	in   *bufio.Reader
	out  *bufio.Writer
	from string
	to   []string
	head []byte // the content's first bytes, up to the end of its header
	body []byte // the whole content, with Keep
}

// maxHead is how far into a content its number is looked for.
const maxHead = 16 << 10

func (s *sinkSession) serve() {
	s.say("220 sink.test ESMTP")
	for {
		if s.in.Buffered() == 0 && s.out.Flush() != nil {
			return
		}
		line, err := s.in.ReadSlice('\n')
		if err != nil {
			return
		}
		if !s.command(strings.TrimRight(string(line), "\r\n")) {
			s.out.Flush()
			return
		}
	}
}

func (s *sinkSession) say(line string) {
	s.out.WriteString(line)
	s.out.WriteString("\r\n")
}

// command answers one line and reports whether the session goes on.
func (s *sinkSession) command(line string) bool {
	verb, arg, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO":
		if s.sink.options.NoPipelining {
			s.say("250-sink.test\r\n250 8BITMIME")
		} else {
			s.say("250-sink.test\r\n250-PIPELINING\r\n250 8BITMIME")
		}
	case "MAIL":
		s.from, s.to = arg[min(len("FROM:"), len(arg)):], s.to[:0]
		s.say("250 ok")
	case "RCPT":
		s.rcpt(arg)
	case "DATA":
		return s.data()
	case "RSET":
		s.from, s.to = "", s.to[:0]
		s.say("250 ok")
	case "HELO", "NOOP":
		s.say("250 ok")
	case "QUIT":
		s.say("221 bye")
		return false
	default:
		s.say("500 unknown command")
	}
	return true
}

func (s *sinkSession) rcpt(arg string) {
	_, to, _ := strings.Cut(arg, "<")
	to, _, _ = strings.Cut(to, ">")
	if s.sink.options.Rcpt != nil {
		if answer := s.sink.options.Rcpt(to); answer != "" {
			s.sink.mu.Lock()
			s.sink.stats.Refused++
			s.sink.mu.Unlock()
			s.say(answer)
			return
		}
	}
	s.to = append(s.to, to)
	s.say("250 ok")
}

func (s *sinkSession) data() bool {
	if len(s.to) == 0 {
		s.say("503 no recipient")
		return true
	}
	s.sink.busy(1)
	defer s.sink.busy(-1)
	s.say("354 go on")
	if s.out.Flush() != nil || s.content() != nil {
		return false
	}
	if s.sink.options.Latency > 0 {
		select {
		case <-s.ctx.Done():
			return false
		case <-time.After(s.sink.options.Latency):
		}
	}
	s.say(s.sink.took(s.from, s.to, s.head, s.body))
	s.from, s.to = "", s.to[:0]
	return true
}

// content reads to the final dot. It looks at lines, not at bytes, and keeps
// only the head unless the sink keeps messages.
func (s *sinkSession) content() error {
	s.head, s.body = s.head[:0], s.body[:0]
	inHead, lineStart := true, true
	for {
		line, err := s.in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return io.ErrUnexpectedEOF
		}

		// Only the start of a line can be the end or a stuffed dot. A piece of a long line cannot.
		if lineStart {
			if l := string(line); l == ".\r\n" || l == ".\n" {
				return nil
			}
			if line[0] == '.' {
				line = line[1:]
			}
			inHead = inHead && len(bytes.TrimRight(line, "\r\n")) > 0
		}
		lineStart = err == nil
		if inHead && len(s.head)+len(line) <= maxHead {
			s.head = append(s.head, line...)
		}
		if s.sink.options.Keep {
			s.body = append(s.body, line...)
		}
	}
}

// took counts a message that has come completely and returns its reply.
func (s *Sink) took(from string, to []string, head, body []byte) string {
	id := numberOf(head)
	s.mu.Lock()
	defer s.mu.Unlock()

	// The share of deferrals is kept exactly and evenly, without chance, so that runs can be
	// compared.
	if s.debt += s.options.Defer; s.debt >= 1 {
		s.debt--
		s.stats.Deferred++
		return "451 4.3.0 not now"
	}
	s.stats.Messages++
	s.stats.Recipients += len(to)
	s.stats.Last = time.Now()

	// The local part says which message this recipient should have got. A second arrival is a
	// duplicate, and another number in the header a mix-up.
	for _, address := range to {
		local, _, _ := strings.Cut(address, "@")
		rcpt, ok := ParseID(local)
		if !ok {
			continue
		}
		if s.seen[rcpt]++; s.seen[rcpt] == 1 {
			s.runs[rcpt.Run]++
		}
		if id != headerID(rcpt.Run, rcpt.Message) {
			s.stats.Mixed++
		}
	}
	if s.options.Keep {
		s.kept = append(s.kept, Message{From: from, Recipients: append([]string(nil), to...), Content: string(body)})
	}
	return fmt.Sprintf("250 ok %d", s.stats.Messages)
}

// numberOf finds the number that a message's header carries.
func numberOf(head []byte) string {
	i := bytes.Index(head, []byte("\r\n"+idField))
	if i < 0 {
		return ""
	}
	value, _, _ := bytes.Cut(head[i+2+len(idField):], []byte("\r\n"))
	return string(value)
}
