package session

import (
	"bufio"
	"context"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/session/policy"
)

// quiet is a Chain without handlers, where recipients need none.
type quiet struct{}

func (quiet) Has(p hook.Point) bool { return p == hook.OnRcpt }

func (quiet) Wait(context.Context) {}

func (quiet) Run(context.Context, hook.Point, *hook.Event) hook.Verdict {
	return hook.Verdict{Code: hook.OK}
}

// benchServer serves on a loopback socket until stop.
func benchServer(tb testing.TB) (srv *Server, addr string, stop func()) {
	srv = NewServer(Options{Conversation: Conversation{
		Settings: policy.Settings{MaxBytes: 64 << 20, MaxReceived: 100, AddReceived: true}, Me: "mx.test", Chain: quiet{}, Intake: &intake{drop: true},
	}})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { srv.Serve(context.Background(), c, false) })
		}
	})
	return srv, l.Addr().String(), func() {
		l.Close()
		_ = srv.Shutdown(context.Background())
		wg.Wait()
	}
}

// lines reads n lines.
func lines(r *bufio.Reader, n int) error {
	for range n {
		if _, err := r.ReadSlice('\n'); err != nil {
			return err
		}
	}
	return nil
}

// send makes clients send messages of size bytes on kept sessions, pipelined or
// a command at a time.
func benchSend(b *testing.B, size, clients int, pipelined bool) {
	_, addr, stop := benchServer(b)
	defer stop()
	line := strings.Repeat("x", 76) + "\r\n"
	content := "Subject: bench\r\n\r\n" + strings.Repeat(line, size/len(line)) + ".\r\n"
	envelope := []string{"MAIL FROM:<a@b.test>\r\n", "RCPT TO:<c@d.test>\r\n", "DATA\r\n"}
	if pipelined {
		envelope = []string{strings.Join(envelope, "")}
	}
	work := make(chan struct{}, b.N)
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	var wg sync.WaitGroup
	b.SetBytes(int64(len(content)))
	b.ResetTimer()
	for range clients {
		wg.Go(func() {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			_, _ = io.WriteString(c, "HELO x\r\n")
			if err := lines(r, 2); err != nil {
				b.Error(err)
				return
			}
			for range work {
				for _, command := range envelope {
					_, _ = io.WriteString(c, command)
					if err := lines(r, strings.Count(command, "\n")); err != nil {
						b.Error(err)
						return
					}
				}
				_, _ = io.WriteString(c, content)
				if err := lines(r, 1); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkSession4KiB(b *testing.B)          { benchSend(b, 4<<10, 20, false) }
func BenchmarkSession4KiBPipelined(b *testing.B) { benchSend(b, 4<<10, 20, true) }
func BenchmarkSession1MiB(b *testing.B)          { benchSend(b, 1<<20, 2, true) }

// hold opens n sessions, leads each to where it waits for a command after EHLO,
// and returns how many bytes of heap and stack each one costs when it has been silent
// for a while, at the latest after some time.
func hold(tb testing.TB, n int) float64 {
	_, addr, stop := benchServer(tb)
	defer stop()
	usage := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := usage()
	conns := make([]net.Conn, n)
	for i := range conns {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			tb.Fatal(err)
		}
		defer c.Close()
		conns[i] = c
		_, _ = io.WriteString(c, "EHLO client.test\r\n")
		b := make([]byte, 512)
		for got := ""; !strings.HasSuffix(got, "SIZE 67108864\r\n"); {
			k, err := c.Read(b)
			if err != nil {
				tb.Fatal(err)
			}
			got += string(b[:k])
		}
	}
	per := float64(usage()-before) / float64(n)
	for deadline := time.Now().Add(20 * time.Second); per > idleBytes && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
		per = float64(usage()-before) / float64(n)
	}
	runtime.KeepAlive(conns)
	return per
}

// idleBytes is what an idle session may cost here, with room for fragments.
const idleBytes = 16 << 10

// TestIdleMemory: an idle session holds no buffer, no server and a small stack. The
// client's socket is in the figure too.
func TestIdleMemory(t *testing.T) {
	if per := hold(t, 1000); per > idleBytes {
		t.Errorf("%.0f bytes a session", per)
	}
}

func BenchmarkIdleSession(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(hold(b, 1000), "B/session")
	}
}
