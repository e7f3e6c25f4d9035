package maillog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
)

// reader is the reader of a log: it may stall or fail.
type reader struct {
	mu    sync.Mutex
	text  bytes.Buffer
	calls int
	err   error
	stall chan struct{} // a call waits until this is closed; nil: it does not
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	stall := r.stall
	r.mu.Unlock()
	if stall != nil {
		<-stall
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls++
	if r.err != nil {
		return 0, r.err
	}
	return r.text.Write(b)
}

func (r *reader) set(err error, stall chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err, r.stall = err, stall
}

func (r *reader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// TestWriter: a line after a pause is written at once, many lines with few calls,
// and none is lost, cut or moved.
func TestWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r reader
		w := NewWriter(&r)
		began := time.Now()
		fmt.Fprintln(w, "first")
		synctest.Wait()
		if got := r.String(); got != "first\n" || time.Since(began) > 0 {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		want := "first\n"
		for i := range 10_000 {
			line := fmt.Sprintf("line %d\n", i)
			want += line
			io.WriteString(w, line)
		}
		time.Sleep(gather)
		synctest.Wait()
		if got := r.String(); got != want {
			t.Errorf("%d bytes, want %d", len(got), len(want))
		}
		if most := 2 + len(want)/(maxChunk/2); r.calls > most {
			t.Errorf("%d calls, want at most %d", r.calls, most)
		}
		fmt.Fprintln(w, "last")
		if err := w.Close(); err != nil || !strings.HasSuffix(r.String(), "last\n") {
			t.Error(err, r.String())
		}
		if w.Lost() != 0 || w.Trouble() != "" {
			t.Error(w.Lost(), w.Trouble())
		}
	})
}

// TestChunks: a call carries whole lines, also those that are longer than others.
func TestChunks(t *testing.T) {
	long := strings.Repeat("x", 2*maxChunk) + "\n"
	short := strings.Repeat("y", 100) + "\n"
	for name, text := range map[string]string{
		"short": strings.Repeat(short, 3000), "long": long + short + long, "no end": strings.Repeat("z", 3*maxChunk), "one": short,
	} {
		for b := []byte(text); len(b) > 0; {
			n := chunk(b)
			if n <= 0 || n > len(b) || n < len(b) && b[n-1] != '\n' {
				t.Fatalf("%s: %d of %d bytes", name, n, len(b))
			}
			b = b[n:]
		}
	}
}

// TestStalled: a reader that does not read stops nobody, costs what does not fit
// into the buffer, and finds out how much that was.
func TestStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stall := make(chan struct{})
		r := reader{stall: stall}
		w := NewWriter(&r)
		z := zap.New(NewCore(Settings{}, w))
		began, value := time.Now(), strings.Repeat("x", 1000)
		const entries = 3 * maxBuffered / 1000
		for i := range entries {
			z.Info("m", zap.Int("i", i), zap.String("v", value))
		}
		z.Error("an error has room left")
		if took := time.Since(began); took > 0 {
			t.Errorf("it took %v", took)
		}
		if buffered := len(w.pending) + w.writing; buffered > maxBuffered+reserved || buffered < maxBuffered/2 {
			t.Errorf("%d bytes are buffered", buffered)
		}
		lost := w.Lost()
		if lost < entries/2 || lost >= entries {
			t.Errorf("%d of %d lines are lost", lost, entries)
		}
		time.Sleep(time.Minute)
		if got := w.Trouble(); got != fmt.Sprintf("the log has not been read for 1m0s; %d log lines lost, the last 1m0s ago", lost) {
			t.Error(got)
		}
		began = time.Now()
		z.DPanic("this line may be the last") // and waits a second
		if err := w.Sync(); err == nil || time.Since(began) != 2*patience {
			t.Error(err, time.Since(began))
		}
		r.set(nil, nil)
		close(stall)
		z.Info("read again")
		if err := w.Sync(); err != nil {
			t.Error(err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		got := r.String()
		kept := strings.Count(got, "[INFO] [-] [core] m id=- i=")
		if int64(kept)+lost != entries || !strings.Contains(got, "[ERROR] [-] [core] an error has room left id=-\n") {
			t.Errorf("%d lines of %d, %d lost", kept, entries, lost)
		}
		if !strings.Contains(got, fmt.Sprintf("[WARN] [-] [log] log lines were lost id=- lines=%d\n", lost)) || strings.Count(got, "were lost") != 1 {
			t.Error(got[len(got)-200:])
		}
		if w.Lost() != lost || !strings.HasPrefix(w.Trouble(), fmt.Sprintf("%d log lines lost, ", lost)) {
			t.Error(w.Lost(), w.Trouble())
		}
	})
}

// TestGone: a reader that is gone costs every line, and little else.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reader{err: syscall.EPIPE}
		w := NewWriter(&r)
		for range 60 * 1000 { // a line each millisecond
			io.WriteString(w, "line\n")
			time.Sleep(time.Millisecond)
		}
		if err := w.Sync(); err != nil {
			t.Error(err)
		}
		if w.Lost() != 60*1000 || r.calls > 62 {
			t.Errorf("%d lines lost in %d calls", w.Lost(), r.calls)
		}
		if got := w.Trouble(); !strings.HasPrefix(got, "the log cannot be written: broken pipe; 60000 log lines lost") {
			t.Error(got)
		}
		w.Close()
	})
}

// TestFull: what a full disk cannot take is written later, or lost at the end.
func TestFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := reader{err: syscall.ENOSPC}
		w := NewWriter(&r)
		io.WriteString(w, "one\n")
		synctest.Wait()
		io.WriteString(w, "two\n")
		if got := w.Trouble(); got != "the log cannot be written: no space left on device" {
			t.Error(got)
		}
		r.set(nil, nil)
		time.Sleep(again)
		synctest.Wait()
		if got := r.String(); got != "one\ntwo\n" || w.Lost() != 0 || w.Trouble() != "" {
			t.Error(got, w.Lost(), w.Trouble())
		}
		r.set(errors.New("broken"), nil)
		io.WriteString(w, "three\n")
		if err := w.Close(); err != nil || w.Lost() != 1 {
			t.Error(err, w.Lost())
		}
	})
}

// BenchmarkWriter is a line through the buffer, from several goroutines.
func BenchmarkWriter(b *testing.B) {
	w := NewWriter(io.Discard)
	line := []byte(strings.Repeat("x", 200) + "\n")
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			w.Write(line)
		}
	})
	w.Close()
}
