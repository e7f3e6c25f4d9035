package smtpd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"tarishi/internal/smtpd/budget"
	"tarishi/internal/smtpd/pace"
)

// connect returns both ends of a connection over loopback.
func connect(t *testing.T, s Settings) (*Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	s.MaxLine = 1000
	return NewConn(server, s), client
}

// secure puts TLS between the ends.
func secure(t *testing.T, c *Conn, client net.Conn) net.Conn {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	theirs := tls.Client(client, &tls.Config{InsecureSkipVerify: true}) // the test's own certificate
	done := make(chan error, 1)
	go func() { done <- theirs.Handshake() }()
	if _, err := c.StartTLS(&tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return theirs
}

func send(t *testing.T, to io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(to, s); err != nil {
		t.Fatal(err)
	}
}

// TestPark: a silent client costs no buffer, loses nothing of what it has sent, and
// is heard when it goes on, in clear and under TLS.
func TestPark(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		c, client := connect(t, Settings{Inactivity: time.Minute})
		if encrypted {
			client = secure(t, c, client)
		}
		for range 3 {
			send(t, client, "NOOP o")
			if _, err := c.ReadCommand(); !errors.Is(err, ErrIdle) {
				t.Fatal(err)
			}
			if c.buf == nil {
				t.Error("half a command is gone")
			}
			parked := make(chan struct{})
			go func() {
				defer close(parked)
				c.Park()
			}()
			send(t, client, "ne\r\nNOOP two\r\n")
			<-parked
			for _, want := range []string{"one", "two"} {
				got, err := c.ReadCommand()
				for errors.Is(err, ErrIdle) { // the segments may come one by one
					c.Park()
					got, err = c.ReadCommand()
				}
				if err != nil || got.Argument != want {
					t.Fatalf("%+v %v", got, err)
				}
			}
			if _, err := c.ReadCommand(); !errors.Is(err, ErrIdle) {
				t.Fatal(err)
			}
			go func() { _, _ = io.WriteString(client, "QUIT\r\n") }()
			if c.Park(); c.buf != nil {
				t.Error("a parked connection holds a buffer")
			}
			if got, err := c.ReadCommand(); err != nil || got.Name != "QUIT" {
				t.Fatalf("%+v %v", got, err)
			}
		}
	}
}

// TestParkEnds: a parked connection ends as others do.
func TestParkEnds(t *testing.T) {
	for name, tc := range map[string]struct {
		end  func(c *Conn, client net.Conn)
		want error
	}{
		"shutdown": {func(c *Conn, _ net.Conn) { c.Wake() }, ErrShutdown},
		"the end":  {func(_ *Conn, client net.Conn) { client.Close() }, io.EOF},
		"cut":      {func(c *Conn, _ net.Conn) { c.Cut() }, net.ErrClosed},
		"patience": {func(*Conn, net.Conn) {}, ErrTimeout},
	} {
		limit := time.Minute
		if name == "patience" {
			limit = 3 * parkAfter
		}
		c, client := connect(t, Settings{Inactivity: limit})
		if _, err := c.ReadCommand(); !errors.Is(err, ErrIdle) {
			t.Fatalf("%s: %v", name, err)
		}
		go tc.end(c, client)
		for {
			c.Park()
			if _, err := c.ReadCommand(); errors.Is(err, tc.want) {
				break
			} else if !errors.Is(err, ErrIdle) {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// TestNoParking: in a transaction the wait is watched, so it is not cut short.
func TestNoParking(t *testing.T) {
	c, client := connect(t, Settings{Inactivity: time.Minute})
	w := c.StartWatch(budget.New(0), pace.Terms{Window: time.Minute})
	go func() {
		time.Sleep(2 * parkAfter) // or less: then there is nothing to see
		_, _ = io.WriteString(client, "NOOP\r\n")
	}()
	if got, err := c.ReadCommand(); err != nil || got.Name != "NOOP" {
		t.Errorf("%+v %v", got, err)
	}
	w.Stop()
	if _, err := c.ReadCommand(); !errors.Is(err, ErrIdle) {
		t.Error(err)
	}
}

// What the client sends before it is asked is seen and stays to be read; its end is
// nothing that was sent.
func TestHasArrived(t *testing.T) {
	c, client := connect(t, Settings{Inactivity: time.Minute})
	if c.HasArrived() {
		t.Error("something has arrived of a client that says nothing")
	}
	if _, err := client.Write([]byte("NOOP\r\n")); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !c.HasArrived(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what was sent has not arrived")
		}
	}
	if command, err := c.ReadCommand(); err != nil || command.Name != "NOOP" {
		t.Fatal(command, err)
	}
	client.Close()
	if _, err := c.ReadCommand(); err == nil || c.HasArrived() {
		t.Errorf("%v, and the end has arrived as something: %v", err, c.HasArrived())
	}
	c.Cut()
	if c.HasArrived() {
		t.Error("something has arrived on a socket that is closed")
	}
}
