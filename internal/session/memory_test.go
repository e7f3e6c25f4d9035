package session

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"testing"
)

// TestLargeMessage: what a session allocates does not grow with the message.
func TestLargeMessage(t *testing.T) {
	const size = 48 << 20
	r := newRig(t, false, func(o *Options) { o.MaxBytes = 0 })
	r.intake.drop = true
	piece := bytes.Repeat([]byte(strings.Repeat("x", 62)+"\r\n"), 1<<10)
	var before, after runtime.MemStats
	for how, begin := range map[string]string{"DATA": "DATA\r\n", "BDAT": "BDAT 50331648 LAST\r\n"} {
		c := r.hello()
		c.envelope()
		runtime.ReadMemStats(&before)
		c.send(begin)
		if how == "DATA" {
			c.want("354")
		}
		for sent := 0; sent < size; sent += len(piece) {
			if _, err := c.conn.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if how == "DATA" {
			c.send(".\r\n")
		}
		c.want("250")
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 2<<20 {
			t.Errorf("%s: %d bytes were allocated for %d", how, grown, size)
		}
	}
}

// TestTinyChunks: a message in chunks of one byte costs no more memory than
// one in one piece.
func TestTinyChunks(t *testing.T) {
	r := newRig(t, false)
	r.intake.drop = true
	c := r.hello()
	c.envelope()
	c.send("BDAT 2\r\n\r\n")
	c.want("250")
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	chunks := strings.Repeat("BDAT 1\r\nx", 500)
	for range 40 {
		c.send(chunks)
		for range 500 {
			if got, err := c.r.ReadSlice('\n'); err != nil || string(got) != "250 2.0.0 Continue\r\n" {
				t.Fatalf("%q %v", got, err)
			}
		}
	}
	if after := heap(); after > before+1<<20 {
		t.Errorf("the heap grew by %d bytes", after-before)
	}
	c.cmd("BDAT 0 LAST", "250 2.0.0 Message")
}

// TestSlowReader: a client that does not read its replies costs a few buffers.
func TestSlowReader(t *testing.T) {
	r := newRig(t, false)
	c := r.hello()
	const n = 20000
	go func() { _, _ = io.WriteString(c.conn, strings.Repeat("NOOP\r\n", n)) }()
	for range n {
		if got, err := c.r.ReadSlice('\n'); err != nil || !bytes.HasPrefix(got, []byte("250 ")) {
			t.Fatalf("%q %v", got, err)
		}
	}
}
