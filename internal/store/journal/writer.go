package journal

import "tarishi/internal/vfs"

// writer turns records into as few writes as is sensible: small slices are
// gathered in one reused buffer, large ones are written from where they are.
type writer struct {
	file vfs.File
	off  int64 // of the next write
	end  int64 // of the next frame

	head [frameHeader]byte
	seed seed
	vec  [][]byte
	buf  []byte
	run  int // buf[run:] is not in vec yet
	size int64
	err  error
}

const (
	bufSize = 256 << 10
	direct  = 16 << 10 // slices from this length on are not copied
	maxVec  = 512
)

var padding [align]byte

// writeRecords writes records, a Commit and perhaps a Seal behind the end of s. It
// returns the new end; w.err says whether it is worth anything.
func (w *writer) writeRecords(s *segment, records []*record, seal bool) int64 {
	w.file, w.off, w.end, w.err = s.file, s.end, s.end, nil
	if w.buf == nil {
		w.buf = make([]byte, 0, bufSize)
	}

	// Where each record stands is known before anything is written.
	for _, r := range records {
		r.loc = Location{Segment: s.number, Offset: uint32(w.end + frameHeader), Length: r.length}
		w.header(s.mark, r.kind, r.length, r.sum)
		for _, p := range r.parts {
			w.addBytes(p)
		}
		if rest := r.length % align; rest != 0 {
			w.addBytes(padding[rest:])
		}
	}

	// The Commit makes the batch whole; without it a replay passes nothing of it on.
	w.header(s.mark, kindCommit, 0, 0)
	if seal {
		w.header(s.mark, kindSeal, 0, 0)
	}
	w.writeOut()
	return w.end
}

func (w *writer) header(m mark, k Kind, n, sum uint32) {
	putFrame(w.head[:], m, w.end, k, n, sum, &w.seed)
	w.addBytes(w.head[:])
	w.end += frameSize(int64(n))
}

func (w *writer) addBytes(p []byte) {
	// Large parts are written from where they are: only small ones are worth a copy.
	switch {
	case len(p) >= direct:
		w.cutRun()
		w.vec = append(w.vec, p)
		w.size += int64(len(p))
	case len(w.buf)+len(p) > cap(w.buf):
		w.writeOut()
		fallthrough
	default:
		w.buf = append(w.buf, p...)
	}
	if len(w.vec) >= maxVec {
		w.writeOut()
	}
}

// cutRun moves what was gathered to vec.
func (w *writer) cutRun() {
	if p := w.buf[w.run:]; len(p) > 0 {
		w.vec = append(w.vec, p)
		w.size += int64(len(p))
		w.run = len(w.buf)
	}
}

func (w *writer) writeOut() {
	w.cutRun()
	if w.err == nil && len(w.vec) > 0 {
		w.err = w.file.WriteVec(w.vec, w.off)
	}
	w.off += w.size
	clear(w.vec)
	w.vec, w.buf, w.run, w.size = w.vec[:0], w.buf[:0], 0, 0
}
