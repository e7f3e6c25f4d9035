package disk

import (
	"context"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

// BenchmarkMillion is the queue of a server whose next hops do not answer:
// deferred messages of 1 KiB for 10,000 domains, just deferred and still in the
// journal, and later in files. It measures what they cost in memory, how long a
// start takes until the first of them, or new mail, could be delivered, and how
// fast new mail is accepted, read and settled beside them, against an empty
// queue. TARISHI_BENCH_MESSAGES sets their number (a million by default),
// TARISHI_BENCH_DIR a folder that stays: its files are made if they are not there
// yet.
func BenchmarkMillion(b *testing.B) {
	n := 1_000_000
	if s := os.Getenv("TARISHI_BENCH_MESSAGES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		must(b, err)
	}
	b.Run("journal", func(b *testing.B) {
		for b.Loop() {
			dir := b.TempDir()
			fresh(b, dir, n)
			measure(b, dir, n)
		}
	})
	b.Run("files", func(b *testing.B) {
		dir := os.Getenv("TARISHI_BENCH_DIR")
		if dir == "" {
			dir = b.TempDir()
		}
		for b.Loop() {
			if _, err := os.Stat(dir + "/msg"); err != nil {
				began := time.Now()
				q := open(b, Options{Dir: dir, NoSync: true})
				fill(b, q, n, true)
				retireAll(b, q)
				must(b, q.Close())
				b.Logf("filled in %v", time.Since(began).Round(time.Second))
			}
			measure(b, dir, n)
		}
	})
}

// fresh accepts and defers messages, and measures what that took in memory.
func fresh(b *testing.B, dir string, n int) {
	rss := residentBytes(b)
	q := open(b, Options{Dir: dir, NoSync: true})
	q.spiller.Tune(unlimited) // so that all are in the journal at once
	fill(b, q, n, false)
	b.ReportMetric(float64(residentBytes(b)-rss)/float64(n), "B/msg-RSS-fresh")
	inJournal := inJournal(q)
	must(b, q.Close())
	b.Logf("%d of %d messages are in the journal", inJournal, n)
}

// fill puts and defers n messages; work says that the queue works in the
// background meanwhile.
func fill(b *testing.B, q *Store, n int, work bool) {
	body := mail.Memory{text(1024)}
	next := time.Now().Add(24 * time.Hour)
	var made atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := made.Add(1); i <= int64(n); i = made.Add(1) {
				env := &mail.Envelope{
					ID: newID(), From: mail.Address{Local: "sender", Domain: "example.org"}, Received: time.Now(),
					Recipients: []mail.Recipient{{Address: mail.Address{Local: fmt.Sprintf("user%d", i), Domain: fmt.Sprintf("d%d.example.com", i%10_000)}}},
				}
				must(b, q.Put(env, body))
				must(b, q.Defer(env.ID, []int{0}, 1, next, "451 4.4.1 connection to mx.example.com timed out"))
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for running := true; running; {
		if work {
			q.spiller.WorkOnce(b.Context())
		}
		select {
		case <-done:
			running = false
		case <-time.After(time.Second):
		}
	}
}

// measure opens the queue in dir.
func measure(b *testing.B, dir string, n int) {
	heap, rss := heapBytes(), residentBytes(b)
	began := time.Now()
	q, err := Open(Options{Dir: dir})
	must(b, err)
	opened := time.Since(began)
	heapOpen := heapBytes()
	began = time.Now()
	var first time.Duration
	seen := 0
	left := q.Adopt(func(mail.Pending) bool {
		if seen++; seen == 1 {
			first = time.Since(began)
		}
		return true
	})
	walked := time.Since(began)
	if seen != n || left != 0 {
		b.Errorf("%d messages of %d, %d left", seen, n, left)
	}
	resident := residentBytes(b)
	heapWalked := heapBytes()
	b.ReportMetric(opened.Seconds(), "s/open")
	b.ReportMetric((opened + first).Seconds(), "s/first")
	b.ReportMetric(walked.Seconds(), "s/load")
	b.ReportMetric(float64(heapOpen-heap)/float64(n), "B/msg-opened")
	b.ReportMetric(float64(heapWalked-heap)/float64(n), "B/msg-loaded")
	b.ReportMetric(float64(resident-rss)/float64(n), "B/msg-RSS")

	// The machine drifts: one after the other, three times, and the medians.
	empty, err := Open(Options{Dir: b.TempDir(), FS: vfs.OS{}})
	must(b, err)
	var full, alone []float64
	for range 3 {
		full = append(full, turnover(b, q))
		alone = append(alone, turnover(b, empty))
	}
	slices.Sort(full)
	slices.Sort(alone)
	b.ReportMetric(full[1], "msg/s")
	b.ReportMetric(alone[1], "msg/s-empty")
	b.ReportMetric(full[1]/alone[1], "ratio")
	must(b, q.Close())
	must(b, empty.Close())
}

// turnover is how many messages a second 20 goroutines accept, read as one who
// delivers them, and settle, while the queue does its work in the background.
func turnover(b *testing.B, q *Store) float64 {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	var background, wg sync.WaitGroup
	background.Go(func() { must(b, q.Run(ctx)) })
	content := mail.Memory{text(4096)}
	var count atomic.Int64
	began := time.Now()
	for range 20 {
		wg.Go(func() {
			for time.Since(began) < 3*time.Second {
				env := envelope(newID(), 1)
				must(b, q.Put(env, content))
				_, c, err := q.Load(env.ID)
				must(b, err)
				r, err := c.Open()
				must(b, err)
				_, err = io.Copy(io.Discard, r)
				must(b, err)
				must(b, r.Close())
				must(b, q.Settle(env.ID, []int{0}))
				count.Add(1)
			}
		})
	}
	wg.Wait()
	rate := float64(count.Load()) / time.Since(began).Seconds()
	cancel()
	background.Wait()
	return rate
}

// acceptRate puts and settles messages in 20 goroutines for some seconds.
func acceptRate(b *testing.B, q *Store) float64 {
	content := mail.Memory{text(4096)}
	var count atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range 20 {
		wg.Go(func() {
			for time.Since(began) < 5*time.Second {
				env := envelope(newID(), 1)
				must(b, q.Put(env, content))
				must(b, q.Settle(env.ID, []int{0}))
				count.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(count.Load()) / time.Since(began).Seconds()
}

func heapBytes() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// residentBytes is VmRSS of this process.
func residentBytes(b *testing.B) int64 {
	debug.FreeOSMemory() // what earlier parts left
	text, err := os.ReadFile("/proc/self/status")
	must(b, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	must(b, err)
	return kb << 10
}

// BenchmarkPutBesideSpill accepts mail while many deferred messages are moved to
// files.
func BenchmarkPutBesideSpill(b *testing.B) {
	for b.Loop() {
		q := open(b, Options{Dir: b.TempDir()})
		b.ReportMetric(acceptRate(b, q), "put/s-alone")
		waiting := 0
		body := mail.Memory{text(1024)}
		for range 8 {
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					for range 100 {
						env := envelope(newID(), 1)
						must(b, q.Put(env, body))
						must(b, q.Defer(env.ID, []int{0}, 1, time.Now().Add(time.Hour), "451 later"))
					}
				})
			}
			wg.Wait()
			waiting += 10_000
			must(b, q.journal.Roll())
		}
		left := func() int { return inJournal(q) }
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					q.spiller.WorkOnce(b.Context())
				}
			}
		})
		began, before := time.Now(), left()
		rate := acceptRate(b, q)
		took := time.Since(began)
		b.ReportMetric(float64(before-left())/took.Seconds(), "spilled/s")
		b.ReportMetric(rate, "put/s-beside")
		close(stop)
		wg.Wait()
	}
}

// inJournal counts the messages that are not in files alone.
func inJournal(q *Store) (n int) {
	for _, s := range q.journal.Segments() {
		n += q.catalog.SegmentShare(s.Number).Messages
	}
	return n
}
