package schedule

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"tarishi/internal/mail"
)

const million = 1_000_000

// BenchmarkMillion measures a million deferred units over so many destinations:
// the bytes that one takes (its id's octets belong to the queue and are not
// counted), and the cost of one round of Due and Defer.
func BenchmarkMillion(b *testing.B) {
	for _, destinations := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(destinations), func(b *testing.B) {
			domains := make([]string, destinations)
			for i := range domains {
				domains[i] = fmt.Sprintf("host%d.example.org", i)
			}
			id := mail.ID("F0E1D2C3-0000-4000-8000-000000000000.1")
			rcpt := []int{0}
			before := heapBytes()
			s := New(Options{Concurrency: 100, PerDestination: 10})
			for i := range million {
				// spread over ten thousand seconds, in no order
				after := time.Duration(1+i*7919%million) * 10 * time.Millisecond
				s.Add(start, Delivery{ID: id, Domain: domains[i%destinations], Recipients: rcpt, Attempts: 1, Next: start.Add(after), Received: start})
			}
			size := float64(heapBytes()-before) / million
			now := start
			b.ResetTimer()
			for range b.N {
				next, _ := s.Next(now)
				if next.After(now) {
					now = next
				}
				for _, u := range s.Due(now, 1) {
					s.Defer(u, now, rcpt, 1, now.Add(10_000*time.Second))
				}
			}
			b.StopTimer()
			b.ReportMetric(size, "bytes/unit")
			runtime.KeepAlive(s)
		})
	}
}

// BenchmarkFresh is the life of a message that is delivered at once.
func BenchmarkFresh(b *testing.B) {
	s := New(Options{Concurrency: 100})
	for i := range million {
		s.Add(start, Delivery{ID: "waiting", Domain: fmt.Sprint("d", i%1000), Recipients: []int{0}, Attempts: 1, Next: start.Add(time.Hour)})
	}
	rcpt := []int{0}
	b.ReportAllocs()
	for b.Loop() {
		s.Add(start, Delivery{ID: "F0E1D2C3-0000-4000-8000-000000000000.1", Domain: "d7", Recipients: rcpt, Received: start})
		for _, u := range s.Due(start, 1) {
			s.Done(u)
		}
	}
}

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
