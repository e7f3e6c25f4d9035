package session

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/reply"
)

// TestNoProgress: in the middle of a message only content keeps a session alive,
// and it has to come at the minimum rate on average, however it is cut.
func TestNoProgress(t *testing.T) {
	const (
		inactivity = 100 * time.Second
		never      = time.Duration(0)
	)
	chunk := "BDAT 500\r\n" + strings.Repeat("x", 500)
	for _, tc := range []struct {
		name, again string
		every       time.Duration
		minRate     int64
		want        string
		after       time.Duration // at most
	}{
		{"empty chunks", "BDAT 0\r\n", 5 * time.Second, 100, "421 4.4.2 Too slow", 40 * time.Second},
		{"empty chunks, no rate", "BDAT 0\r\n", 5 * time.Second, 0, "421 4.4.2 mx.test timeout", inactivity},
		{"other commands", "NOOP\r\n", 5 * time.Second, 0, "421 4.4.2 mx.test timeout", inactivity},
		{"other commands with a rate", "NOOP\r\n", 5 * time.Second, 100, "421 4.4.2 Too slow", 40 * time.Second},
		{"refused commands", "DATA\r\n", 5 * time.Second, 0, "421 4.4.2 mx.test timeout", inactivity},
		{"small chunks", "BDAT 1\r\nx", 5 * time.Second, 100, "421 4.4.2 Too slow", 70 * time.Second},
		{"chunks in two pieces", "x" + "BDAT 1\r\n", 5 * time.Second, 100, "421 4.4.2 Too slow", 70 * time.Second},
		{"honest chunks", chunk, 4 * time.Second, 100, "", never},
		{"honest tiny chunks", strings.Repeat("BDAT 1\r\nx", 500), 4 * time.Second, 100, "", never},
		{"silence within the time", chunk, 90 * time.Second, 5, "", never},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, func(o *Options) { o.InactivityTimeout, o.MinRate, o.MaxBytes = inactivity, tc.minRate, 0 })
				r.intake.drop = true
				c := r.pipe()
				c.want("220")
				c.cmd("EHLO x", "250")
				c.envelope()
				first := "BDAT 2\r\n\r\n"
				if strings.HasPrefix(tc.again, "x") {
					first += "BDAT 1\r\n"
				}
				go func() { _, _ = io.WriteString(c.conn, first) }()
				c.want("250")
				began := time.Now()
				replies := make(chan string)
				go func() {
					defer close(replies)
					for got := c.read(); got != ""; got = c.read() {
						if !strings.HasPrefix(got, "250") && !strings.HasPrefix(got, "503") {
							replies <- got
						}
					}
				}()
				var writing sync.WaitGroup
				writing.Go(func() {
					for n := 0; n < 100; n++ {
						time.Sleep(tc.every)
						if _, err := io.WriteString(c.conn, tc.again); err != nil {
							return
						}
					}
					_, _ = io.WriteString(c.conn, "BDAT 0 LAST\r\nQUIT\r\n")
				})
				got, ok := <-replies
				switch {
				case tc.want == "" && !strings.HasPrefix(got, "221"):
					t.Errorf("an honest client got %q after %v", got, time.Since(began))
				case tc.want != "" && (!ok || got != tc.want || time.Since(began) > tc.after+time.Second):
					t.Errorf("got %q after %v", got, time.Since(began))
				}
				<-replies
				writing.Wait()
				r.finish()
			})
		})
	}
}

// TestTransactionTime: however diligent a client is, a transaction ends.
func TestTransactionTime(t *testing.T) {
	for name, tc := range map[string]struct{ begin, again string }{
		"commands":   {"", "NOOP\r\n"},
		"recipients": {"", "RCPT TO:<refused@here.test>\r\n"},
		"chunks":     {"", "BDAT 5\r\nabcde"},
		"DATA":       {"DATA\r\n", "abcde"},
		"one line":   {"", "N"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, func(o *Options) { o.InactivityTimeout, o.TransactionTimeout = 2*time.Hour, time.Hour })
				r.hooks.set(hook.OnRcpt, func(e *hook.Event) hook.Verdict {
					if e.Recipient.Address.Local == "refused" {
						return hook.Answer(hook.Deny, "")
					}
					return hook.Answer(hook.OK, "")
				})
				c := r.pipe()
				c.want("220")
				c.cmd("EHLO x", "250")
				for range 2 { // each has its own time
					c.envelope()
					time.Sleep(time.Minute)
					c.cmd("RSET", "250")
					time.Sleep(50 * time.Minute)
				}
				c.envelope()
				began := time.Now()
				var writing sync.WaitGroup
				writing.Go(func() {
					_, err := io.WriteString(c.conn, tc.begin)
					for err == nil {
						time.Sleep(time.Minute)
						_, err = io.WriteString(c.conn, tc.again)
					}
				})
				last := ""
				for got := c.read(); got != ""; got = c.read() {
					last = got
				}
				if d := time.Since(began).Round(time.Minute); last != "421 4.4.2 The transaction takes too long" || d != time.Hour {
					t.Errorf("%q after %v", last, d)
				}
				writing.Wait()
				r.finish()
			})
		})
	}
}

// crowd is a server with little memory for mail, and clients that hold much of it.
type crowd struct {
	*rig
	t *testing.T
}

func (cr crowd) client(tls bool) *client {
	c := cr.pipe()
	c.want("220")
	c.cmd("EHLO x", "250")
	if tls {
		c.cmd("STARTTLS", "220")
		c.startTLS(cr.pool)
		c.cmd("EHLO x", "250")
	}
	c.envelope()
	return c
}

// shareStep is how much sessions take of their memory at a time.
const shareStep = 64 << 10

const field = "X-Field: 0123456789012345678901234567890123456789012345678\r\n"

// TestSlowestGivesWay: what cannot leave the memory costs the slowest client its
// session when somebody else needs room.
func TestSlowestGivesWay(t *testing.T) {
	header := strings.Repeat(field, 2000) // 116 kB
	for _, tc := range []struct {
		name, begin, more string
		tls               bool
	}{
		{"header", "DATA\r\n" + header, field, false},
		{"header under TLS", "DATA\r\n" + header, field, true},
		{"silent", "DATA\r\n" + header, "", false},
		{"silent under TLS", "DATA\r\n" + header, "", true},
		{"between chunks", fmt.Sprintf("BDAT %d\r\n", len(header)) + header, "", false},
		{"between chunks under TLS", fmt.Sprintf("BDAT %d\r\n", len(header)) + header, "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, func(o *Options) { o.InactivityTimeout, o.Memory, o.MinRate = time.Hour, 3*shareStep, 1 })
				cr := crowd{r, t}
				slow := cr.client(tc.tls)
				ended := make(chan string)
				go func() {
					last := ""
					for got := slow.read(); got != ""; got = slow.read() {
						last = got
					}
					ended <- last
				}()
				slow.send(tc.begin)
				var writing sync.WaitGroup
				writing.Go(func() {
					for {
						time.Sleep(time.Second)
						if _, err := io.WriteString(slow.conn, tc.more); err != nil {
							return
						}
					}
				})
				time.Sleep(time.Minute)
				other := cr.client(false)
				other.cmd("DATA", "354")
				other.send(header + "\r\nbody\r\n.\r\n")
				other.want("250")
				if got := <-ended; !strings.HasPrefix(got, "421 4.3.1 Too slow while memory is short") {
					t.Errorf("the slow one got %q", got)
				}
				_ = slow.conn.Close()
				writing.Wait()
				other.message(header+"\r\nbody\r\n.\r\n", "250") // nothing is left behind
				r.finish()
				if n := r.srv.memory.Used(); n != 0 {
					t.Errorf("%d bytes are left", n)
				}
			})
		})
	}
}

// TestBodyGivesWay: a slow message whose body is in memory gives that back when a
// faster client needs it, and goes on.
func TestBodyGivesWay(t *testing.T) {
	text := "A: b\r\n\r\n" + strings.Repeat(field, 1000)
	for name, tc := range map[string]struct{ begin, end string }{
		"DATA":           {"DATA\r\n" + text, "x\r\n.\r\n"},
		"a chunk":        {fmt.Sprintf("BDAT %d LAST\r\n", len(text)+3) + text, "x\r\n"},
		"between chunks": {fmt.Sprintf("BDAT %d\r\n", len(text)) + text, "BDAT 3 LAST\r\nx\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := prepare(t, func(o *Options) { o.InactivityTimeout, o.Memory = time.Hour, 3*shareStep })
				slow := crowd{r, t}.client(false)
				ended := make(chan string)
				go func() {
					last := ""
					for got := slow.read(); got != ""; got = slow.read() {
						last += got[:4]
					}
					ended <- last
				}()
				slow.send(tc.begin)
				time.Sleep(time.Minute)
				other := crowd{r, t}.client(false)
				other.message(strings.Repeat(field, 2000)+"\r\nbody\r\n.\r\n", "250")
				slow.send(tc.end)
				slow.send("QUIT\r\n")
				if got := <-ended; !strings.HasSuffix(got, "250 221 ") {
					t.Errorf("the slow one got %q", got)
				}
				r.finish()
			})
		})
	}
}

// TestNoMemory: where nobody is slower, what needs memory is refused for now, and
// the session goes on.
func TestNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, func(o *Options) { o.InactivityTimeout, o.Memory, o.MaxRecipients = time.Hour, 2*shareStep, 1<<20 })
		cr := crowd{r, t}
		c := cr.client(false)
		c.cmd("DATA", "354")
		c.send(strings.Repeat(field, 4000) + "\r\nbody\r\n.\r\n")
		c.want("452 4.3.1 Too much mail is arriving")
		c.message(strings.Repeat(field, 500)+"\r\nbody\r\n.\r\n", "250")

		c.cmd("MAIL FROM:<a@client.test>", "250")
		n := 0
		for ; n < 10_000; n++ {
			c.send("RCPT TO:<" + strings.Repeat("r", 100) + "@here.test>\r\n")
			if got := c.read(); !strings.HasPrefix(got, "250") {
				if !strings.HasPrefix(got, "452 4.3.1 Too much mail is arriving") {
					t.Errorf("%q", got)
				}
				break
			}
		}
		if n < 50 || n == 10_000 {
			t.Errorf("%d recipients were taken", n)
		}
		c.cmd("DATA", "354") // for those there is memory
		c.send("\r\nbody\r\n.\r\n")
		c.want("250")
		c.cmd("QUIT", "221")
		r.finish()
	})
}

// TestBodiesLeaveTheMemory: a body that finds no memory goes to a file, and that of
// a slow message does when memory gets short.
func TestBodiesLeaveTheMemory(t *testing.T) {
	text := strings.Repeat(field, 1000)
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, func(o *Options) { o.InactivityTimeout, o.Memory = time.Hour, 3*shareStep }) // of which bodies may have two
		cr := crowd{r, t}
		inMemory := func() (n int) {
			synctest.Wait()
			r.intake.mu.Lock()
			defer r.intake.mu.Unlock()
			for b := range r.intake.bodies {
				if !b.spilt {
					n++
				}
			}
			return n
		}
		silent, trickle := cr.client(false), cr.client(false)
		for _, c := range []*client{silent, trickle} {
			c.cmd("DATA", "354")
			c.send("A: b\r\n\r\n" + text)
		}
		if n := inMemory(); n != 2 {
			t.Fatalf("%d bodies in memory", n)
		}
		fast := cr.client(false)
		fast.cmd("DATA", "354")
		fast.send("A: b\r\n\r\n" + text)
		if n := inMemory(); n != 2 {
			t.Errorf("there is memory for 2, %d are in it", n)
		}
		for range 7 {
			time.Sleep(time.Second)
			trickle.send("x")
		}
		if n := inMemory(); n > 1 {
			t.Errorf("%d slow bodies stay in memory", n)
		}
		for _, c := range []*client{silent, trickle, fast} {
			c.send("\r\n.\r\n")
			c.want("250")
			c.cmd("QUIT", "221")
		}
		r.finish()
	})
	synctest.Test(t, func(t *testing.T) {
		r := prepare(t, func(o *Options) { o.Memory = shareStep / 2 })
		r.intake.spillErr = reply.New(452, "4.3.1", "Insufficient system storage")
		c := crowd{r, t}.client(false)
		c.cmd("DATA", "354")
		c.send("\r\n" + text + ".\r\n")
		c.want("452 4.3.1 Insufficient system storage")
		c.cmd("QUIT", "221")
		r.finish()
	})
}
