package crash

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/test/load"
)

// Twenty messages of 50 MB at once do not go through the daemon's memory.
func TestLargeMessages(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("writes a gigabyte")
	}
	const (
		messages = 20
		size     = 50_000_000
		most     = 64 << 20 // what the resident set may grow by
	)
	next, err := load.Listen(load.SinkOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = next.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	dir := t.TempDir()
	folder(t, dir, next.Port(), map[string]string{"connection.ini": "[max]\nbytes=60000000\n"})
	d := start(t, dir)
	before := d.memory("VmRSS:")

	line := append(bytes.Repeat([]byte("0123456789"), 7), "\r\n"...)
	block := bytes.Repeat(line, 1000)
	sessions := make([]*dialog, messages)
	for i := range sessions {
		s := d.dial()
		sessions[i] = s
		s.say("MAIL FROM:<s@client.test>", "250")
		s.say(fmt.Sprintf("RCPT TO:<d%d@sink.test>", i), "250")
		s.say("DATA", "354")
	}
	var sending sync.WaitGroup
	for _, s := range sessions {
		sending.Go(func() {
			w := s.DotWriter()
			for sent := 0; sent < size; sent += len(block) {
				if _, err := w.Write(block); err != nil {
					t.Error(err)
					return
				}
			}
			if err := w.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()
	for _, s := range sessions {
		s.expect("250")
	}
	accepted := d.memory("VmHWM:")
	eventually(t, "all of them", func() bool { return next.Stats().Messages == messages })
	delivered := d.memory("VmHWM:")
	t.Logf("resident: %d MiB before, at most %d MiB until they were accepted, %d MiB until they were delivered",
		before>>20, accepted>>20, delivered>>20)
	if delivered-before > most {
		t.Errorf("the resident set grew by %d MiB", (delivered-before)>>20)
	}
	d.stop()
}

// memory reads a line of the daemon's /proc/PID/status in bytes.
func (d *daemon) memory(key string) int64 {
	d.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.PID()))
	if err != nil {
		d.t.Fatal(err)
	}
	for text := range strings.Lines(string(status)) {
		if f := strings.Fields(text); len(f) > 1 && f[0] == key {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return n << 10
		}
	}
	d.t.Fatalf("no %s in /proc", key)
	return 0
}
