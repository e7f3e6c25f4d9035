// Package journal is a log of opaque records that makes many of them durable
// with one fdatasync. It knows no mail.
//
// # Batches
//
// Append queues a record and waits; Enqueue queues one and does not. A single
// flusher writes the queued records and syncs the file once; what was queued in the
// meantime is the next batch. There is no timer: a lone writer pays exactly one
// fdatasync, a hundred share one. Goroutines that can run at once do so before a batch
// is closed, so that a busy machine makes few large batches and not many small
// ones. A batch in which nobody waits is written at
// once but not synced: it is safe from the end of the process, and the next sync
// covers it (Sync asks for one).
//
// # Format
//
// The directory holds segments, NNNNNNNN.log. A segment is a head of 4096 bytes
// and frames, each on a multiple of 8:
//
//	 0     1     2     3     4                       8
//	+-----+-----+-----+-----+-----+-----+-----+-----+
//	| kind|flags|  0  |  0  | length of the payload |
//	+-----+-----+-----+-----+-----+-----+-----+-----+
//	| CRC-32C of the payload| CRC-32C of salt,      |
//	|                       | offset, bytes 0 to 11 |
//	+-----+-----+-----+-----+-----+-----+-----+-----+
//	| payload, padded with zeros to a multiple of 8 |
//
// Kind 0 is space that was never written, 1 is Commit (the batch before it was
// written whole), 2 is Seal (the segment ended); the caller's kinds start at 16.
// No flag has a meaning yet.
// Numbers are little-endian. The salt is random and stands in the head, so that
// no sender can make its bytes look like a frame. Frames outlive the
// head: see findMark.
//
// # Invariants
//
// A segment's file and directory are synced before the first record in it is
// acknowledged. After a failed write or sync the segment is abandoned: its file
// is neither written nor synced again, waiters get the error, and records
// without a waiter go to the next segment, on a new file. What a failed batch
// held may or may not be found after a crash. Records keep their order.
//
// Assumptions: a write that fdatasync acknowledged stays as it is; sectors of 512
// bytes are written whole or not; directories are synced by their own fsync.
package journal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/vfs"
)

// Errors of the journal.
var (
	ErrClosed = errors.New("journal: closed")
	ErrGone   = errors.New("journal: no such segment")
	ErrUnread = errors.New("journal: segment could not be opened")

	errTooLarge = fmt.Errorf("journal: record of more than %d bytes", MaxRecord)
	errNumbers  = errors.New("journal: a file has the last number that there is")
	errEOF      = io.EOF
)

// maxUnsynced is how many records without a waiter may wait for a sync.
const maxUnsynced = 8192

// Options is what a Journal works with. FS and Dir are needed.
type Options struct {
	FS          vfs.FS
	Dir         string        // exists
	SegmentSize int64         // 0: 64 MiB, at most 2 GiB; a larger record gets a larger segment, a full disk smaller ones
	Retry       time.Duration // between attempts to begin a segment after a failed one; 0: 1 s
	Log         *zap.Logger   // nil: none
	Now         func() time.Time
	// Synced is called with the duration of each sync of a batch, its records and
	// its outcome; nil: it is not. It must be quick.
	Synced func(records int, took time.Duration, err error)
}

// Journal is an open journal. Its methods may be called from any goroutine.
type Journal struct {
	options Options

	mu       sync.Mutex
	segments []*segment // that exist, oldest first
	next     *batch     // the queued records
	flushing bool       // the flusher runs
	closed   bool
	err      error // why the last batch failed; nil after one that did not
	unsynced bool  // records without a waiter wait for a sync

	flusher sync.WaitGroup

	// Only the flusher and, before and after its time, Open and Close touch
	// what follows.
	last     uint32    // number of the youngest segment
	cur      *segment  // nil: begin one
	again    []*record // without a waiter, written but not synced yet
	failures int       // in a row
	failed   time.Time // the last of them
	cause    error
	writer   writer
}

// batch is records that are queued together.
type batch struct {
	records []*record
	sync    bool          // somebody waits
	roll    bool          // the segment ends with it
	done    chan struct{} // closed when the outcome stands in the records and in err
	err     error         // of the batch's last write
}

type record struct {
	kind   Kind
	parts  [][]byte
	one    [1][]byte // what parts is in most records
	length uint32
	sum    uint32
	wait   bool

	loc Location
	err error
}

// Open replays the journal in a directory to v and opens it to append. Damage
// is reported to v and never an error.
func Open(o Options, v Visitor) (*Journal, Recovery, error) {
	if o.SegmentSize == 0 {
		o.SegmentSize = 64 << 20
	}
	o.SegmentSize = min(o.SegmentSize, 2<<30)
	if o.Retry == 0 {
		o.Retry = time.Second
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Now == nil {
		o.Now = time.Now
	}

	// Damage is the visitor's; an error here means that the folder cannot be listed.
	j := &Journal{options: o, next: newBatch()}
	rec, err := j.recover(v)
	if err != nil {
		for _, s := range j.segments {
			j.release(s)
		}
		return nil, rec, err
	}
	return j, rec, nil
}

func newBatch() *batch { return &batch{done: make(chan struct{})} }

// Append writes one record, the concatenation of parts, and returns when it is
// on stable storage. The parts must not change until then. On an error nothing
// is known: the record may be found by the next Open.
func (j *Journal) Append(k Kind, parts ...[]byte) (Location, error) {
	r, err := newRecord(k, parts...)
	if err != nil {
		return Location{}, err
	}
	r.wait = true
	b, err := j.queueRecord(r, true, false)
	if err != nil {
		return Location{}, err
	}
	<-b.done
	return r.loc, r.err
}

// Enqueue writes one record soon, behind everything that was queued before it.
// The payload must not change any more. A failed write is repeated.
func (j *Journal) Enqueue(k Kind, payload []byte) error {
	r, err := newRecord(k, payload)
	if err != nil {
		return err
	}
	_, err = j.queueRecord(r, false, false)
	return err
}

// Submit is Enqueue for a record that somebody waits for: wait returns when it,
// and everything queued before, is on stable storage, or with the error of the
// write that failed last.
func (j *Journal) Submit(k Kind, payload []byte) (wait func() error, err error) {
	r, err := newRecord(k, payload)
	if err != nil {
		return nil, err
	}
	b, err := j.queueRecord(r, true, false)
	if err != nil {
		return nil, err
	}
	return func() error { <-b.done; return b.err }, nil
}

// Sync returns when everything queued before is on stable storage.
func (j *Journal) Sync() error {
	b, err := j.queueRecord(nil, true, false)
	if err != nil {
		return err
	}
	<-b.done
	return b.err
}

// Roll ends the current segment when everything queued before is durable: the
// next record begins a new one.
func (j *Journal) Roll() error {
	b, err := j.queueRecord(nil, true, true)
	if err != nil {
		return err
	}
	<-b.done
	return b.err
}

// Unsynced reports whether Sync has something to do.
func (j *Journal) Unsynced() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.unsynced
}

// Err returns why nothing can be written at the moment, or nil. It stays until
// a batch has succeeded.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Missing returns the number of the segment that grows if its file has lost its
// name: somebody removed or moved it, and no start will find the records in
// it. Roll begins another one.
func (j *Journal) Missing() (number uint32, missing bool) {
	s := j.growing()
	if s == nil {
		return 0, false
	}
	_, err := j.options.FS.Size(s.name)
	// It may have ended meanwhile, and then we removed it.
	return s.number, errors.Is(err, fs.ErrNotExist) && j.growing() == s
}

// growing returns the segment that records go to, or nil.
func (j *Journal) growing() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n := len(j.segments); n > 0 && !j.segments[n-1].done {
		return j.segments[n-1]
	}
	return nil
}

func newRecord(k Kind, parts ...[]byte) (*record, error) {
	if k < FirstKind {
		return nil, fmt.Errorf("journal: kind %d is reserved", k)
	}
	r := &record{kind: k}
	if len(parts) == 1 { // then the list of parts need not outlive the call
		r.one[0] = parts[0]
		r.parts = r.one[:]
	} else {
		r.parts = append([][]byte(nil), parts...)
	}
	var n int64
	for _, p := range parts {
		n += int64(len(p))
		r.sum = crc32.Update(r.sum, castagnoli, p)
	}

	// The checksum is computed here, in the goroutine of the caller, not in the flusher.
	if n > MaxRecord {
		return nil, errTooLarge
	}
	r.length = uint32(n)
	return r, nil
}

// queueRecord puts r, or a mere request to sync or roll, into the next batch.
func (j *Journal) queueRecord(r *record, sync, roll bool) (*batch, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil, ErrClosed
	}

	// Records queued while a batch is written are the next batch.
	b := j.next
	if r != nil {
		b.records = append(b.records, r)
	}
	b.sync = b.sync || sync
	b.roll = b.roll || roll
	j.unsynced = true

	// The flusher ends when nothing is queued, so that an idle journal has no goroutine.
	if !j.flushing {
		j.flushing = true
		j.flusher.Go(j.flushBatches)
	}
	return b, nil
}

// Close writes the queued records, seals the segment and closes the files. Open
// Readers stay valid.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.closed {
		j.mu.Unlock()
		return nil
	}
	j.closed = true
	j.mu.Unlock()
	j.flusher.Wait()

	// What a failed segment left behind gets one more chance.
	var err error
	if j.cur == nil && len(j.again) > 0 {
		err = j.writeBatch(&batch{sync: true})
	}

	// A Seal says that the segment ended in order.
	if j.cur != nil {
		if err = j.putRecords(nil, true, true); err != nil {
			j.cur = nil
		}
	}
	if err == nil && len(j.again) > 0 {
		err = j.cause
	}
	j.mu.Lock()
	// Files stay open as long as somebody reads them.
	segments := j.segments
	j.segments = nil
	j.mu.Unlock()
	for _, s := range segments {
		j.release(s)
	}
	return err
}
