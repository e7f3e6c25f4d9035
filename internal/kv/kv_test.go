package kv

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// clock is a time that stands still until it is set.
type clock struct{ now time.Time }

func (c *clock) pass(d time.Duration) { c.now = c.now.Add(d) }

// open returns a store on a file of the test, its clock and its log.
func open(t *testing.T, path string, maxBytes int64) (*Store, *clock, *observer.ObservedLogs) {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	at := &clock{time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	s := New(Options{Path: path, MaxBytes: maxBytes, Log: zap.New(core), Now: func() time.Time { return at.now }})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s, at, logs
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// value returns what stands under a key, "-" if nothing does.
func value(t *testing.T, b *Bucket, key string) string {
	t.Helper()
	v, ok, err := b.Get(key)
	must(t, err)
	if !ok {
		return "-"
	}
	return string(v)
}

func TestOpensNothingUnasked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.db")
	s, _, _ := open(t, path, 0)
	s.Bucket("a")
	s.sweepExpired()
	must(t, s.Flush())
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
	must(t, s.Bucket("a").Put("k", []byte("v"), 0))
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestReadsItsWrites compares a store with a map, through flushes, deletions,
// expiry and openings anew.
func TestReadsItsWrites(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.db")
	s, at, logs := open(t, path, 0)
	type kept struct {
		value   string
		expires time.Time
	}
	model := map[string]kept{}
	random := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		bucket, key := fmt.Sprint("b", random.IntN(2)), fmt.Sprint("k", random.IntN(30))
		whole := bucket + "/" + key
		if was, ok := model[whole]; ok && !was.expires.IsZero() && !at.now.Before(was.expires) {
			delete(model, whole)
		}
		switch n := random.IntN(100); {
		case n < 40:
			next := kept{value: strconv.Itoa(random.Int())}
			lifetime := time.Duration(random.IntN(3)) * time.Minute
			if lifetime > 0 {
				next.expires = at.now.Add(lifetime)
			}
			must(t, s.Bucket(bucket).Put(key, []byte(next.value), lifetime))
			model[whole] = next
		case n < 60:
			must(t, s.Bucket(bucket).Delete(key))
			delete(model, whole)
		case n < 70:
			at.pass(20 * time.Second)
		case n < 80:
			must(t, s.Flush())
		case n < 85:
			s.sweepExpired()
		case n < 86:
			must(t, s.Close())
			next, _, _ := open(t, path, 0)
			next.options.Now = func() time.Time { return at.now }
			s = next
		default:
			want := "-"
			if found, ok := model[whole]; ok {
				want = found.value
			}
			if got := value(t, s.Bucket(bucket), key); got != want {
				t.Fatalf("%s is %q, want %q", whole, got, want)
			}
		}
	}
	if logs.Len() > 0 {
		t.Errorf("logged: %v", logs.All())
	}
}

func TestUpdate(t *testing.T) {
	s, at, _ := open(t, filepath.Join(t.TempDir(), "plugins.db"), 0)
	b := s.Bucket("a")
	count := func(old []byte, ok bool) ([]byte, time.Duration, bool) {
		n, _ := strconv.Atoi(string(old))
		return strconv.AppendInt(nil, int64(n+1), 10), time.Minute, ok || n == 0
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				if err := b.Update("n", count); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Go(func() {
		for range 20 {
			if err := s.Flush(); err != nil {
				t.Error(err)
			}
			s.sweepExpired()
		}
	})
	all.Wait()
	if got := value(t, b, "n"); got != "800" {
		t.Errorf("counted %s", got)
	}
	at.pass(time.Minute)
	must(t, b.Update("n", func(old []byte, ok bool) ([]byte, time.Duration, bool) {
		if ok || old != nil {
			t.Errorf("an expired value %q is shown", old)
		}
		return nil, 0, false
	}))

	// What a caller does with its slices later does not reach the store.
	mine := []byte("one")
	must(t, b.Put("x", mine, 0))
	mine[0] = '!'
	got, _, _ := b.Get("x")
	got[0] = '?'
	if again := value(t, b, "x"); again != "one" {
		t.Errorf("%q", again)
	}
}

func TestRange(t *testing.T) {
	s, at, _ := open(t, filepath.Join(t.TempDir(), "plugins.db"), 0)
	b := s.Bucket("a")
	must(t, s.Bucket("other").Put("p1", nil, 0))
	for _, key := range []string{"p1", "p2", "p3", "q"} {
		must(t, b.Put(key, []byte("old"), 0))
	}
	must(t, b.Put("p4", []byte("short"), time.Minute))
	must(t, s.Flush())
	must(t, b.Put("p1", []byte("new"), 0))
	must(t, b.Delete("p2"))
	must(t, b.Put("p5", []byte("new"), 0))
	at.pass(time.Minute)
	got := map[string]string{}
	must(t, b.Range("p", func(key string, value []byte) bool {
		got[key] = string(value)
		must(t, b.Put("q", value, 0)) // the store may be used
		return true
	}))
	if want := map[string]string{"p1": "new", "p3": "old", "p5": "new"}; !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	seen := 0
	must(t, b.Range("", func(string, []byte) bool { seen++; return false }))
	if seen != 1 {
		t.Errorf("visited %d", seen)
	}
}

// TestExpiry: what has expired goes away by itself, and the file has room for the
// next.
func TestExpiry(t *testing.T) {
	s, at, _ := open(t, filepath.Join(t.TempDir(), "plugins.db"), 100*(entryCost+4+10))
	b := s.Bucket("a")
	for round := range 5 {
		for i := range 100 {
			must(t, b.Put(fmt.Sprintf("%d%03d", round, i), make([]byte, 10), time.Hour))
		}
		if err := b.Put("more", make([]byte, 10), time.Hour); !errors.Is(err, ErrFull) {
			t.Fatalf("round %d: %v", round, err)
		}
		must(t, b.Put(fmt.Sprintf("%d000", round), make([]byte, 10), time.Hour)) // no larger
		must(t, s.Flush())
		at.pass(time.Hour)
		s.sweepExpired()
		must(t, s.Flush())
		if s.stored != 0 {
			t.Fatalf("round %d: %d bytes are left", round, s.stored)
		}
	}
}

func TestSweepGoesRound(t *testing.T) {
	f, _, err := openFile(filepath.Join(t.TempDir(), "plugins.db"))
	must(t, err)
	defer f.closeFile()
	long := time.Unix(1, 0)
	batch := map[string]map[string]entry{"a": {}, "b": {}, "c": {}}
	for name, keys := range batch {
		for i := range 10 {
			keys[fmt.Sprint(name, i)] = entry{expires: long}
		}
	}
	must(t, f.writeBatch(batch))
	seen := map[string]int{}
	var at position
	for range 5 {
		var found []outdated
		found, at, err = f.findExpired(at, 7, time.Unix(2, 0))
		must(t, err)
		for _, one := range found {
			seen[one.key]++
		}
	}
	if len(seen) != 30 || at != (position{}) {
		t.Errorf("%d keys, then at %v", len(seen), at)
	}
}

func TestBounds(t *testing.T) {
	s, _, _ := open(t, filepath.Join(t.TempDir(), "plugins.db"), 0)
	b := s.Bucket("a")
	for _, err := range []error{
		b.Put("", nil, 0), b.Put(strings.Repeat("k", MaxKey+1), nil, 0), b.Put("k", make([]byte, MaxValue+1), 0),
	} {
		if !errors.Is(err, ErrLarge) {
			t.Errorf("%v", err)
		}
	}
	big := make([]byte, MaxValue)
	var err error
	stored := 0
	for ; err == nil && stored < 100; stored++ {
		err = b.Put(fmt.Sprint(stored), big, 0)
	}
	if !errors.Is(err, ErrFull) || stored > maxPending/MaxValue+1 {
		t.Errorf("%d values wait for the disk: %v", stored, err)
	}
	select {
	case <-s.wake:
	default:
		t.Error("nobody is woken")
	}
	must(t, s.Flush())
	must(t, b.Put("again", big, 0))
	must(t, b.Put("for ever", nil, 1<<62))
	must(t, s.Close())
	if err := b.Put("k", nil, 0); !errors.Is(err, ErrClosed) {
		t.Errorf("%v", err)
	}
}

// TestDamage: whatever is done to the file, the daemon starts, says so loudly, and
// has the file for those who want to look at it.
func TestDamage(t *testing.T) {
	for name, harm := range map[string]func(b []byte) []byte{
		"no database": func([]byte) []byte { return []byte("something else\n") },
		"cut short":   func(b []byte) []byte { return b[:len(b)/2] },
		"first pages": func(b []byte) []byte { copy(b, make([]byte, 8192)); return b },
		"last pages": func(b []byte) []byte {
			for i := 3 * 4096; i < len(b); i++ {
				b[i] ^= 0x55
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "plugins.db")
			s, _, _ := open(t, path, 0)
			for i := range 1000 {
				must(t, s.Bucket("a").Put(fmt.Sprint("key", i), bytes.Repeat([]byte("v"), 200), 0))
			}
			must(t, s.Close())
			whole, err := os.ReadFile(path)
			must(t, err)
			must(t, os.WriteFile(path, harm(whole), 0o600))

			s, _, logs := open(t, path, 0)
			b := s.Bucket("a")
			if got := value(t, b, "key1"); got != "-" {
				t.Errorf("found %q", got)
			}
			must(t, b.Put("key1", []byte("new"), 0))
			must(t, s.Flush())
			if got := value(t, b, "key1"); got != "new" {
				t.Errorf("found %q", got)
			}
			aside, _ := filepath.Glob(path + ".damaged-*")
			if len(aside) != 1 || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
				t.Errorf("moved to %q, logged %v", aside, logs.All())
			}
		})
	}
}

// TestDamageWhileOpen: a file that goes bad under the daemon is left, and what was
// not written yet is in the next one.
func TestDamageWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.db")
	s, _, logs := open(t, path, 0)
	b := s.Bucket("a")
	for i := range 1000 {
		must(t, b.Put(fmt.Sprint("key", i), bytes.Repeat([]byte("v"), 200), 0))
	}
	must(t, s.Flush())
	must(t, b.Put("waits", []byte("kept"), 0))
	must(t, os.Truncate(path, 2*4096))
	for i := range 1000 { // some page is missing
		if _, _, err := b.Get(fmt.Sprint("key", i)); errors.Is(err, errDamaged) {
			break
		}
	}
	if got := value(t, b, "waits"); got != "kept" {
		t.Errorf("%q", got)
	}
	must(t, s.Close())
	s, _, _ = open(t, path, 0)
	if got := value(t, s.Bucket("a"), "waits"); got != "kept" {
		t.Errorf("%q", got)
	}
	if aside, _ := filepath.Glob(path + ".damaged-*"); len(aside) != 1 || logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Errorf("moved to %q, logged %v", aside, logs.All())
	}
}

// TestCannotOpen: a folder that cannot be written costs an error, and is tried again
// later.
func TestCannotOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing")
	s, at, logs := open(t, filepath.Join(dir, "plugins.db"), 0)
	b := s.Bucket("a")
	for range 3 {
		if err := b.Put("k", nil, 0); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	if logs.FilterLevelExact(zapcore.ErrorLevel).Len() != 1 {
		t.Errorf("logged %v", logs.All())
	}
	must(t, os.Mkdir(dir, 0o700))
	at.pass(reopenAfter)
	must(t, b.Put("k", nil, 0))
}

// TestRunFlushes: ten seconds after a write it is on the disk, whatever becomes of
// the process.
func TestRunFlushes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.db")
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Path: path, Log: zap.NewNop()})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx) }()
		time.Sleep(time.Second)
		must(t, s.Bucket("a").Put("k", []byte("v"), 0))
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s.mu.Lock()
		waiting := len(s.pending) + len(s.writing)
		s.mu.Unlock()
		if waiting > 0 {
			t.Errorf("%d buckets wait for the disk", waiting)
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		must(t, s.Close())
	})
	f, _, err := openFile(path)
	must(t, err)
	defer f.closeFile()
	if found, err := f.lookup("a", "k"); err != nil || string(found.value) != "v" {
		t.Errorf("%q, %v", found.value, err)
	}
}

// fillEnv has a copy of the test binary fill the store that it names until it is
// killed.
const fillEnv = "TARISHI_KV_FILL"

// TestMain lets the binary be the process that TestKill kills.
func TestMain(m *testing.M) {
	if path := os.Getenv(fillEnv); path != "" {
		fill(path)
	}
	os.Exit(m.Run())
}

// fill writes numbers and says which are flushed.
func fill(path string) {
	s := New(Options{Path: path, Log: zap.NewNop()})
	for i := 0; ; i++ {
		for _, bucket := range []string{"a", "b"} {
			if err := s.Bucket(bucket).Put(fmt.Sprint(i%500), []byte(fmt.Sprint(i)), 0); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
		}
		if i%50 == 49 {
			if err := s.Flush(); err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			fmt.Println(i)
		}
	}
}

// TestKill: a process that is killed at any time leaves a whole file, with all that
// was flushed.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plugins.db")
	for round := range 5 {
		command := exec.Command(os.Args[0])
		command.Env = append(os.Environ(), fillEnv+"="+path)
		out, err := command.StdoutPipe()
		must(t, err)
		must(t, command.Start())
		flushed, lines := -1, bufio.NewScanner(out)
		for range 3 + 2*round {
			if !lines.Scan() {
				break
			}
			if flushed, err = strconv.Atoi(lines.Text()); err != nil {
				t.Error(lines.Text())
			}
		}
		must(t, command.Process.Kill())
		for lines.Scan() { // what it said before it noticed
			if n, err := strconv.Atoi(lines.Text()); err == nil {
				flushed = n
			}
		}
		_ = command.Wait() // killed
		s, _, logs := open(t, path, 0)
		for _, bucket := range []string{"a", "b"} {
			newest := []int{}
			must(t, s.Bucket(bucket).Range("", func(_ string, v []byte) bool {
				n, _ := strconv.Atoi(string(v))
				newest = append(newest, n)
				return true
			}))
			if last := slices.Max(append(newest, -1)); last < flushed {
				t.Errorf("round %d: bucket %s ends at %d, %d was flushed", round, bucket, last, flushed)
			}
		}
		if logs.Len() > 0 {
			t.Errorf("logged: %v", logs.All())
		}
		must(t, s.Close())
	}
}
