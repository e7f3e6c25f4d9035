package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/test/load"
)

const (
	slowClients  = 400
	slowMemory   = 160 << 20 // that they may cost, all together; 60 to 75 on a machine that is not busy, ten times as much without bounds
	honest       = 20
	honestSize   = 4 << 20
	patientSize  = 64 << 10 // at 8 KB/s
	patientPiece = 8 << 10
)

// creep is a client that sends 1 MB of a message at once and then hardly more,
// until ctx ends or the server has had enough. It calls begun when that is sent.
func creep(ctx context.Context, addr, kind string, begun func()) error {
	begun = sync.OnceFunc(begun)
	defer begun()
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	go io.Copy(io.Discard, c) //nolint:errcheck // ends with c
	line := strings.Repeat("x", 158) + "\r\n"
	begin, more, every := "DATA\r\n", line, time.Second
	switch kind {
	case "header":
		line = "X-" + line[:20] + ": " + strings.Repeat("x", 134) + "\r\n"
		more = line
	case "small fields":
		line = "A:\r\n"
		more = strings.Repeat(line, 40)
	case "body":
		begin += "Subject: x\r\n\r\n"
	case "chunk":
		begin = "BDAT 2000000\r\nSubject: x\r\n\r\n"
	case "empty chunks":
		begin, more, every = "BDAT 1000014\r\nSubject: x\r\n\r\n", "BDAT 0\r\n", 5*time.Second
	}
	first := strings.Repeat(line, 1_000_000/len(line))
	if kind == "empty chunks" {
		first += strings.Repeat("x", 1_000_000-len(first))
	}
	if _, err := io.WriteString(c, "EHLO slow.test\r\nMAIL FROM:<a@slow.test>\r\nRCPT TO:<to@sink.test>\r\n"+begin+first); err != nil {
		return err
	}
	begun()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
		if _, err := io.WriteString(c, more); err != nil {
			return err
		}
	}
}

// patient is an honest client on a slow line.
func patient(addr string) error {
	c, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "EHLO patient.test\r\nMAIL FROM:<a@patient.test>\r\nRCPT TO:<to@sink.test>\r\nDATA\r\nSubject: x\r\n\r\n"); err != nil {
		return err
	}
	piece := strings.Repeat(strings.Repeat("y", 62)+"\r\n", patientPiece/64)
	for sent := 0; sent < patientSize; sent += len(piece) {
		time.Sleep(time.Second)
		if _, err := io.WriteString(c, piece); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(c, ".\r\nQUIT\r\n"); err != nil {
		return err
	}
	all, err := io.ReadAll(c)
	if err != nil || !strings.Contains(string(all), "\r\n354 ") || strings.Count(string(all), "\r\n250 ") != 4 {
		return fmt.Errorf("%q %w", all, err)
	}
	return nil
}

// TestLongSlowClients: hundreds of clients that begin large messages and then hardly go
// on cost the daemon little memory, and others are served as ever. How fast is
// printed.
func TestLongSlowClients(t *testing.T) {
	long(t)
	s := sink(t, load.SinkOptions{})
	d := Start(t, with(relayTo(s.Port()), "smtp.ini", "listen=127.0.0.1:0\ninactivity_timeout=60\n", "log.ini", "level=error\n"))
	content := "Subject: x\r\n\r\n" + strings.Repeat(strings.Repeat("z", 78)+"\r\n", honestSize/80)
	others := func() time.Duration {
		began := time.Now()
		var all sync.WaitGroup
		for range honest {
			all.Go(func() {
				if got, err := letter(d.Addr(), "to@sink.test", content); err != nil || !strings.HasPrefix(got, "250") {
					t.Errorf("an honest client: %q %v", got, err)
				}
			})
		}
		all.Wait()
		return time.Since(began)
	}
	usage := func() load.Usage {
		u, err := load.UsageOf(d.PID())
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	others() // the memory that they take is not that of the slow ones
	alone := others()
	before := usage()

	ctx, cancel := context.WithCancel(t.Context())
	var slow, begun, slowest sync.WaitGroup
	defer slow.Wait()
	defer cancel()
	kinds := []string{"header", "small fields", "body", "chunk", "empty chunks"}
	begun.Add(slowClients)
	for i := range slowClients {
		slow.Go(func() { _ = creep(ctx, d.Addr(), kinds[i%len(kinds)], begun.Done) })
	}
	slowest.Go(func() {
		if err := patient(d.Addr()); err != nil {
			t.Errorf("an honest client on a slow line: %v", err)
		}
	})
	begun.Wait()
	beside := others()
	slowest.Wait()
	after := usage()
	t.Logf("%d messages of %d MB in %v, and beside %d slow clients in %v: %.2f of the rate", honest, honestSize>>20,
		alone.Round(time.Millisecond), slowClients, beside.Round(time.Millisecond), alone.Seconds()/beside.Seconds())
	t.Logf("resident memory %d MB, with the slow clients at most %d MB more, %d MB at the end", before.RSS>>20, (after.Peak-before.Peak)>>20, after.RSS>>20)
	if grown := after.Peak - before.RSS; grown > slowMemory {
		t.Errorf("%d slow clients cost %d MB", slowClients, grown>>20)
	}
}
