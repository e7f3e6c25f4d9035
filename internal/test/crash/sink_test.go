package crash

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/smtp"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Message n is for some of these recipients, each of a domain of its own, and
// so of a delivery of its own. Its sender s<n>@client.test gets the report about
// f<n>.
//
//	d<n>@sink.test  is taken at once
//	t<n>@slow.test  is refused with 451 at the first attempts
//	f<n>@fail.test  is refused with 550
func recipientsOf(n int) []string {
	to := []string{fmt.Sprintf("d%d@sink.test", n)}
	if n%4 == 0 {
		to = append(to, fmt.Sprintf("t%d@slow.test", n))
	}
	if n%10 == 0 {
		to = append(to, fmt.Sprintf("f%d@fail.test", n))
	}
	return to
}

// deferrals is how often t<n> is refused: often enough for its message to be
// still there when its segment of the journal is retired.
const deferrals = 3

func senderOf(n int) string { return fmt.Sprintf("s%d@client.test", n) }

// owed is whom message n must reach.
func owed(n int) []string {
	to := recipientsOf(n)
	if last := to[len(to)-1]; last[0] == 'f' {
		to[len(to)-1] = senderOf(n)
	}
	return to
}

// contentOf is message n. Its header has the checksum of its body.
func contentOf(n int) []byte {
	size := 500 + rand.IntN(6000)
	if n%50 == 0 { // above spool_after: a file from the beginning
		size = 100 << 10
	}
	body := make([]byte, 0, size+100)
	for i := 0; len(body) < size; i++ {
		body = fmt.Appendf(body, ". line %d of message %d, which nobody should lose on the way\r\n", i, n)
	}
	return fmt.Appendf(nil, "From: <%s>\r\nSubject: number %d\r\nX-Sum: %08x\r\n\r\n%s", senderOf(n), n, crc32.ChecksumIEEE(body), body)
}

// ledger is who was promised what, and who got it.
type ledger struct {
	mu       sync.Mutex
	life     int // of the daemon: grows with each start
	offered  int
	accepted []int            // messages answered with 250
	arrivals map[string][]int // by address: the life of each
	distinct int              // addresses that got something
	tries    map[string]int   // attempts that were refused for now
	refused  int
	damaged  []string
	held     bool // nobody is taken
}

func newLedger() *ledger {
	return &ledger{arrivals: map[string][]int{}, tries: map[string]int{}}
}

func (l *ledger) nextLife() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life++
	return l.life
}

func (l *ledger) offer() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.offered++
	return l.offered
}

func (l *ledger) accept(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.accepted = append(l.accepted, n)
}

// behind is about how many messages are accepted and not delivered.
func (l *ledger) behind() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.accepted)*135/100 - l.distinct
}

// lost returns what was promised and has not arrived.
func (l *ledger) lost() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lost []string
	for _, n := range l.accepted {
		for _, to := range owed(n) {
			if len(l.arrivals[to]) == 0 {
				lost = append(lost, to)
			}
		}
	}
	return lost
}

// hold makes the next hop defer everything, or no more.
func (l *ledger) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
}

// reached is how many addresses got something.
func (l *ledger) reached() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.distinct
}

// rcpt is the answer to RCPT.
func (l *ledger) rcpt(to string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.held:
		return "451 4.7.1 nobody is taken now"
	case to[0] == 'f':
		return "550 5.1.1 nobody has that name here"
	case to[0] == 't' && l.tries[to] < deferrals:
		l.tries[to]++
		l.refused++
		return "451 4.7.1 come back later"
	}
	return "250 ok"
}

func (l *ledger) took(life int, to []string, content []byte) {
	why := ""
	head, body, _ := bytes.Cut(content, []byte("\r\n\r\n"))
	if _, sum, ok := bytes.Cut(head, []byte("X-Sum: ")); ok {
		if string(sum[:8]) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(body)) {
			why = "the body differs"
		}
	} else if to[0][0] != 's' || !bytes.Contains(body, []byte("f"+strings.Trim(to[0], "sclient.@")+"@fail.test")) {
		why = "neither a message nor the report that is due"
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if why != "" {
		l.damaged = append(l.damaged, strings.Join(to, " ")+": "+why)
	}
	for _, a := range to {
		if l.arrivals[a] = append(l.arrivals[a], life); len(l.arrivals[a]) == 1 {
			l.distinct++
		}
	}
}

// sink starts a next hop that keeps the ledger. It ends with the test, and
// returns its port.
func sink(t *testing.T, l *ledger) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		ln.Close()
		running.Wait()
	})
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			life := l.life
			l.mu.Unlock()
			running.Go(func() {
				defer context.AfterFunc(ctx, func() { c.Close() })()
				defer c.Close()
				serve(c, life, l)
			})
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

// serve is one session with the next hop, until the client is gone.
func serve(c net.Conn, life int, l *ledger) {
	in, out := bufio.NewReaderSize(c, 32<<10), bufio.NewWriter(c)
	lines := textproto.NewReader(in)
	say := func(s string) { fmt.Fprintf(out, "%s\r\n", s) }
	say("220 sink.test")
	var to []string
	for {
		if in.Buffered() == 0 && out.Flush() != nil {
			return
		}
		line, err := lines.ReadLine()
		if err != nil {
			return
		}
		switch verb, arg, _ := strings.Cut(line, " "); strings.ToUpper(verb) {
		case "EHLO":
			say("250-sink.test\r\n250 PIPELINING")
		case "MAIL", "RSET":
			to = nil
			say("250 ok")
		case "RCPT":
			_, a, _ := strings.Cut(arg, "<")
			a, _, _ = strings.Cut(a, ">")
			answer := l.rcpt(a)
			if answer[0] == '2' {
				to = append(to, a)
			}
			say(answer)
		case "DATA":
			if len(to) == 0 {
				say("503 nobody to take it for")
				continue
			}
			say("354 go on")
			if out.Flush() != nil {
				return
			}
			content, err := readContent(in)
			if err != nil {
				return
			}
			l.took(life, to, content)
			say("250 ok")
		case "QUIT":
			say("221 bye")
			out.Flush()
			return
		default:
			say("500 what?")
		}
	}
}

// readContent reads to the final dot. Unlike textproto's it keeps CRLF.
func readContent(in *bufio.Reader) ([]byte, error) {
	var content []byte
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, io.ErrUnexpectedEOF
		}
		if string(line) == ".\r\n" {
			return content, nil
		}
		content = append(content, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// client offers messages until its session is lost or ctx ends. It leaves
// nothing uncertain but what it had sent whole and got no answer for.
func (l *ledger) client(ctx context.Context, addr string) {
	c, err := smtp.Dial(addr)
	if err != nil {
		return
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if c.Hello("client.test") != nil {
		return
	}
	for ctx.Err() == nil {
		if l.behind() > 4000 {
			time.Sleep(time.Millisecond)
			continue
		}
		n := l.offer()
		if err := send(c, n); err != nil {
			var refusal *textproto.Error
			if asRefusal(err, &refusal) && c.Reset() == nil {
				continue
			}
			return
		}
		l.accept(n)
	}
}

// send offers message n and returns nil when it was answered with 250.
func send(c *smtp.Client, n int) error {
	if err := c.Mail(senderOf(n)); err != nil {
		return err
	}
	for _, to := range recipientsOf(n) {
		if err := c.Rcpt(to); err != nil {
			return err
		}
	}
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(contentOf(n)); err != nil {
		return err
	}
	return w.Close()
}

// number is the n of an address.
func number(address string) int {
	local, _, _ := strings.Cut(address, "@")
	n, _ := strconv.Atoi(local[1:])
	return n
}
