package smtpd

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/smtpd/budget"
	"tarishi/internal/smtpd/pace"
)

// counter is a Receiver that keeps nothing.
type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) { c.n += len(b); return len(b), nil }
func (c *counter) Spare()                      {}
func (c *counter) GiveWay() bool               { return false }

// TestTrickleHoldsNoBuffer: a message that comes in small pieces, or not at all,
// does not hold a large buffer meanwhile, not even for an end of data that is not
// whole.
func TestTrickleHoldsNoBuffer(t *testing.T) {
	for _, piece := range []string{"abc", "a\r\n.", ""} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			c := NewConn(server, Settings{Inactivity: time.Hour})
			c.StartWatch(budget.New(0), pace.Terms{}).BeginMessage()
			done := make(chan error, 1)
			go func() { done <- c.ReadData(&counter{}) }()
			look := func(large bool) {
				t.Helper()
				if synctest.Wait(); c.isLarge() != large {
					t.Errorf("%q: a large buffer: %v", piece, !large)
				}
			}
			send := func(s string) {
				if _, err := io.WriteString(client, s); err != nil {
					t.Error(err)
				}
			}
			burst := "z\r\n" + strings.Repeat("0123456789\r\n", 8000)
			send(burst)
			look(true)
			for range 8 {
				time.Sleep(2 * time.Second)
				send(piece)
			}
			look(false)
			send(burst)
			look(true)
			time.Sleep(time.Second)
			send("\r\n.\r\n")
			if err := <-done; err != nil {
				t.Error(err)
			}
			client.Close()
			c.Close()
		})
	}
}
