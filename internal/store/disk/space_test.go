package disk

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/spill"
	"tarishi/internal/vfs"
)

// sizes returns how many bytes the files of a queue take: the journal's, contents
// and states.
func sizes(dir string) (journal, contents, states int64) {
	_ = filepath.WalkDir(dir, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil // it is gone
		}
		switch filepath.Ext(name) {
		case ".log":
			journal += info.Size()
		case ".json":
			states += info.Size()
		default:
			if strings.Contains(name, "/msg/") {
				contents += info.Size()
			}
		}
		return nil
	})
	return journal, contents, states
}

// TestSpace accepts mail of which some is delivered at once, some later and some
// never, large and small, and compares what the files take with what is live:
// while it comes in, and when it has come to rest.
func TestSpace(t *testing.T) {
	t.Parallel()
	const segment = 256 << 10
	q := open(t, Options{Dir: t.TempDir(), SegmentSize: segment, LargeBody: 20_000, NoSync: true})
	ctx, cancel := context.WithCancel(t.Context())
	var run, writers sync.WaitGroup
	run.Go(func() { must(t, q.Run(ctx)) })
	var n atomic.Int64
	for range 8 {
		writers.Go(func() {
			var later []mail.ID
			for i := n.Add(1); i <= 6000; i = n.Add(1) {
				env := envelope(newID(), 1)
				put(t, q, env, text([]int{300, 2000, 4000, 30_000}[i%4]))
				switch {
				case i%10 < 6:
					must(t, q.Settle(env.ID, []int{0}))
				case i%10 < 8:
					must(t, q.Defer(env.ID, []int{0}, 1, time.Now(), "451 later"))
				default:
					later = append(later, env.ID)
				}
				if len(later) > 30 {
					must(t, q.Settle(later[0], []int{0}))
					later = later[1:]
				}
				if i%50 == 0 {
					// A segment more may have begun since Put looked.
					excess, segments := q.spiller.Excess()
					if limits := spill.DefaultLimits; excess > limits.Most+2 || segments > limits.Limit+2 {
						t.Errorf("the journal has %d segments, %.1f beyond what is live", segments, excess)
					}
				}
			}
		})
	}
	writers.Wait()
	cancel()
	run.Wait()
	calm(t, q)
	for range 2 {
		journal, contents, states := sizes(q.options.Dir)
		live := q.Stat()
		inJournal := q.catalog.Shares()
		t.Logf("%d messages of %d bytes; journal %d, of that %d live, contents %d, states %d", live.Messages, live.Bytes, journal, inJournal, contents, states)
		if journal > inJournal+2*segment {
			t.Errorf("the journal takes %d bytes for %d that are live", journal, inJournal)
		}
		if contents > live.Bytes {
			t.Errorf("contents take %d bytes, the messages have %d", contents, live.Bytes)
		}
		if limit := live.Bytes + 2*segment + int64(live.Messages)*1000; journal+contents+states > limit {
			t.Errorf("%d bytes are taken, want at most %d", journal+contents+states, limit)
		}
		// Everything is done: what is left is two segments at most.
		for id := range pendings(q) {
			must(t, q.Settle(id, []int{0}))
		}
		calm(t, q)
	}
	if journal, contents, states := sizes(q.options.Dir); journal > 2*segment || contents+states > 0 {
		t.Errorf("an empty queue takes %d, %d and %d bytes", journal, contents, states)
	}
}

// slow is a file system on which it takes a while to make a file of a message.
type slow struct {
	vfs.FS
	broken atomic.Bool
}

func (f *slow) Create(name string) (vfs.File, error) {
	if strings.Contains(name, "/msg/") {
		if f.broken.Load() {
			return nil, os.ErrPermission
		}
		time.Sleep(200 * time.Microsecond)
	}
	return f.FS.Create(name)
}

// TestBackPressure accepts mail that nobody delivers faster than it can be moved
// out of the journal, which stays short all the same, whether somebody does that
// work in the background or not.
func TestBackPressure(t *testing.T) {
	const messages = 1500 // of which the journal's limit is a quarter
	for name, background := range map[string]bool{"alone": false, "beside Run": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := &slow{FS: vfs.OS{}}
			q := open(t, Options{Dir: t.TempDir(), SegmentSize: 256 << 10, NoSync: true, FS: disk})
			q.spiller.Tune(func(o *spill.Options) { o.Limits = spill.Limits{Rest: 2, Busy: 3, Most: 4, Long: 4, Limit: 6} })
			ctx, cancel := context.WithCancel(t.Context())
			var run, writers sync.WaitGroup
			if background {
				run.Go(func() { must(t, q.Run(ctx)) })
			}
			var n, longest atomic.Int64
			for range 8 {
				writers.Go(func() {
					for n.Add(1) <= messages {
						put(t, q, envelope(newID(), 1), text(4000))
						segments := int64(len(q.journal.Segments()))
						for old := longest.Load(); segments > old && !longest.CompareAndSwap(old, segments); old = longest.Load() {
						}
					}
				})
			}
			writers.Wait()
			if n := longest.Load(); n > 6+2 {
				t.Errorf("the journal had %d segments", n)
			}
			if s := q.Stat(); s.Messages != messages {
				t.Errorf("%+v", s)
			}
			// If nothing can be moved mail is accepted all the same: what bounds it
			// then is the space that must stay free.
			disk.broken.Store(true)
			for range 200 {
				put(t, q, envelope(newID(), 1), text(4000))
			}
			cancel()
			run.Wait()
		})
	}
}
