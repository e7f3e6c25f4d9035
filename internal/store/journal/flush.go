package journal

import (
	"errors"
	"io/fs"
	"math"
	"runtime"
	"slices"
	"time"

	"go.uber.org/zap"
)

// flushBatches writes batches until none is queued.
func (j *Journal) flushBatches() {
	for {
		// A runnable goroutine may be about to queue a record: let it join this batch.
		// Where nobody is this costs nothing.
		runtime.Gosched()
		j.mu.Lock()
		b := j.next
		if len(b.records) == 0 && !b.sync {
			j.flushing = false
			j.mu.Unlock()
			return
		}
		j.next = newBatch()
		j.mu.Unlock()

		b.err = j.writeBatch(b)

		j.mu.Lock()
		j.err = b.err
		j.unsynced = len(j.again) > 0 || len(j.next.records) > 0
		j.mu.Unlock()
		close(b.done)
	}
}

// writeBatch makes a batch durable if somebody waits for it, and else only writes
// it. It returns the error of the last write.
func (j *Journal) writeBatch(b *batch) error {
	rest := b.records
	for {
		// After a failure the records that nobody waits for come first: they are older.
		if j.cur == nil {
			rest = append(j.again, rest...)
			j.again = nil
			if len(rest) == 0 && j.failures == 0 {
				return nil
			}
			if err := j.beginSegment(); err != nil {
				j.failRecords(rest, err)
				return err
			}
		}

		// A batch that does not fit is divided: its first part ends the segment, and is
		// synced with it.
		n, full := j.countFitting(rest)
		full = full || b.roll
		sync := b.sync || full || !j.cur.durable || len(j.again)+n > maxUnsynced
		err := j.putRecords(rest[:n], sync, full)
		if err != nil {
			j.abandon(err)
			j.failRecords(rest[:n], err)
		}

		// Records of a failed segment that nobody waits for are written to another one at
		// once.
		rest = rest[n:]
		if len(rest) == 0 && (err == nil || len(j.again) == 0) {
			return err
		}
	}
}

// countFitting returns how many of the records the current segment takes, and whether it
// is full then.
func (j *Journal) countFitting(records []*record) (n int, full bool) {
	end := j.cur.end
	for _, r := range records {
		end += frameSize(int64(r.length))
		if end+2*frameHeader > j.cur.space && (n > 0 || j.cur.end > headSize) {
			return n, true
		}
		n++
	}
	return n, false
}

// putRecords writes records and a Commit to the current segment, and a Seal if it is
// full.
func (j *Journal) putRecords(records []*record, sync, full bool) error {
	s := j.cur
	if len(records) == 0 && !full && s.durable && len(j.again) == 0 {
		return nil
	}

	// One write, and one sync if somebody waits. The name of a new segment is made durable
	// once.
	end := j.writer.writeRecords(s, records, full)
	err := j.writer.err
	if err == nil && sync {
		began := time.Now()
		err = s.file.Sync()
		if j.options.Synced != nil {
			j.options.Synced(len(j.again)+len(records), time.Since(began), err)
		}
	}
	if err == nil && !s.durable {
		err = j.options.FS.SyncDir(j.options.Dir)
	}
	if err != nil {
		return err
	}

	// Only what was written counts; what was not synced is kept until it is, to be written
	// again elsewhere.
	s.end = end
	j.failures = 0
	if sync {
		s.durable = true
		j.again = nil
	} else {
		j.again = append(j.again, records...)
	}
	if full {
		j.finish()
	}
	return nil
}

// failRecords answers the waiters, and keeps the other records for the next segment.
func (j *Journal) failRecords(records []*record, err error) {
	for _, r := range records {
		if r.wait {
			r.err = err
		} else {
			j.again = append(j.again, r)
		}
	}
}

// beginSegment makes a new segment the current one. After failures in a row it does so
// only once in a while.
func (j *Journal) beginSegment() error {
	now := j.options.Now()
	if j.failures > 1 && now.Sub(j.failed) < j.options.Retry {
		return j.cause
	}
	for {
		// A file that has the number stays as it is: the next one is tried.
		var s *segment
		err := errNumbers
		if j.last < math.MaxUint32 {
			j.last++
			s, err = create(j.options.FS, j.options.Dir, j.last, j.options.SegmentSize, now)
		}
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		// The error stands for the next attempts, until it is time for another.
		if err != nil {
			j.failures++
			j.failed, j.cause = now, err
			return err
		}
		j.cur = s
		j.mu.Lock()
		j.segments = append(j.segments, s)
		j.mu.Unlock()
		return nil
	}
}

// abandon gives the current segment up after a failed write or sync.
func (j *Journal) abandon(err error) {
	s := j.cur
	j.failures++
	j.failed, j.cause = j.options.Now(), err
	j.options.Log.Error("journal: segment abandoned", zap.String("segment", s.name), zap.Error(err))
	j.finish()
	if s.durable {
		return
	}
	// Nothing in it was ever acknowledged.
	if err := j.options.FS.Remove(s.name); err != nil {
		return
	}
	j.mu.Lock()
	j.segments = slices.DeleteFunc(j.segments, func(o *segment) bool { return o == s })
	j.mu.Unlock()
	j.release(s)
}

// finish ends the current segment.
func (j *Journal) finish() {
	j.mu.Lock()
	j.cur.done = true
	j.mu.Unlock()
	j.cur = nil
}
