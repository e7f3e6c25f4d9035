package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Load is one run of the generator. Zero fields have the defaults named here.
type Load struct {
	Addr       string        // host:port of the server
	Run        uint16        // tells the messages of runs apart that share a sink
	Clients    int           // concurrent sessions; 1
	Messages   int           // in all; 0: as many as fit into Duration
	Duration   time.Duration // with Messages 0
	Size       int           // bytes of one message's content; 4096
	Recipients int           // of each message; 1
	Domain     string        // of the recipients; sink.test
	Domains    int           // message n goes to "dN." + Domain, N being n modulo Domains; 0: to Domain itself
	From       string        // the sender, in the envelope and the header; load@client.test
	Origins    []Origin      // client n is at Origins[n modulo their number]; none: the system's choice, as client.test
	Pipelining bool          // MAIL, RCPT and DATA in one write, if the server offers it
	PerSession int           // messages sent over one session; 0: no limit
	Pause      time.Duration // of a client between its messages: a steady load instead of all that the server can take
	StartTLS   bool          // every session begins with a full handshake; any certificate will do
	Patience   time.Duration // how long a client that lost its session tries to connect; 0: it gives up
	Timeout    time.Duration // for each transaction; 60 s

	// Seal returns header fields that go in front of every message, such as a signature. It
	// is called once; of the message that it gets only the field X-Load-Id changes later.
	Seal func(message []byte) (fields []byte, err error)
}

// Origin is where a client comes from.
type Origin struct {
	Addr netip.Addr // a local one
	Name string     // in EHLO
}

// anywhere is where a client comes from that nobody has placed.
var anywhere = Origin{Name: "client.test"}

// Report is what a run saw.
type Report struct {
	Load      Load
	Started   time.Time
	Elapsed   time.Duration // until the last message was answered
	Accepted  int           // messages with a positive reply to the final dot
	Refused   int           // messages refused by a reply
	Uncertain int           // the session was lost after the final dot was sent
	Failed    int           // the session was lost earlier, or could not be had
	Sessions  int           // that reached EHLO
	Latency   Latency       // of accepted messages
	Err       error         // the first refusal or failure

	accepted []ID // recipients that the server took responsibility for
}

// Recipients is the number of recipients that were accepted with a message.
func (r *Report) Recipients() int { return len(r.accepted) }

// Latency is the time from writing MAIL to the reply to the final dot.
type Latency struct{ P50, P95, P99, Max time.Duration }

func latencyOf(all []time.Duration) Latency {
	if len(all) == 0 {
		return Latency{}
	}
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100] }
	return Latency{P50: at(50), P95: at(95), P99: at(99), Max: all[len(all)-1]}
}

// Send runs the load. It returns when the last client is done or ctx has
// ended; refusals and lost sessions are in the report and no error.
func (l Load) Send(ctx context.Context) *Report {
	l.Clients = max(l.Clients, 1)
	l.Recipients = max(l.Recipients, 1)
	if l.Size == 0 {
		l.Size = 4096
	}
	if l.Domain == "" {
		l.Domain = "sink.test"
	}
	if l.Timeout == 0 {
		l.Timeout = time.Minute
	}
	if l.From == "" {
		l.From = "load@client.test"
	}
	if len(l.Origins) == 0 {
		l.Origins = []Origin{anywhere}
	}

	// The message is built once. Each client only changes its number, in a copy of the header.
	message, number := content(l.Size, l.Run, l.From)
	if l.Seal != nil {
		fields, err := l.Seal(message)
		if err != nil {
			return &Report{Load: l, Started: time.Now(), Err: err}
		}
		message, number = append(fields, message...), number+len(fields)
	}
	message = append(bytes.ReplaceAll(message, []byte("\r\n."), []byte("\r\n..")), ".\r\n"...)
	split := bytes.Index(message, []byte("\r\n\r\n")) + 4 // no line of the header begins with a dot
	r := &Report{Load: l, Started: time.Now()}
	var (
		next    atomic.Uint32
		clients = make([]*client, l.Clients)
		done    sync.WaitGroup
	)

	// Clients share nothing but the counter of messages, so that the generator does not measure its
	// own locks.
	for i := range clients {
		c := &client{
			load: l, origin: l.Origins[i%len(l.Origins)], next: &next, ends: r.Started.Add(l.Duration),
			header: bytes.Clone(message[:split]), number: number, body: message[split:],
		}
		clients[i] = c
		done.Go(func() { c.run(ctx) })
	}
	done.Wait()
	r.Elapsed = time.Since(r.Started)

	// Counts are added up after the last client has ended: no lock is needed.
	var latencies []time.Duration
	for _, c := range clients {
		r.Accepted += len(c.latencies)
		r.Refused += c.refused
		r.Uncertain += c.uncertain
		r.Failed += c.failed
		r.Sessions += c.sessions
		r.accepted = append(r.accepted, c.accepted...)
		latencies = append(latencies, c.latencies...)
		if r.Err == nil {
			r.Err = c.err
		}
	}
	r.Latency = latencyOf(latencies)
	return r
}

// client is one of a run's concurrent senders.
type client struct {
	load   Load
	origin Origin
	next   *atomic.Uint32 // the next message's number, shared by all clients
	ends   time.Time      // with Messages 0
	header []byte         // of the message, with the empty line behind it
	number int            // where in header the message's number stands
	body   []byte         // dot-stuffed, with its final dot; shared by all clients
	ids    []ID           // of the current message's recipients that were taken
	out    []byte

	conn  net.Conn
	in    *bufio.Reader
	pipe  bool // the server offered PIPELINING and the load wants it
	carry int  // messages sent over this session

	latencies                            []time.Duration
	accepted                             []ID
	refused, uncertain, failed, sessions int
	err                                  error
}

// run sends messages until there are no more.
func (c *client) run(ctx context.Context) {
	defer c.close()
	for first := true; ctx.Err() == nil; first = false {
		if c.load.Messages == 0 && !time.Now().Before(c.ends) {
			break
		}
		if !first && !c.rest(ctx) {
			break
		}
		n := c.next.Add(1) - 1
		if c.load.Messages > 0 && int(n) >= c.load.Messages {
			break
		}
		if c.conn == nil {
			if err := c.open(ctx); err != nil {
				if ctx.Err() == nil { // else the run has ended, and nothing failed
					c.failed++
					c.note(err)
				}
				return
			}
		}

		// A session that failed in the middle is in an unknown state, and is given up.
		if err := c.message(n); err != nil {
			c.note(err)
			c.drop()
			if c.load.Patience == 0 {
				return
			}
			continue
		}
		if c.carry++; c.load.PerSession > 0 && c.carry == c.load.PerSession {
			c.close()
		}
	}
}

// rest waits out the pause before a message and reports whether the run goes on.
func (c *client) rest(ctx context.Context) bool {
	if c.load.Pause == 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(c.load.Pause):
		return true
	}
}

func (c *client) note(err error) {
	if c.err == nil {
		c.err = err
	}
}

// open connects, again and again while the client's patience lasts.
func (c *client) open(ctx context.Context) error {
	giveUp := time.Now().Add(c.load.Patience)
	for {
		err := c.dial(ctx)
		if err == nil {
			c.sessions++
			return nil
		}
		c.drop()
		if ctx.Err() != nil || time.Now().After(giveUp) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (c *client) dial(ctx context.Context) error {
	var d net.Dialer
	if c.origin.Addr.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.origin.Addr, 0))
	}
	ctx, cancel := context.WithTimeout(ctx, c.load.Timeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", c.load.Addr)
	if err != nil {
		return err
	}
	c.conn, c.in, c.carry = conn, bufio.NewReader(conn), 0
	c.conn.SetDeadline(time.Now().Add(c.load.Timeout))
	if _, err := c.expect(220); err != nil {
		return err
	}
	offers, err := c.hello()
	if err == nil && c.load.StartTLS {
		offers, err = c.startTLS(ctx)
	}
	if err != nil {
		return err
	}
	c.pipe = c.load.Pipelining && strings.Contains(strings.ToUpper(offers), "PIPELINING")
	return nil
}

// hello returns the offers in the reply to EHLO.
func (c *client) hello() (string, error) {
	return c.command("EHLO "+c.origin.Name+"\r\n", 250)
}

// startTLS returns the offers behind the handshake. Nothing is remembered from
// one session to the next, so that no handshake is shortened.
func (c *client) startTLS(ctx context.Context) (string, error) {
	if _, err := c.command("STARTTLS\r\n", 220); err != nil {
		return "", err
	}
	secure := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}) // servers under load have certificates of their own making
	if err := secure.HandshakeContext(ctx); err != nil {
		return "", err
	}
	c.conn, c.in = secure, bufio.NewReader(secure)
	return c.hello()
}

// message sends message n. An error means that the session is of no more use.
func (c *client) message(n uint32) error {
	start := time.Now()
	c.conn.SetDeadline(start.Add(c.load.Timeout))
	copy(c.header[c.number:], headerID(c.load.Run, n))
	data, err := c.envelope(n)
	if err != nil {
		c.failed++
		return err
	}

	// A refusal leaves the session usable. RSET clears whatever the server still holds.
	if data.code != 354 {
		c.refused++
		c.note(data)
		_, err := c.command("RSET\r\n", 250)
		return err
	}
	whole := net.Buffers{c.header, c.body}
	if len(c.ids) == 0 { // 354 although no recipient is left (RFC 2920 section 3.1)
		whole = net.Buffers{[]byte(".\r\n")}
	}
	if _, err := whole.WriteTo(c.conn); err != nil {
		c.failed++
		return err
	}

	// From here on the server may have taken the message. Without its reply nobody can know, so it
	// counts as uncertain.
	final, err := c.reply()
	switch {
	case err != nil:
		c.uncertain++
		return err
	case final.code/100 == 2:
		c.latencies = append(c.latencies, time.Since(start))
		c.accepted = append(c.accepted, c.ids...)
	default:
		c.refused++
		c.note(final)
	}
	return nil
}

// envelope says MAIL, RCPT for each recipient and DATA, fills ids with the
// recipients that were taken and returns the first refusal of MAIL or the
// reply to DATA.
func (c *client) envelope(n uint32) (*response, error) {
	c.ids = c.ids[:0]
	c.out = append(append(append(c.out[:0], "MAIL FROM:<"...), c.load.From...), ">\r\n"...)
	var mail *response
	for i := range c.load.Recipients {
		if !c.pipe {
			r, err := c.flush()
			if err != nil {
				return nil, err
			}
			if mail = c.take(n, i-1, mail, r); mail.code/100 != 2 {
				return mail, nil
			}
		}
		c.out = append(c.out, "RCPT TO:<"...)
		c.out = ID{Run: c.load.Run, Message: n, Recipient: uint16(i)}.append(c.out)
		c.out = append(c.out, '@')
		if c.load.Domains > 0 {
			c.out = append(strconv.AppendUint(append(c.out, 'd'), uint64(n)%uint64(c.load.Domains), 10), '.')
		}
		c.out = append(append(c.out, c.load.Domain...), ">\r\n"...)
	}
	if !c.pipe {
		r, err := c.flush()
		if err != nil {
			return nil, err
		}
		c.take(n, c.load.Recipients-1, mail, r)
		if len(c.ids) == 0 {
			return r, nil
		}
	}

	// With pipelining everything up to DATA leaves in one write, as RFC 2920 has it.
	c.out = append(c.out, "DATA\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	c.out = c.out[:0]
	if c.pipe {
		for i := -1; i < c.load.Recipients; i++ {
			r, err := c.reply()
			if err != nil {
				return nil, err
			}
			mail = c.take(n, i, mail, r)
		}
	}
	return c.reply()
}

// take notes reply r to recipient i of message n, or to MAIL when i is -1, and
// returns the reply to MAIL.
func (c *client) take(n uint32, i int, mail, r *response) *response {
	if r.code/100 != 2 {
		c.note(r)
	}
	if i < 0 {
		return r
	}
	if r.code/100 == 2 {
		c.ids = append(c.ids, ID{Run: c.load.Run, Message: n, Recipient: uint16(i)})
	}
	return mail
}

// flush writes the waiting commands and reads one reply.
func (c *client) flush() (*response, error) {
	if _, err := c.conn.Write(c.out); err != nil {
		return nil, err
	}
	c.out = c.out[:0]
	return c.reply()
}

func (c *client) command(line string, code int) (string, error) {
	if _, err := c.conn.Write([]byte(line)); err != nil {
		return "", err
	}
	return c.expect(code)
}

func (c *client) expect(code int) (string, error) {
	r, err := c.reply()
	if err != nil {
		return "", err
	}
	if r.code != code {
		return "", r
	}
	return r.text, nil
}

// response is a server's reply: an error when it was not the one hoped for.
type response struct {
	code int
	text string // the whole reply, as it came
}

func (r *response) Error() string { return "server said " + strings.TrimSpace(r.text) }

// ok is the reply that costs no allocation.
var ok = &response{code: 250, text: "250"}

func (c *client) reply() (*response, error) {
	var text []byte
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			if errors.Is(err, bufio.ErrBufferFull) {
				return nil, fmt.Errorf("reply line too long: %.80q", line)
			}
			return nil, err
		}
		if len(line) < 5 {
			return nil, fmt.Errorf("not a reply: %q", line)
		}

		// Nearly all replies are a plain 250, which costs nothing this way.
		if line[3] != '-' && len(text) == 0 && string(line[:3]) == "250" {
			return ok, nil
		}
		text = append(text, line...)
		if line[3] != '-' {
			code := 0
			for _, d := range line[:3] {
				if d < '0' || d > '9' {
					return nil, fmt.Errorf("not a reply: %q", line)
				}
				code = code*10 + int(d-'0')
			}
			return &response{code, string(text)}, nil
		}
	}
}

// close ends the session politely.
func (c *client) close() {
	if c.conn == nil {
		return
	}
	c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	c.command("QUIT\r\n", 221)
	c.drop()
}

func (c *client) drop() {
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn = nil
}
