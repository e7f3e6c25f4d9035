package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"time"

	"tarishi/internal/store/journal/window"
	"tarishi/internal/vfs"
)

// Record is one record found by Open or Scan. Payload is valid only during the
// call that passes it.
type Record struct {
	Kind     Kind
	Location Location
	Payload  []byte
}

// Damage is a range of a segment that cannot be read as what was written there.
type Damage struct {
	Segment        uint32
	Offset, Length int64
	Reason         string
	Data           io.ReadSeeker // what can be read of the range, unreadable blocks being 0xFF; nil: zeros
}

// Visitor is called with the records of a segment, in order of offset, and by Open with those
// that cannot be read now and may be another day.
type Visitor struct {
	Record func(Record)
	Damage func(Damage)
	Unread func(name string, err error)
}

// Recovery says what Open found.
type Recovery struct {
	Segments, Records, Damages int
	Unread                     int   // segments that stay, and all younger ones with them
	Cut                        int64 // bytes of batches that were never finished
}

// recover reads all segments of the directory, oldest first.
func (j *Journal) recover(v Visitor) (Recovery, error) {
	var rec Recovery
	list, err := j.options.FS.List(j.options.Dir)
	if err != nil {
		return rec, err
	}

	// Segments are read in the order of their numbers, which is that of their records.
	type found struct {
		number uint32
		name   string
	}
	var files []found
	for _, e := range list {
		if n, ok := segmentNumber(e.Name); ok && !e.Dir {
			files = append(files, found{n, e.Name})
		}
	}
	slices.SortFunc(files, func(a, b found) int { return int(int64(a.number) - int64(b.number)) })
	for _, f := range files {
		j.last = max(j.last, f.number)
		name := segmentName(j.options.Dir, f.number)
		file, err := j.options.FS.Open(name)
		if errors.Is(err, vfs.ErrNotRegular) || errors.Is(err, fs.ErrNotExist) {
			rec.Damages++
			v.Damage(Damage{Segment: f.number, Reason: "cannot be opened: " + err.Error()})
			continue
		}
		if err != nil {
			// It may be read another day. Until then it blocks the removal of
			// younger ones, which may say that its messages are done.
			rec.Unread++
			v.Unread(name, err)
			j.segments = append(j.segments, &segment{number: f.number, name: name, refs: 1, done: true, durable: true})
			continue
		}

		// The scan finds out where its trusted part ends, and passes it on.
		s := &segment{number: f.number, name: name, file: file, refs: 1, done: true, durable: true, limit: -1}
		s.space, _ = file.Size() // scan tells if that fails
		j.segments = append(j.segments, s)
		rec.Segments++
		r, err := s.scanFrames(Visitor{
			Record: func(r Record) { rec.Records++; v.Record(r) },
			Damage: func(d Damage) { rec.Damages++; v.Damage(d) },
		})
		if err != nil { // as above: another program may read it another day
			rec.Segments--
			rec.Unread++
			v.Unread(name, err)
			file.Close()
			s.file = nil
			continue
		}
		rec.Cut += r.cut
	}
	return rec, nil
}

// Scan reads a segment that is done once more. An error says that it cannot be
// scanned at all.
func (j *Journal) Scan(number uint32, v Visitor) error {
	j.mu.Lock()
	s := j.findSegment(number)
	if s == nil || !s.done {
		j.mu.Unlock()
		return ErrGone
	}
	if s.file == nil {
		j.mu.Unlock()
		return ErrUnread
	}
	s.refs++
	j.mu.Unlock()
	defer j.release(s)
	_, err := s.scanFrames(v)
	return err
}

// noFrame is the reason of damage in which no header of a frame is right.
const noFrame = "no frame can be read here"

const headless = "the segment's head is damaged, its frames were found by their checksums"

// readMark reads the head of a segment, or finds out without it how its frames are
// marked. If it does not the segment stays unmarked, and all of it is damage.
func (s *segment) readMark(w *window.Window, damage func(off, end int64, reason string)) error {
	h, ok := head{}, false
	if w.Size() >= headSize {
		h, ok = parseHead(w.BytesAt(0, headSize))
	}
	if ok && h.version > version {
		return fmt.Errorf("journal: %s is of version %d, this program reads up to %d", s.name, h.version, version)
	}

	// The salt in the head marks every frame.
	if ok {
		s.mark, s.marked, s.created = markOf(h.salt), true, time.Unix(0, h.created)
		return nil
	}

	// Frames outlive the head, and give their mark away.
	if s.mark, s.marked = findMark(w); s.marked {
		s.headless = true
		damage(0, headSize, headless)
		return nil
	}

	// Without a mark nothing in it can be believed.
	if end := w.LastByte(0); end > 0 {
		damage(0, end, "the segment's head is damaged")
	}
	s.end = w.Size()
	return nil
}

// findMark finds out the mark of a segment with a damaged head. The first frame,
// at a known place, has it. If that is damaged too the mark counts with which
// most bytes are frames with the right checksum: what a message holds that looks
// like frames stands inside a frame, except in a message with a damaged frame of its
// own, and other frames outweigh one message.
func findMark(w *window.Window) (mark, bool) {
	covered := map[mark]int64{}
	budget := 4 * w.Size() // bytes to read for guesses that turn out wrong
	for off := int64(headSize); off+frameHeader <= w.Size(); {
		// A guess is worth reading its payload only as long as wrong guesses have not cost
		// too much: a forged one must not make the start slow.
		f, m, ok := guessFrame(w.BytesAt(off, frameHeader), off)
		end := off + frameSize(int64(f.length))
		ok = ok && end <= w.Size() && int64(f.length) <= budget
		if ok && crc32.Checksum(w.BytesAt(off+frameHeader, int64(f.length)), castagnoli) != f.sum {
			ok = false
			budget -= int64(f.length)
		}
		if !ok {
			off = w.SkipZeros(off+align, w.Size())
			continue
		}

		// The first frame stands where a mark cannot be forged.
		covered[m] += end - off
		if off == headSize {
			return m, true
		}
		off = end
	}

	// The mark of most bytes wins; of two alike, the same one each time.
	var best mark
	for m, n := range covered {
		if n > covered[best] || n == covered[best] && m < best {
			best = m
		}
	}
	return best, covered[best] > 0
}

// ScanPiece passes the records in a file to visit, though no journal has it any
// more: a copy of a segment, or of the part of one that begins at offset base. It
// trusts every frame with right checksums, whether its batch was finished or
// not.
func ScanPiece(file vfs.File, base int64, visit func(Record)) error {
	size, err := file.Size()
	if err != nil {
		return err
	}
	w := window.New(piece{file, base}, base+size)

	// A whole segment has its head, a part only its frames.
	m, marked := mark(0), false
	if base == 0 && size >= headSize {
		if h, ok := parseHead(w.BytesAt(0, headSize)); ok {
			m, marked = markOf(h.salt), true
		}
	}
	if !marked {
		if m, marked = findMark(w); !marked {
			return nil
		}
	}

	// Damage between them is no news here.
	none := func(int64, int64, string) {}
	walkFrames(w, m, w.Size(), func(off int64, f frame, payload []byte) bool {
		if f.kind >= FirstKind {
			visit(Record{Kind: f.kind, Location: Location{Offset: uint32(off + frameHeader), Length: f.length}, Payload: payload})
		}
		return true
	}, none, nil)
	return nil
}

// piece is a file that began at base once. What stood before reads as
// zeros.
type piece struct {
	vfs.File
	base int64
}

func (p piece) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), p.base-off)))
	clear(b[:n])
	if n == len(b) {
		return n, nil
	}
	k, err := p.File.ReadAt(b[n:], off+int64(n)-p.base)
	return n + k, err
}

type scanned struct{ cut int64 }

// scanFrames passes the records of the batches that were finished to v, and every
// range before the end of the last of them that cannot be read. What stands
// behind is the torn tail of a batch that was never acknowledged: it is cut, and
// passed to v as damage if it is more than whole frames and a torn one, as it may
// have been finished then. A segment with a Seal has no torn tail.
func (s *segment) scanFrames(v Visitor) (scanned, error) {
	size, err := s.file.Size()
	if err != nil {
		v.Damage(Damage{Segment: s.number, Reason: "cannot be read: " + err.Error()})
		return scanned{}, nil
	}
	w := window.New(s.file, size)
	defer func() { s.unreadable.CompareAndSwap(false, w.Unreadable()) }()

	// Ranges of zeros have nothing to preserve.
	damage := func(off, end int64, reason string) {
		d := Damage{Segment: s.number, Offset: off, Length: end - off, Reason: reason}
		if w.LastByteIn(off, end) > off {
			d.Data = io.NewSectionReader(window.New(s.file, size), off, end-off)
		}
		v.Damage(d)
	}
	if !s.marked {
		if err := s.readMark(w, damage); err != nil || !s.marked {
			return scanned{}, err
		}
	} else if s.headless {
		damage(0, headSize, headless)
	}

	// The first scan after a start finds the end of the last batch that was finished.
	if s.limit < 0 {
		var t tail
		walkFrames(w, s.mark, size, t.visitFrame, t.damage, nil)
		s.limit = t.trustedEnd()
		s.end = max(s.limit, t.end, t.badEnd)
		s.odd = t.odd
	}

	// Something whole behind a damaged frame: the batch may have been finished, and
	// promised.
	if end := w.LastByteIn(s.limit, s.end); s.odd && end > s.limit {
		damage(s.limit, end, "cut: a batch that seems unfinished, and is damaged")
	}

	// Only then are records passed on, none of them from behind the limit.
	limit := s.limit
	if limit == 0 { // written by this run: every batch before end was finished
		limit = s.end
	}
	walkFrames(w, s.mark, limit, func(off int64, f frame, payload []byte) bool {
		if f.kind >= FirstKind {
			v.Record(Record{Kind: f.kind, Location: Location{Segment: s.number, Offset: uint32(off + frameHeader), Length: f.length}, Payload: payload})
		}
		return f.kind != kindSeal
	}, damage, damage)
	return scanned{cut: s.end - limit}, nil
}

// tail finds where the trusted part of a segment ends.
type tail struct {
	committed int64 // end of the last Commit or Seal
	end       int64 // end of the last frame that is whole
	badEnd    int64 // end of the last damaged range
	bad       int64 // length of the damage behind end
	torn      bool  // there is damage behind committed
	odd       bool  // there is, and something behind it: more than one torn frame
}

func (t *tail) visitFrame(off int64, f frame, _ []byte) bool {
	t.end, t.bad = off+frameSize(int64(f.length)), 0
	t.odd = t.torn
	if f.kind == kindCommit || f.kind == kindSeal {
		t.committed = t.end
		t.odd, t.torn = false, false
	}
	return f.kind != kindSeal
}

// maxTorn is more bytes without the header of any frame than a batch that was cut
// short is likely to leave: the pages that reached the disk would be large bodies alone.
const maxTorn = 2 << 20

// damage takes a range that cannot be read.
func (t *tail) damage(off, end int64, reason string) {
	t.badEnd = end
	t.bad += end - off
	t.odd, t.torn = t.torn || reason == noFrame && end-off > maxTorn, true
}

// trustedEnd is the end of the last Commit. A last batch that is whole but for
// damage as small as its Commit is kept too: its records may have been promised.
func (t *tail) trustedEnd() int64 {
	if t.end > t.committed && t.bad > 0 && t.bad <= frameHeader {
		return t.badEnd
	}
	return max(t.committed, headSize)
}

// walkFrames passes every frame from the head to limit to visit, until that returns
// false, and every range between them that is neither a frame nor zeros to bad.
// It trusts no length that no checksum vouches for; behind a range that it
// cannot read it goes on at the next frame on an aligned offset. Zeros between two
// frames, where there must have been others, are passed to gap, if that is not nil.
func walkFrames(w *window.Window, m mark, limit int64, visit func(int64, frame, []byte) bool, bad, gap func(off, end int64, reason string)) {
	lost := int64(-1) // where the unreadable range began
	var s seed
	flush := func(end int64) {
		if lost < 0 {
			return
		}
		if last := w.LastByteIn(lost, end); last > lost {
			bad(lost, last, noFrame)
		} else if gap != nil && end < limit {
			gap(lost, end, "zeros stand where frames were")
		}
		lost = -1
	}

	// A frame is found by the checksum of its header; all that lies between two is one
	// range.
	for off := int64(headSize); off+frameHeader <= limit; {
		f, ok := parseFrame(w.BytesAt(off, frameHeader), m, off, &s)
		next := off + frameSize(int64(f.length))
		if !ok || next > limit {
			if lost < 0 {
				lost = off
			}
			off = w.SkipZeros(off+align, limit)
			continue
		}
		flush(off)

		// The header is right, so the length is: a wrong payload costs only itself.
		payload := w.BytesAt(off+frameHeader, int64(f.length))
		if crc32.Checksum(payload, castagnoli) != f.sum {
			bad(off, next, "the checksum does not match")
		} else if !visit(off, f, payload) {
			return
		}
		off = next
	}
	flush(limit)
}
