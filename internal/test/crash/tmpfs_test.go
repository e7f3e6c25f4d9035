package crash

import (
	"fmt"
	"net"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// small mounts a file system of size bytes that goes away with the test.
func small(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("a file system of its own cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves no byte in dir and returns the name of the file that does it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 64<<10)
	for n := len(block); n > 0; {
		written, err := f.Write(block[:n])
		if err != nil && written == 0 {
			n /= 2
		}
	}
	return name
}

// dialog is a session that a test holds by hand.
type dialog struct {
	*textproto.Conn
	t *testing.T
}

func (d *daemon) dial() *dialog {
	d.t.Helper()
	c, err := net.Dial("tcp", d.Addr())
	if err != nil {
		d.t.Fatal(err)
	}
	s := &dialog{textproto.NewConn(c), d.t}
	d.t.Cleanup(func() { s.Close() })
	s.expect("220")
	s.say("EHLO client.test", "250")
	return s
}

// say sends a line and expects a reply that begins with want.
func (s *dialog) say(line, want string) {
	s.t.Helper()
	if err := s.PrintfLine("%s", line); err != nil {
		s.t.Fatal(err)
	}
	s.expect(want)
}

func (s *dialog) expect(want string) {
	s.t.Helper()
	if got := s.read(); !strings.HasPrefix(got, want) {
		s.t.Fatalf("the daemon said %q, want %q", got, want)
	}
}

func (s *dialog) read() string {
	s.t.Helper()
	code, text, err := s.ReadResponse(0)
	if err != nil && code == 0 {
		s.t.Fatal(err)
	}
	return fmt.Sprintf("%d %s", code, text)
}

// answerToMail asks in a session of its own.
func (d *daemon) answerToMail() string {
	d.t.Helper()
	s := d.dial()
	defer s.Close()
	if err := s.PrintfLine("MAIL FROM:<s0@client.test>"); err != nil {
		d.t.Fatal(err)
	}
	return s.read()
}

// The disk of the real daemon gets full while it accepts, delivers, defers and
// reports. It says 452, loses nothing, also when it is killed and started again
// then, and goes on when there is space.
func TestFullFileSystem(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		t.Run(fmt.Sprintf("killed=%v", killed), func(t *testing.T) {
			dir := small(t, 200<<20)
			l := newLedger()
			l.nextLife()
			folder(t, dir, sink(t, l), map[string]string{"connection.ini": "spool_after=65536\n"})
			d := start(t, dir)
			l.hold(true)
			s := d.dial()
			deliver := func(s *dialog, n int, middle func()) string {
				s.say("MAIL FROM:<"+senderOf(n)+">", "250")
				for _, to := range recipientsOf(n) {
					s.say("RCPT TO:<"+to+">", "250")
				}
				s.say("DATA", "354")
				content := contentOf(n)
				w := s.DotWriter()
				for i, part := range [][]byte{content[:len(content)/2], content[len(content)/2:]} {
					if i == 1 {
						middle()
					}
					if _, err := w.Write(part); err != nil {
						t.Fatal(err)
					}
				}
				if err := w.Close(); err != nil {
					t.Fatal(err)
				}
				answer := s.read()
				if strings.HasPrefix(answer, "250") {
					l.accept(n)
				}
				return answer
			}
			for n := 1; n <= 120; n++ {
				if answer := deliver(s, n, func() {}); !strings.HasPrefix(answer, "250") {
					t.Fatal(answer)
				}
			}

			// Full, in the middle of a content that gets a file of its own.
			var filler string
			if answer := deliver(s, 150, func() { filler = fill(t, dir) }); !strings.HasPrefix(answer, "45") {
				t.Errorf("a large message on a full disk: %q", answer)
			}
			eventually(t, "452 to MAIL", func() bool { return strings.HasPrefix(d.answerToMail(), "452 4.3.1") })
			l.hold(false) // now there are deliveries and reports
			if killed {
				d.kill()
				l.nextLife()
				d = start(t, dir)
				eventually(t, "452 to MAIL after a start", func() bool { return strings.HasPrefix(d.answerToMail(), "452 4.3.1") })
			}
			if err := d.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			eventually(t, "deliveries while the disk is full", func() bool { return l.reached() > 60 })

			// Space again. What has waited since a report could not be written is
			// flushed: its own time comes later.
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
			eventually(t, "250 to MAIL", func() bool { return strings.HasPrefix(d.answerToMail(), "250") })
			s = d.dial()
			for n := 200; n < 220; n++ {
				if answer := deliver(s, n, func() {}); !strings.HasPrefix(answer, "250") {
					t.Fatal(answer)
				}
			}
			eventually(t, "everything that was accepted", func() bool {
				if err := d.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
				return len(l.lost()) == 0
			})
			d.stop()
			l.mu.Lock()
			defer l.mu.Unlock()
			t.Logf("%d accepted, %d recipients reached, %d refusals", len(l.accepted), l.distinct, l.refused)
			if len(l.damaged) > 0 {
				t.Errorf("damaged: %q", l.damaged)
			}
			l.quarantine(t, dir)
		})
	}
}
