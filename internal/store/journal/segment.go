package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"tarishi/internal/vfs"
)

// Location says where a record's payload stands. The zero Location is none.
type Location struct {
	Segment uint32 // from 1
	Offset  uint32 // of the payload's first byte
	Length  uint32 // bytes of payload
}

// segment is one file of the journal. While it grows, the flusher alone uses its
// first part; from then on nothing there changes but what the first scan after a
// restart finds out. The second part is guarded by Journal.mu.
type segment struct {
	number  uint32
	name    string
	file    vfs.File // nil: it could not be opened
	mark    mark
	marked  bool // mark is known
	created time.Time
	limit   int64 // of an earlier run: where its trusted records end, -1 not known yet; else 0
	end     int64 // where the next frame goes
	space   int64 // bytes of the file when it was made, or found
	durable bool  // a batch in it is on stable storage
	odd     bool  // what was cut behind limit is damaged

	headless bool // mark was found without the head

	unreadable atomic.Bool // a scan came to blocks that could not be read

	refs int  // readers, and one for the journal itself
	done bool // nothing is written to it any more
}

func segmentName(dir string, number uint32) string {
	return filepath.Join(dir, fmt.Sprintf("%08d.log", number))
}

func segmentNumber(name string) (uint32, bool) {
	digits, ok := strings.CutSuffix(name, ".log")
	if !ok || len(digits) < 8 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return uint32(n), err == nil && n > 0
}

// create makes the file of a new segment. Neither its head nor its name is
// durable yet. Where there is no room for size bytes it is smaller: what must be
// recorded while a disk is nearly full is little.
func create(disk vfs.FS, dir string, number uint32, size int64, now time.Time) (s *segment, err error) {
	for ; ; size /= shrink {
		s, err = createSized(disk, dir, number, size, now)
		if !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) || size/shrink < smallest {
			return s, err
		}
	}
}

const (
	shrink   = 8
	smallest = 512 << 10 // bytes of a segment, unless Options.SegmentSize is less
)

func createSized(disk vfs.FS, dir string, number uint32, size int64, now time.Time) (*segment, error) {
	name := segmentName(dir, number)
	f, err := disk.Create(name)
	if err != nil {
		return nil, err
	}

	// Space is reserved now, so that a sync need not wait for the file system to find it.
	salt := rand.Uint64() | 1
	s := &segment{
		number: number, name: name, file: f, mark: markOf(salt), marked: true, created: now,
		end: headSize, space: size, refs: 1,
	}
	if err = f.Reserve(size); err == nil {
		err = f.WriteVec([][]byte{putHead(number, salt, now.UnixNano())}, 0)
	}
	if err != nil {
		f.Close()
		_ = disk.Remove(name) // nothing was promised about it
		return nil, err
	}
	return s, nil
}

// Reader reads one record's payload from a segment, also after the segment was
// removed. It must be closed.
type Reader struct {
	journal *Journal
	seg     *segment
	loc     Location
}

// Open returns a Reader for a record. A segment that is gone gives ErrGone.
func (j *Journal) Open(loc Location) (*Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	s := j.findSegment(loc.Segment)
	if s == nil || s.file == nil {
		return nil, ErrGone
	}
	s.refs++
	return &Reader{journal: j, seg: s, loc: loc}, nil
}

// ReadAt implements io.ReaderAt; offset 0 is the payload's first byte.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	n := int64(r.loc.Length)
	if off < 0 || off > n {
		return 0, fmt.Errorf("journal: offset %d outside a record of %d bytes", off, n)
	}
	var short bool
	if int64(len(p)) > n-off {
		p, short = p[:n-off], true
	}
	k, err := r.seg.file.ReadAt(p, int64(r.loc.Offset)+off)
	if err == nil && short {
		err = errEOF
	}
	return k, err
}

// Size is the payload's length in bytes.
func (r *Reader) Size() int64 { return int64(r.loc.Length) }

// Close lets the segment go. It may be called once.
func (r *Reader) Close() error {
	r.journal.release(r.seg)
	return nil
}

// findSegment returns a segment that was not removed, or nil. Caller holds j.mu.
func (j *Journal) findSegment(number uint32) *segment {
	for _, s := range j.segments {
		if s.number == number {
			return s
		}
	}
	return nil
}

// release drops one reference and closes the file with the last one.
func (j *Journal) release(s *segment) {
	j.mu.Lock()
	s.refs--
	last := s.refs == 0
	j.mu.Unlock()
	if last && s.file != nil {
		_ = s.file.Close() // nothing unwritten is left in it
	}
}

// Info describes a segment.
type Info struct {
	Number  uint32
	Size    int64 // bytes written
	Space   int64 // bytes of the file, written or reserved
	Created time.Time
	Done    bool // sealed, abandoned or of an earlier run: it will not grow
	Unread  bool // Open could not open it: it stays

	// Unreadable says that a scan came to blocks that could not be read: what
	// Damage had of them is not their content.
	Unreadable bool
}

// Name returns the name of a segment's file.
func (j *Journal) Name(number uint32) string { return segmentName(j.options.Dir, number) }

// SegmentSize is how many bytes a new segment takes.
func (j *Journal) SegmentSize() int64 { return j.options.SegmentSize }

// Segments describes the segments that exist, oldest first.
func (j *Journal) Segments() []Info {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]Info, len(j.segments))
	for i, s := range j.segments {
		list[i] = Info{Number: s.number, Created: s.created, Space: s.space, Done: s.done, Unread: s.file == nil, Unreadable: s.unreadable.Load()}
		if s.done {
			list[i].Size, list[i].Space = s.end, max(s.space, s.end)
		}
	}
	return list
}

// Remove deletes a segment that is done; it may have no name any more. Open readers
// stay valid. Segments must be removed oldest first: a younger one may hold what
// ends a record of an older one.
func (j *Journal) Remove(number uint32) error {
	j.mu.Lock()
	if len(j.segments) == 0 || j.segments[0].number != number || !j.segments[0].done || j.segments[0].file == nil {
		j.mu.Unlock()
		return fmt.Errorf("journal: segment %d is not the oldest that is done", number)
	}
	s := j.segments[0]
	j.mu.Unlock()
	if err := j.options.FS.Remove(s.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j.mu.Lock()
	j.segments = j.segments[1:]
	j.mu.Unlock()
	j.release(s)
	return nil
}
