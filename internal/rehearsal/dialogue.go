package rehearsal

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"strings"

	"tarishi/internal/terminal"
)

// dialogue is the client's side of the conversation.
type dialogue struct {
	conn    net.Conn
	replies chan []string // the lines of each; closed at the end of the connection
	script  *transcript
	flush   func()
	closed  bool // nothing more is said
}

// newDialogue begins to read replies. Nothing waits for them: a server may answer before it has read
// all.
func newDialogue(conn net.Conn, script *transcript, flush func()) *dialogue {
	if flush == nil {
		flush = func() {}
	}
	d := &dialogue{conn: conn, replies: make(chan []string, 1024), script: script, flush: flush}
	go func() { // ends with the connection
		defer close(d.replies)
		var lines []string
		for in := bufio.NewScanner(conn); in.Scan(); {
			lines = append(lines, in.Text())
			if line := in.Text(); len(line) < 4 || line[3] != '-' {
				d.replies <- lines
				lines = nil
			}
		}
	}()
	return d
}

// hold says what the client has to say, until it is refused or has said it all.
func (d *dialogue) hold(c *Client) (accepted bool) {
	if !d.expect('2') || !d.say('2', c.Verb+" "+c.Host) || !d.say('2', "MAIL FROM:<"+c.Sender+">") {
		d.say('2', "QUIT")
		return false
	}
	recipients := 0
	for _, to := range c.Recipients {
		if d.say('2', "RCPT TO:<"+to+">") {
			recipients++
		}
	}
	if recipients > 0 && d.say('3', "DATA") {
		d.script.printf("C: (a message of %d bytes)\n", len(c.Message))
		accepted = d.write(dotted(c.Message)) && d.expect('2')
	}
	d.say('2', "QUIT")
	return accepted
}

// say sends a line and reports whether the reply is of a class.
func (d *dialogue) say(class byte, line string) bool {
	if d.closed {
		return false
	}
	d.script.printf("C: %s\n", terminal.Printable(line))
	return d.write([]byte(line+"\r\n")) && d.expect(class)
}

// write reports whether the server has taken b.
func (d *dialogue) write(b []byte) bool {
	if _, err := io.Copy(d.conn, bytes.NewReader(b)); err != nil {
		d.expect(0) // the last words, if there are any
		return false
	}
	return true
}

// expect waits for a reply, writes it down and reports whether it is of a class.
func (d *dialogue) expect(class byte) bool {
	lines, open := <-d.replies
	d.flush()
	for _, line := range lines {
		d.script.printf("S: %s\n", terminal.Printable(line))
	}
	if !open {
		d.script.printf("   (the connection is closed)\n")
		d.closed = true
		return false
	}
	return strings.HasPrefix(lines[0], string(class))
}

// dotted returns a message as it follows DATA: with CRLF, dots doubled (RFC 5321 section
// 4.5.2), and the final dot.
func dotted(message []byte) []byte {
	var b bytes.Buffer
	for line := range bytes.Lines(message) {
		if line[0] == '.' {
			b.WriteByte('.')
		}
		b.Write(bytes.TrimRight(line, "\r\n"))
		b.WriteString("\r\n")
	}
	b.WriteString(".\r\n")
	return b.Bytes()
}
