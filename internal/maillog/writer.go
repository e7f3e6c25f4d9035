package maillog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"
)

// Bounds of a Writer.
const (
	maxBuffered = 4 << 20   // bytes that wait for the reader, before lines are lost
	reserved    = 64 << 10  // bytes beyond that for errors and worse
	maxChunk    = 64 << 10  // bytes handed over with one call, unless one line is longer
	keptBuffer  = 256 << 10 // capacity above which an empty buffer is given up

	// gather is the least time between two calls while there is much to write, so
	// that one call takes many lines. A line after a pause is written at once.
	gather = 5 * time.Millisecond
	// again is how long a Writer that failed waits before it tries again.
	again = time.Second
	// patience bounds Sync, and with it what a line that may be the last waits for.
	patience = time.Second
	// stalledAfter is how long a call takes before Trouble calls the reader stalled.
	stalledAfter = 2 * time.Second
)

// Writer keeps whoever logs apart from the reader of the log. Write takes one
// line, never waits and never fails; a goroutine that lives while there is
// something to write hands the lines on. A reader that stalls, or is gone, costs
// lines: those that do not fit into the buffer, and those that could not be
// written. They are counted, and the first line written afterwards is followed by
// one with their number. Errors and worse have some room of their own.
//
// Its methods may be called from any goroutine.
type Writer struct {
	w io.Writer

	mu       sync.Mutex
	pending  []byte // whole lines
	spare    []byte // the buffer that pending was, to be used again
	writing  int    // bytes that the goroutine has taken and not written
	active   bool   // the goroutine is there
	closed   bool   // what cannot be written is not kept
	began    time.Time
	put      uint64        // bytes taken
	done     uint64        // of them, written or lost
	progress chan struct{} // closed when done grows; nil: nobody waits
	hurry    chan struct{} // holds a token when the goroutine is not to wait

	lost    int64 // lines
	untold  int64 // of them, those that no line has told of
	last    time.Time
	failing error // of the last call; nil: it succeeded
}

// NewWriter returns a Writer in front of w. Close it.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w, hurry: make(chan struct{}, 1)} }

// Write takes one line, or several whole ones, and returns at once.
func (w *Writer) Write(line []byte) (int, error) {
	w.write(line, false)
	return len(line), nil
}

// write is Write for a line that may be important. It returns the number of
// lines lost before this one that the log has not been told of, when the log can
// be told.
func (w *Writer) write(line []byte, important bool) (lost int64) {
	limit := maxBuffered
	if important {
		limit += reserved
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending)+w.writing+len(line) > limit {
		w.lose(line)
		return 0
	}
	w.pending = append(w.pending, line...)
	w.put += uint64(len(line))
	if !w.active {
		w.active = true
		go w.drain()
	} else if important {
		w.rush()
	}
	if w.failing == nil {
		lost, w.untold = w.untold, 0
	}
	return lost
}

// rush has the goroutine wait for nothing. The caller holds w.mu.
func (w *Writer) rush() {
	select {
	case w.hurry <- struct{}{}:
	default:
	}
}

// lose counts the lines in b. The caller holds w.mu.
func (w *Writer) lose(b []byte) {
	n := int64(bytes.Count(b, []byte{'\n'}))
	w.lost += n
	w.untold += n
	w.last = time.Now()
}

// drain writes what is pending, and ends when nothing has come for a moment.
func (w *Writer) drain() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		batch, ok := w.take()
		if !ok {
			return
		}
		wait := gather
		for len(batch) > 0 {
			n, err := w.hand(batch[:chunk(batch)])
			batch = batch[n:]
			if err != nil {
				batch = w.failed(batch, err)
				wait = again
				break
			}
		}
		if w.give(batch) {
			continue // to the end
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-w.hurry:
		}
	}
}

// take returns all that is pending; not ok: nothing is, and the goroutine ends.
func (w *Writer) take() (batch []byte, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) == 0 {
		w.active = false
		w.account(0)
		return nil, false
	}
	batch, w.pending = w.pending, w.spare[:0]
	w.spare, w.writing = batch, len(batch)
	return batch, true
}

// give puts back what could not be written and may be written later, and reports
// whether nobody writes any more.
func (w *Writer) give(rest []byte) (closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing = 0
	if len(rest) > 0 {
		w.pending = append(rest[:len(rest):len(rest)], w.pending...)
		w.spare = nil
	}
	if cap(w.spare) > keptBuffer {
		w.spare = nil
	}
	return w.closed
}

// hand writes one chunk and accounts for it.
func (w *Writer) hand(b []byte) (int, error) {
	w.mu.Lock()
	w.began = time.Now()
	w.mu.Unlock()
	n, err := w.w.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	w.mu.Lock()
	w.began = time.Time{}
	w.failing = err
	w.account(n)
	w.mu.Unlock()
	return n, err
}

// account notes that n bytes more are done with. The caller holds w.mu.
func (w *Writer) account(n int) {
	w.writing -= n
	w.done += uint64(n)
	if w.progress != nil {
		close(w.progress)
		w.progress = nil
	}
}

// failed returns what is to be tried again after err: nothing if the reader is
// gone, or if this is the end.
func (w *Writer) failed(rest []byte, err error) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
		return rest
	}
	w.lose(rest)
	w.account(len(rest))
	return nil
}

// chunk is how many bytes of b, whole lines, go into one call.
func chunk(b []byte) int {
	if len(b) <= maxChunk {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:maxChunk], '\n'); n >= 0 {
		return n + 1
	}
	if n := bytes.IndexByte(b[maxChunk:], '\n'); n >= 0 {
		return maxChunk + n + 1
	}
	return len(b)
}

// flush waits until all that was taken before is written or lost, for at most
// limit, and reports whether it is.
func (w *Writer) flush(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	w.mu.Lock()
	target := w.put
	for w.done < target || w.closed && w.active {
		w.rush()
		if w.progress == nil {
			w.progress = make(chan struct{})
		}
		progress := w.progress
		w.mu.Unlock()
		select {
		case <-progress:
		case <-timer.C:
			return false
		}
		w.mu.Lock()
	}
	w.mu.Unlock()
	return true
}

var errNotRead = errors.New("the log is not read")

// Sync waits until the lines written before have reached the reader, or are
// lost, for at most a second.
func (w *Writer) Sync() error {
	if !w.flush(patience) {
		return errNotRead
	}
	return nil
}

// Close is Sync, but what cannot be written is lost at once, and the goroutine
// ends. Only a reader that stalls can hold it longer, in its last call.
func (w *Writer) Close() error {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	return w.Sync()
}

// Lost returns how many lines have been lost since the start.
func (w *Writer) Lost() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.lost
}

// Trouble says what is wrong, or has been: "" if no line was lost and the reader
// reads.
func (w *Writer) Trouble() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	now, what := time.Now(), ""
	switch {
	case w.failing != nil:
		what = "the log cannot be written: " + w.failing.Error()
	case !w.began.IsZero() && now.Sub(w.began) >= stalledAfter:
		what = fmt.Sprintf("the log has not been read for %s", now.Sub(w.began).Round(time.Second))
	}
	if w.lost == 0 {
		return what
	}
	if what != "" {
		what += "; "
	}
	return what + fmt.Sprintf("%d log lines lost, the last %s ago", w.lost, now.Sub(w.last).Round(time.Second))
}
