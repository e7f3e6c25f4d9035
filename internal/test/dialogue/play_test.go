package dialogue

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"tarishi/internal/test/dnstest"
)

// patience bounds every single wait. Dialogues never depend on it: it ends those that fail.
const patience = time.Minute

// The addresses of the server and of its DNS, in every namespace.
const (
	serverAddr  = "5.5.5.25:25"
	serverAddr6 = "[2a01:4f8::25]:25"
	dnsAddr     = "127.0.0.1:53"
	probeAddr   = "127.0.0.1" // from where it is looked whether the server is there
)

func daysFromNow(days int) string { return time.Now().AddDate(0, 0, days).Format(time.RFC1123Z) }

// outcome is what a server has said, step by step.
type outcome struct {
	Reply  reply
	Header string // of the message that was taken last, unfolded
}

// fill gives a DNS the records of a site.
func fill(d *dnstest.Server, lines []string) error {
	d.SetTTL(60, 1)
	for _, line := range lines {
		f := strings.Fields(line)
		if len(f) < 2 {
			return fmt.Errorf("dns: %q", line)
		}
		switch kind, name, values := f[0], f[1], f[2:]; kind {
		case "A":
			d.A(name, values...)
		case "AAAA":
			d.AAAA(name, values...)
		case "PTR":
			d.PTR(name, values...)
		case "MX":
			for i, host := range values {
				d.MX(name, 10*i, host)
			}
		case "CNAME":
			d.CNAME(name, values[0])
		case "TXT":
			d.TXT(name, strings.SplitN(line, " ", 3)[2])
		case "SERVFAIL":
			if len(values) == 0 {
				d.Fail(name, dnstest.ServFail)
			}
			for _, qtype := range values {
				d.FailType(name, qtype, dnstest.ServFail)
			}
		case "DROP":
			d.Fail(name, dnstest.Drop)
		default:
			return fmt.Errorf("dns: %q", line)
		}
	}
	return nil
}

// mostAtOnce is how many dialogues run side by side.
const mostAtOnce = 8

// mostTries is how often a dialogue with Haraka is begun anew when it goes otherwise
// than the script says: under load it takes an archive for an empty one, because it does
// not wait for the end of what the program says that lists it.
const mostTries = 5

// playAll has all dialogues with a server that writes messages into the folder spool.
func playAll(server string, dialogues []dialogue, spool string) [][]outcome {
	all := make([][]outcome, len(dialogues))
	play := func(i int) { all[i] = (&client{server: server, spool: spool}).play(dialogues[i].Steps) }
	var wg sync.WaitGroup
	free := make(chan struct{}, mostAtOnce)
	for i := range dialogues {
		free <- struct{}{}
		wg.Go(func() {
			play(i)
			<-free
		})
	}
	wg.Wait()

	// One at a time is easier for it.
	for i, d := range dialogues {
		for tries := 1; server == haraka && tries < mostTries && !d.agrees(server, all[i]); tries++ {
			play(i)
		}
	}
	return all
}

// agrees reports whether a server has said what the script says.
func (d *dialogue) agrees(server string, said []outcome) bool {
	for i, st := range d.Steps {
		if st.Want != nil && !st.Want[server].agrees(said[i].Reply) {
			return false
		}
	}
	return true
}

// client has one dialogue.
type client struct {
	server string
	spool  string
	conns  []net.Conn // the last one is in use
	r      *bufio.Reader
	texts  string // of the replies so far
}

func (c *client) play(steps []step) []outcome {
	defer func() {
		for _, conn := range c.conns {
			conn.Close()
		}
	}()
	all := make([]outcome, len(steps))
	for i, st := range steps {
		switch {
		case st.Connect != "":
			if err := c.connect(st.Connect); err != nil {
				all[i].Reply = reply{"failed", err.Error()}
			}
		case st.Send != "" && len(c.conns) > 0:
			// The server may have closed the connection: the reply tells.
			io.WriteString(c.conns[len(c.conns)-1], st.Send)
		case st.Want != nil && len(c.conns) > 0:
			all[i].Reply = c.read(st.Want[c.server].Code == silent)
		case st.TLS && len(c.conns) > 0:
			c.secure()
		case st.Holds != nil || st.Lacks != "":
			all[i].Header = c.header()
		}
	}
	return all
}

func (c *client) connect(from string) error {
	ip, to := net.ParseIP(from), serverAddr
	if ip.To4() == nil {
		to = serverAddr6
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip}, Timeout: patience}
	conn, err := d.Dial("tcp", to)
	if err != nil {
		return err
	}
	conn.SetDeadline(time.Now().Add(patience))
	c.conns, c.r = append(c.conns, conn), bufio.NewReader(conn)
	return nil
}

// secure speaks TLS from now on, whatever certificate the server has.
func (c *client) secure() {
	at := len(c.conns) - 1
	conn := tls.Client(c.conns[at], &tls.Config{InsecureSkipVerify: true})
	c.conns[at], c.r = conn, bufio.NewReader(conn)
}

var enhanced = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3} `)

// silence is how long a reply is waited for that should not come.
const silence = 2 * time.Second

// read reads a reply, or the end of the connection.
func (c *client) read(none bool) reply {
	if none {
		c.conns[len(c.conns)-1].SetDeadline(time.Now().Add(silence))
	}
	var r reply
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return reply{silent, strings.Join(lines, " ")}
			}
			return reply{closed, strings.Join(lines, " ")}
		}
		line = strings.TrimRight(line, "\r\n")
		if len(line) < 3 {
			return reply{"broken", line}
		}
		r.Code = line[:3]
		text := strings.TrimPrefix(strings.TrimPrefix(line[3:], "-"), " ")
		c.texts += text + "\n"
		lines = append(lines, enhanced.ReplaceAllString(text+" ", ""))
		if len(line) == 3 || line[3] == ' ' {
			r.Text = strings.TrimSpace(strings.Join(lines, ""))
			return r
		}
	}
}

var fold = regexp.MustCompile(`\r\n[ \t]+`)

// header returns the header section of the message that was taken last: its
// file has an id in its name that stands in a reply.
func (c *client) header() string {
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		files, _ := filepath.Glob(filepath.Join(c.spool, "mail_*.eml"))
		last := ""
		for _, file := range files {
			id := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(file), "mail_"), ".eml")
			if strings.Contains(c.texts, id) {
				last = max(last, file)
			}
		}
		text, err := os.ReadFile(last)
		if head, _, whole := strings.Cut(string(text), "\r\n\r\n"); err == nil && whole {
			return fold.ReplaceAllString(head, " ")
		}
	}
	return ""
}
