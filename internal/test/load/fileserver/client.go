package fileserver

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
)

// client sends over one connection.
type client struct {
	conn net.Conn
	in   *bufio.Reader
	out  bytes.Buffer
	stop func() bool
}

func dial(ctx context.Context, addr string) (*client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &client{conn: conn, in: bufio.NewReader(conn), stop: context.AfterFunc(ctx, func() { conn.Close() })}
	err = c.expect('2')
	if err == nil {
		c.out.WriteString("EHLO file-server.test\r\n")
		err = c.talk("2")
	}
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) close() {
	c.stop()
	c.conn.Close()
}

// send carries one message: envelope in one piece, content in another.
func (c *client) send(m message) error {
	classes := "2"
	fmt.Fprintf(&c.out, "MAIL FROM:<%s>\r\n", m.env.From)
	for _, r := range m.env.Recipients {
		fmt.Fprintf(&c.out, "RCPT TO:<%s>\r\n", r.Address)
		classes += "2"
	}
	c.out.WriteString("DATA\r\n")
	if err := c.talk(classes + "3"); err != nil {
		return err
	}
	r, err := m.content.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	all, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	c.out.Write(bytes.ReplaceAll(all, []byte("\r\n."), []byte("\r\n..")))
	c.out.WriteString(".\r\n")
	return c.talk("2")
}

// talk writes out and reads a reply of each class.
func (c *client) talk(classes string) error {
	if _, err := c.conn.Write(c.out.Bytes()); err != nil {
		return err
	}
	c.out.Reset()
	for i := range len(classes) {
		if err := c.expect(classes[i]); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) expect(class byte) error {
	for {
		line, err := c.in.ReadSlice('\n')
		switch {
		case err != nil:
			return err
		case len(line) < 4 || line[0] != class:
			return fmt.Errorf("the next hop said %q", line)
		case line[3] != '-':
			return nil
		}
	}
}
