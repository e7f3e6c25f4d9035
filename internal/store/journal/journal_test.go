package journal

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

const kindA = FirstKind

// log is what a replay found.
type log struct {
	payloads []string
	damages  []Damage
	unread   []string
}

func open(t testing.TB, o Options) (*Journal, *log, Recovery) {
	t.Helper()
	l := &log{}
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	j, rec, err := Open(o, Visitor{
		Record: func(r Record) { l.payloads = append(l.payloads, string(r.Payload)) },
		Damage: func(d Damage) {
			if d.Data != nil {
				if b, err := io.ReadAll(d.Data); err != nil || int64(len(b)) != d.Length {
					t.Errorf("damage of %d bytes yields %d: %v", d.Length, len(b), err)
				}
			}
			l.damages = append(l.damages, d)
		},
		Unread: func(name string, err error) { l.unread = append(l.unread, fmt.Sprintf("%s: %v", name, err)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, l, rec
}

func add(t testing.TB, j *Journal, payload string) Location {
	t.Helper()
	half := len(payload) / 2
	loc, err := j.Append(kindA, []byte(payload[:half]), []byte(payload[half:]))
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func readBack(t testing.TB, j *Journal, loc Location) string {
	t.Helper()
	r, err := j.Open(loc)
	must(t, err)
	defer r.Close()
	b, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	must(t, err)
	return string(b)
}

func TestAppendAndReplay(t *testing.T) {
	for _, size := range []int64{0, 200_000, 1} { // default, several segments, one a record
		dir := t.TempDir()
		j, _, _ := open(t, Options{Dir: dir, SegmentSize: size})
		var want []string
		for i, n := range []int{0, 1, 7, 8, 9, 100, direct - 1, direct, direct + 1, bufSize, 3*bufSize + 5, 12} {
			p := strings.Repeat(string(rune('a'+i)), n)
			want = append(want, p)
			if i%3 == 1 {
				must(t, j.Enqueue(kindA, []byte(p)))
				continue
			}
			if got := readBack(t, j, add(t, j, p)); got != p {
				t.Fatalf("record %d reads back differently", i)
			}
		}
		if i := j.Segments(); size == 1 && len(i) != len(want) {
			t.Errorf("%d segments for %d records", len(i), len(want))
		}
		for range 3 {
			must(t, j.Close())
			var l *log
			var rec Recovery
			j, l, rec = open(t, Options{Dir: dir, SegmentSize: size})
			if fmt.Sprint(l.payloads) != fmt.Sprint(want) || len(l.damages) > 0 || rec.Cut != 0 {
				t.Fatalf("%d records of %d, damage %v, cut %d", len(l.payloads), len(want), l.damages, rec.Cut)
			}
		}
		for _, s := range j.Segments() {
			must(t, j.Remove(s.Number))
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
			t.Error("files stay:", left)
		}
	}
}

func TestReaderOutlivesItsSegment(t *testing.T) {
	j, _, _ := open(t, Options{Dir: t.TempDir()})
	loc := add(t, j, "hello")
	r, err := j.Open(loc)
	must(t, err)
	if err := j.Remove(loc.Segment); err == nil {
		t.Fatal("a segment that grows was removed")
	}
	must(t, j.Roll())
	must(t, j.Remove(loc.Segment))
	if _, err := j.Open(loc); !errors.Is(err, ErrGone) {
		t.Fatal(err)
	}
	must(t, j.Close())
	b := make([]byte, 9)
	if n, err := r.ReadAt(b, 1); string(b[:n]) != "ello" || err != io.EOF {
		t.Fatal(n, err)
	}
	must(t, r.Close())
	if _, err := j.Append(kindA, []byte("x")); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestConcurrentAppends(t *testing.T) {
	dir := t.TempDir()
	count := &counter{FS: vfs.OS{}}
	j, _, _ := open(t, Options{Dir: dir, SegmentSize: 64 << 10, FS: count})
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 20 {
				p := fmt.Sprintf("%d.%d.%s", w, i, strings.Repeat("x", rand.IntN(2000)))
				if i%4 == 0 {
					must(t, j.Enqueue(kindA, []byte(p)))
				} else if got := readBack(t, j, add(t, j, p)); got != p {
					t.Error("record reads back differently")
				}
			}
		})
	}
	wg.Wait()
	must(t, j.Close())
	_, l, _ := open(t, Options{Dir: dir})
	if len(l.payloads) != 400 {
		t.Errorf("%d records", len(l.payloads))
	}
	next := map[string]int{} // each writer's records keep their order
	for _, p := range l.payloads {
		f := strings.SplitN(p, ".", 3)
		if f[1] != fmt.Sprint(next[f[0]]) {
			t.Fatalf("writer %s: record %s, want %d", f[0], f[1], next[f[0]])
		}
		next[f[0]]++
	}
	t.Logf("%d syncs for 300 waiting records", count.syncs.Load())
}

// segmentBytes writes batches of one record each and returns the file and the
// end of each batch.
func segmentBytes(t testing.TB, payloads []string, seal bool) (name string, ends []int64) {
	t.Helper()
	dir := t.TempDir()
	j, _, _ := open(t, Options{Dir: dir, SegmentSize: max(16<<10, 2*int64(len(strings.Join(payloads, ""))))})
	for _, p := range payloads {
		loc := add(t, j, p)
		ends = append(ends, int64(loc.Offset)-frameHeader+frameSize(int64(loc.Length))+frameHeader)
	}
	name = segmentName(dir, 1)
	if seal {
		must(t, j.Close())
		return name, ends
	}
	b, err := os.ReadFile(name)
	must(t, err)
	must(t, j.Close())
	must(t, os.WriteFile(name, b, 0o600))
	return name, ends
}

// replayBytes opens a journal that has only a segment with these bytes.
func replayBytes(t testing.TB, b []byte) (*log, Recovery) {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(segmentName(dir, 1), b, 0o600))
	j, l, rec := open(t, Options{Dir: dir})
	must(t, j.Close())
	return l, rec
}

// TestTornTail cuts the file, or leaves it unwritten, behind every byte of the
// last batch.
func TestTornTail(t *testing.T) {
	payloads := []string{"first", strings.Repeat("second", 20), strings.Repeat("third", 30)}
	name, ends := segmentBytes(t, payloads, false)
	b, err := os.ReadFile(name)
	must(t, err)
	for off := ends[1]; off < ends[2]; off++ {
		zeroed := append(bytes.Clone(b[:off]), make([]byte, int64(len(b))-off)...)
		for _, torn := range [][]byte{b[:off], zeroed} {
			l, rec := replayBytes(t, torn)
			// What was written whole but for its Commit may be kept.
			whole := off > ends[2]-frameHeader && len(l.payloads) == 3
			if !whole && (len(l.payloads) != 2 || len(l.damages) > 0) || rec.Damages != len(l.damages) {
				t.Fatalf("cut at %d of %d: %d records, damage %v", off, ends[2], len(l.payloads), l.damages)
			}
		}
	}
	// Pages of an unfinished batch reach the disk in any order.
	hole := bytes.Clone(b)
	clear(hole[ends[1] : ends[2]-frameHeader])
	if l, _ := replayBytes(t, hole); len(l.payloads) != 2 {
		t.Errorf("%d records", len(l.payloads))
	}
}

// TestGarbledTail makes everything behind the first batch unreadable, as a copy does
// that lost its place: that is too much for a batch that was cut short, and reported.
func TestGarbledTail(t *testing.T) {
	payloads := []string{"first"}
	for range 9 { // more than maxTorn
		payloads = append(payloads, strings.Repeat("payload ", 32<<10))
	}
	name, ends := segmentBytes(t, payloads, false)
	b, err := os.ReadFile(name)
	must(t, err)
	end := ends[0]
	l, rec := replayBytes(t, slices.Concat(b[:end], make([]byte, 512), b[end:]))
	if len(l.payloads) != 1 || len(l.damages) != 1 || rec.Damages != 1 {
		t.Errorf("%d records, damage %v, cut %d", len(l.payloads), l.damages, rec.Cut)
	}
}

// TestBitFlips damages every byte of a segment: no more than the record that it
// belongs to is lost, and that is reported.
func TestBitFlips(t *testing.T) {
	payloads := []string{"first", strings.Repeat("second", 9), "third", "fourth"}
	for _, seal := range []bool{true, false} {
		name, ends := segmentBytes(t, payloads, seal)
		b, err := os.ReadFile(name)
		must(t, err)
		for off := int64(headSize); off < ends[3]; off++ {
			c := bytes.Clone(b)
			c[off] ^= 1 << (off % 8)
			l, _ := replayBytes(t, c)
			lost := len(payloads) - len(l.payloads)
			if lost > 1 {
				t.Fatalf("sealed %v, byte %d: %d records lost", seal, off, lost)
			}
			if lost == 1 && len(l.damages) == 0 && (seal || off < ends[2]) {
				t.Fatalf("sealed %v, byte %d: a record is lost and no damage reported", seal, off)
			}
		}
		for off := range int64(headFields) { // one copy of the head is enough
			c := bytes.Clone(b)
			c[off] ^= 0xFF
			if l, _ := replayBytes(t, c); len(l.payloads) != 4 {
				t.Fatalf("head byte %d: %d records", off, len(l.payloads))
			}
		}
		c := bytes.Clone(b)
		clear(c[:headSize])
		if l, _ := replayBytes(t, c); len(l.payloads) != 4 || len(l.damages) != 1 || l.damages[0].Length != headSize {
			t.Errorf("without a head: %d records, damage %v", len(l.payloads), l.damages)
		}
	}
}

// TestDamagedBlocks overwrites each block of a segment, with zeros or with bytes: the
// records in the block are lost, which is reported, and no others, be it the head or
// any other block, or several of the first together.
func TestDamagedBlocks(t *testing.T) {
	var payloads []string
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range 60 {
		p := make([]byte, 100+rnd.IntN(3000))
		for k := range p {
			p[k] = byte(rnd.Uint32())
		}
		payloads = append(payloads, fmt.Sprintf("%d %s", i, p))
	}
	// One block holds records that begin and end with it.
	payloads = append(payloads, strings.Repeat("x", 3000))
	name, ends := segmentBytes(t, payloads, true)
	b, err := os.ReadFile(name)
	must(t, err)
	const block = 4096 // what a disk loses at once
	begins := func(i int) int64 {
		if i == 0 {
			return headSize
		}
		return ends[i-1]
	}
	for from := int64(0); from < ends[len(ends)-1]; from += block {
		for _, n := range []int64{1, 2, 3} {
			to := from + n*block
			if n > 1 && from > 0 || to > ends[len(ends)-2] {
				continue
			}
			for _, fill := range []byte{0, 0xA5} {
				c := bytes.Clone(b)
				copy(c[from:to], bytes.Repeat([]byte{fill}, int(to-from)))
				l, _ := replayBytes(t, c)
				var want []string
				for i, p := range payloads {
					if begins(i) >= to || ends[i]-frameHeader <= from {
						want = append(want, p)
					}
				}
				if !slices.Equal(l.payloads, want) || len(l.damages) == 0 {
					t.Errorf("%d to %d with %#x: %d records, want %d; %d damages", from, to, fill, len(l.payloads), len(want), len(l.damages))
				}
			}
		}
	}
}

// TestZeroedFrames: frames that are zeros as a whole are missed.
func TestZeroedFrames(t *testing.T) {
	name, ends := segmentBytes(t, []string{"first", "second", "third"}, true)
	b, err := os.ReadFile(name)
	must(t, err)
	clear(b[ends[0]:ends[1]])
	l, _ := replayBytes(t, b)
	if fmt.Sprint(l.payloads) != "[first third]" || len(l.damages) != 1 || l.damages[0].Data != nil || l.damages[0].Offset != ends[0] {
		t.Errorf("%q, %+v", l.payloads, l.damages)
	}
}

// TestForgedMark: a message whose own frame is damaged with the head, and which
// holds frames of an attacker's making, does not outweigh the others.
func TestForgedMark(t *testing.T) {
	const begin = headSize + frameHeader
	forged := make([]byte, 0, 20000)
	for off := int64(begin); len(forged) < 16000; {
		b := make([]byte, frameHeader)
		putFrame(b, markOf(1), off, kindA, 8, crc32.Checksum([]byte("attacker"), castagnoli), new(seed))
		forged = append(append(forged, b...), "attacker"...)
		off += int64(len(b)) + 8
	}
	// One that says it reaches to the end of the file does not count for that.
	b := make([]byte, frameHeader)
	putFrame(b, markOf(1), int64(begin+len(forged)), kindA, 20000, 1, new(seed))
	name, _ := segmentBytes(t, []string{string(append(forged, b...)), strings.Repeat("good", 5000), "good"}, true)
	c, err := os.ReadFile(name)
	must(t, err)
	clear(c[:headSize+8])
	if l, _ := replayBytes(t, c); len(l.payloads) != 2 || l.payloads[1] != "good" {
		t.Errorf("%d records, %d damages", len(l.payloads), len(l.damages))
	}
}

// TestUnwind: unwind undoes crc32.Update.
func TestUnwind(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 1000 {
		p := make([]byte, rnd.IntN(40))
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		before := rnd.Uint32()
		if got := unwind(crc32.Update(before, castagnoli, p), p); got != before {
			t.Fatalf("%x: %x, want %x", p, got, before)
		}
	}
}

// TestDamagedTail damages the last record and the Commit behind it: the record
// cannot be trusted, but it is not thrown away.
func TestDamagedTail(t *testing.T) {
	name, ends := segmentBytes(t, []string{"first", "second"}, false)
	b, err := os.ReadFile(name)
	must(t, err)
	b[ends[0]+frameHeader] ^= 1 // the second record
	b[ends[1]-5] ^= 1           // its Commit
	l, rec := replayBytes(t, b)
	if len(l.payloads) != 1 || len(l.damages) != 1 || rec.Cut == 0 {
		t.Fatalf("%d records, damage %v", len(l.payloads), l.damages)
	}
	if d := l.damages[0]; d.Offset != ends[0] || d.Length <= frameSize(6) {
		t.Errorf("%+v", d)
	}
}

// TestSegmentThatCannotBeOpened holds that it keeps its younger ones: they may
// say what became of its records.
func TestSegmentThatCannotBeOpened(t *testing.T) {
	c := &counter{FS: vfs.OS{}}
	dir := t.TempDir()
	j, _, _ := open(t, Options{FS: c, Dir: dir})
	loc := add(t, j, "first")
	must(t, j.Roll())
	add(t, j, "second")
	must(t, j.Close())
	c.failOpen = segmentName(dir, 1)
	j, l, rec := open(t, Options{FS: c, Dir: dir})
	if len(l.payloads) != 1 || len(l.damages) != 0 || len(l.unread) != 1 || rec.Unread != 1 {
		t.Fatalf("%+v", l)
	}
	if list := j.Segments(); len(list) != 2 || !list[0].Unread || list[1].Unread {
		t.Errorf("%+v", list)
	}
	for n := range uint32(2) {
		if err := j.Remove(n + 1); err == nil {
			t.Errorf("segment %d is removed", n+1)
		}
	}
	if err := j.Scan(1, Visitor{}); !errors.Is(err, ErrUnread) {
		t.Error(err)
	}
	if _, err := j.Open(loc); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	must(t, j.Close())
	c.failOpen = ""
	_, l, _ = open(t, Options{FS: c, Dir: dir})
	if fmt.Sprint(l.payloads) != "[first second]" {
		t.Errorf("%q", l.payloads)
	}
}

// TestForgedFrames damages the frame around a payload that contains a frame as
// an attacker may send it.
func TestForgedFrames(t *testing.T) {
	var forged []byte
	for off := int64(headSize); off < headSize+4096; off += align {
		b := make([]byte, frameHeader)
		putFrame(b, markOf(1), off, kindA, 0, 0, new(seed))
		forged = append(forged, b...)
	}
	name, _ := segmentBytes(t, []string{string(forged), "good"}, true)
	b, err := os.ReadFile(name)
	must(t, err)
	b[headSize] ^= 1
	if l, _ := replayBytes(t, b); len(l.payloads) != 1 || l.payloads[0] != "good" || len(l.damages) != 1 {
		t.Errorf("%d records, %d damages", len(l.payloads), len(l.damages))
	}
}

func TestNewerVersion(t *testing.T) {
	dir := t.TempDir()
	page := putHead(1, 7, 0)
	page[8] = version + 1
	putSum := func(b []byte) { copy(b[36:], le32(sum(b[:36]))) }
	putSum(page)
	must(t, os.WriteFile(segmentName(dir, 1), page, 0o600))
	j, l, rec := open(t, Options{Dir: dir})
	if len(l.unread) != 1 || !strings.Contains(l.unread[0], "version 2") || rec.Segments != 0 || rec.Unread != 1 {
		t.Errorf("%+v %+v", l, rec)
	}
	// It stays, and the start goes on behind it.
	_, err := j.Append(FirstKind, []byte("new"))
	must(t, err)
	if list := j.Segments(); len(list) != 2 || !list[0].Unread || list[1].Number != 2 {
		t.Errorf("%+v", list)
	}
	must(t, j.Close())
	if b, err := os.ReadFile(segmentName(dir, 1)); err != nil || !bytes.Equal(b, page) {
		t.Error("the newer program's segment was touched")
	}
}

func TestUnreadableSegments(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Symlink("/etc/passwd", segmentName(dir, 3)))
	must(t, os.WriteFile(segmentName(dir, 4), nil, 0o600))
	must(t, os.WriteFile(segmentName(dir, 5), make([]byte, 100_000), 0o600))
	must(t, os.WriteFile(segmentName(dir, 6), []byte("garbage"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "notes.log"), nil, 0o600))
	j, l, _ := open(t, Options{Dir: dir})
	if len(l.payloads) != 0 || len(l.damages) != 2 {
		t.Errorf("%+v", l)
	}
	if loc := add(t, j, "x"); loc.Segment != 7 {
		t.Errorf("%+v", loc)
	}
}

// counter counts syncs and fails on demand.
type counter struct {
	vfs.FS
	syncs             atomic.Int64
	failSync, failNew atomic.Bool
	failOpen          string // name of a file
}

func (c *counter) Open(name string) (vfs.File, error) {
	if name == c.failOpen {
		return nil, &os.PathError{Op: "open", Path: name, Err: syscall.EMFILE}
	}
	return c.FS.Open(name)
}

func (c *counter) Create(name string) (vfs.File, error) {
	if c.failNew.Load() {
		return nil, &os.PathError{Op: "create", Path: name, Err: syscall.ENOSPC}
	}
	f, err := c.FS.Create(name)
	return &countedFile{File: f, c: c}, err
}

type countedFile struct {
	vfs.File
	c      *counter
	failed bool
}

func (f *countedFile) Sync() error {
	f.c.syncs.Add(1)
	if f.failed {
		panic("a descriptor whose sync failed is synced again")
	}
	if f.c.failSync.Load() {
		f.failed = true
		return &os.PathError{Op: "fdatasync", Path: "x", Err: syscall.EIO}
	}
	return f.File.Sync()
}

func TestSyncError(t *testing.T) {
	c := &counter{FS: vfs.OS{}}
	dir := t.TempDir()
	now := time.Now()
	j, _, _ := open(t, Options{Dir: dir, FS: c, Now: func() time.Time { return now }})
	before := add(t, j, "before")
	must(t, j.Enqueue(kindA, []byte("unsynced")))
	c.failSync.Store(true)
	if _, err := j.Append(kindA, []byte("failed")); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	must(t, j.Enqueue(kindA, []byte("later")))
	if err := j.Sync(); !errors.Is(err, syscall.EIO) || !errors.Is(j.Err(), syscall.EIO) {
		t.Fatal(err, j.Err())
	}
	c.failNew.Store(true)
	c.failSync.Store(false)
	now = now.Add(time.Minute)
	if err := j.Sync(); !errors.Is(err, syscall.ENOSPC) || !errors.Is(j.Err(), syscall.ENOSPC) {
		t.Fatal(err, j.Err())
	}
	c.failNew.Store(false)
	if err := j.Sync(); err == nil {
		t.Fatal("a segment was begun at once after two failures")
	}
	now = now.Add(time.Minute)
	must(t, j.Sync())
	must(t, j.Err())
	if loc := add(t, j, "after"); loc.Segment == before.Segment {
		t.Fatal("the failed segment is used again")
	}
	if readBack(t, j, before) != "before" {
		t.Fatal("an acknowledged record is gone")
	}
	must(t, j.Close())
	_, l, _ := open(t, Options{Dir: dir})
	found := map[string]bool{}
	for _, p := range l.payloads {
		found[p] = true
	}
	for _, p := range []string{"before", "unsynced", "later", "after"} {
		if !found[p] {
			t.Errorf("%q is lost", p)
		}
	}
	if last := l.payloads[len(l.payloads)-1]; last != "after" {
		t.Errorf("the last record is %q", last)
	}
}

// TestOneSyncForALoneWriter counts what an append costs.
func TestOneSyncForALoneWriter(t *testing.T) {
	c := &counter{FS: vfs.OS{}}
	j, _, _ := open(t, Options{Dir: t.TempDir(), FS: c})
	add(t, j, "x")
	n := c.syncs.Load()
	for range 10 {
		add(t, j, "x")
		must(t, j.Enqueue(kindA, []byte("y")))
	}
	if got := c.syncs.Load() - n; got != 10 {
		t.Errorf("%d syncs for 10 records", got)
	}
	if !j.Unsynced() {
		t.Error("the last record cannot be synced yet")
	}
	must(t, j.Sync())
	must(t, j.Sync())
	if got := c.syncs.Load() - n; got != 11 || j.Unsynced() {
		t.Errorf("%d syncs", got)
	}
}

// TestOneSyncForAll has a hundred writers that could all run at once, and one
// processor: each that runs before the flusher shares its sync.
func TestOneSyncForAll(t *testing.T) {
	c := &counter{FS: crashfs.New()} // its syncs take no time in which others would run
	j, _, _ := open(t, Options{Dir: "/", FS: c})
	add(t, j, "x")
	before := c.syncs.Load()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := j.Append(kindA, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := c.syncs.Load() - before; n > 10 {
		t.Errorf("%d syncs for 100 writers", n)
	}
}

func FuzzReplay(f *testing.F) {
	name, _ := segmentBytes(f, []string{"first", "second"}, true)
	b, err := os.ReadFile(name)
	must(f, err)
	b = bytes.TrimRight(b, "\x00")
	f.Add(b[headSize:], uint16(0), byte(0))
	f.Add(b[headSize:], uint16(20), byte(1))
	f.Add([]byte("garbage"), uint16(0), byte(0))
	head := bytes.Clone(b[:headSize])
	f.Fuzz(func(t *testing.T, frames []byte, at uint16, flip byte) {
		seg := append(bytes.Clone(head), frames...)
		seg[int(at)%len(seg)] ^= flip
		l, _ := replayBytes(t, seg)
		for _, p := range l.payloads {
			if p != "first" && p != "second" {
				t.Fatalf("record %q was never written", p)
			}
		}
	})
}

// narrow is a file system on which no more than room bytes can be reserved.
type narrow struct {
	vfs.FS
	room int64
}

func (f narrow) Create(name string) (vfs.File, error) {
	file, err := f.FS.Create(name)
	return narrowFile{file, f.room}, err
}

type narrowFile struct {
	vfs.File
	room int64
}

func (f narrowFile) Reserve(size int64) error {
	if size > f.room {
		return syscall.ENOSPC
	}
	return f.File.Reserve(size)
}

// TestNearlyFull: where there is no room for a whole segment records go to
// smaller ones, and nothing is written where there is hardly any.
func TestNearlyFull(t *testing.T) {
	dir := t.TempDir()
	j, _, _ := open(t, Options{Dir: dir, FS: narrow{vfs.OS{}, 2 << 20}})
	payload := strings.Repeat("x", 300<<10)
	for range 5 {
		add(t, j, payload)
	}
	list := j.Segments()
	if len(list) != 2 || list[1].Space != 1<<20 {
		t.Errorf("%+v", list)
	}
	must(t, j.Close())
	_, found, _ := open(t, Options{Dir: dir})
	if len(found.payloads) != 5 {
		t.Errorf("%d records", len(found.payloads))
	}
	j, _, _ = open(t, Options{Dir: t.TempDir(), FS: narrow{vfs.OS{}, 1 << 10}})
	if _, err := j.Append(kindA, []byte("x")); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
}

// TestLastNumber: a file that has the last number there is does not make the
// numbers begin anew, where no start would find a record.
func TestLastNumber(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "4294967295.log"), []byte("x"), 0o600))
	j, _, _ := open(t, Options{Dir: dir})
	if loc, err := j.Append(kindA, []byte("x")); err == nil {
		t.Errorf("written to %+v", loc)
	}
}
