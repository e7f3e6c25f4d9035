package queue

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/journal"
	"tarishi/internal/mail"
	"tarishi/internal/spool"
)

// recovery is the state of Open while it puts journal and spool together.
type recovery struct {
	q     *Queue
	files map[mail.ID]*leftover // messages with files
	moved int                   // what went to corrupt/
}

// leftover is a message that has files.
type leftover struct {
	size int64 // of the content; -1: none
	bad  error // why its files are no message; nil: they are one
	keep bool  // a newer program's: do not touch
	done bool  // the journal says that it is finished
}

// recover fills the index. The spool is read first; the journal, which is the
// truth about what changed lately, is replayed over it. Nothing but a folder
// that cannot be listed is an error.
func (q *Queue) recover() error {
	began := time.Now()
	r := &recovery{q: q, files: map[mail.ID]*leftover{}}
	r.readSpool()
	j, found, err := journal.Open(journal.Options{
		FS: q.fs, Dir: q.journalDir(), SegmentSize: q.o.SegmentSize, Log: q.log, Now: q.o.Now,
	}, journal.Visitor{Record: r.replay, Damage: func(d journal.Damage) {
		if err := q.damaged(d); err != nil {
			q.log.Error("queue: damaged range is not preserved", zap.Error(err))
		}
	}})
	if err != nil {
		return err
	}
	q.journal = j
	r.settle()
	q.log.Info("queue: recovered",
		zap.Int("messages", len(q.index.entries)), zap.Int("recipients", q.index.recipients),
		zap.Int64("bytes", q.index.bytes), zap.Int("segments", found.Segments), zap.Int("records", found.Records),
		zap.Int64("cut", found.Cut), zap.Int("damaged", found.Damages), zap.Int("corrupt", r.moved),
		zap.Duration("time", time.Since(began)))
	return nil
}

// readSpool makes entries of all messages whose two files are good.
func (r *recovery) readSpool() {
	q := r.q
	var states []mail.ID
	q.spool.Walk(func(f spool.Found) {
		l := &leftover{size: f.Size}
		r.files[f.ID] = l
		switch {
		case f.State:
			states = append(states, f.ID)
		default:
			l.bad = errors.New("no state file belongs to it")
		}
	}, func(dir string, err error) {
		q.log.Error("queue: folder cannot be read", zap.String("folder", dir), zap.Error(err))
	})
	work := make(chan mail.ID)
	var wg sync.WaitGroup
	for range min(2*runtime.GOMAXPROCS(0), len(states)) {
		wg.Go(func() {
			for id := range work {
				st, err := q.spool.LoadState(id)
				q.mu.Lock()
				r.add(id, r.files[id], st, err)
				q.mu.Unlock()
			}
		})
	}
	for _, id := range states {
		work <- id
	}
	close(work)
	wg.Wait()
}

// add makes an entry of a state file. Caller holds q.mu.
func (r *recovery) add(id mail.ID, l *leftover, st *spool.State, err error) {
	switch {
	case errors.Is(err, spool.ErrVersion), err != nil && !errors.Is(err, spool.ErrDamaged) && !errors.Is(err, fs.ErrNotExist):
		// Not damaged, only out of our reach now.
		r.q.log.Error("queue: message left alone", zap.String("uuid", string(id)), zap.Error(err))
		l.bad, l.keep = err, true
	case err != nil:
		l.bad = err
	case l.size != st.Size:
		l.bad = fmt.Errorf("the content should have %d bytes and has %d (-1: there is none)", st.Size, l.size)
	default:
		e := newEntry(len(st.Recipients), st.Size)
		for i, s := range st.Recipients {
			if s.Status == spool.Settled {
				e.settle(i)
				continue
			}
			to := e.state(i)
			to.attempts, to.last = int32(s.Attempts), r.q.index.texts.intern(clip(s.Last))
			if s.Next != nil {
				to.next = millis(*s.Next)
			}
		}
		if e.left == 0 {
			l.done = true
			return
		}
		r.q.index.add(id, e)
	}
}

// replay applies one record.
func (r *recovery) replay(rec journal.Record) {
	q := r.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if rec.Kind == kindMessage {
		m, err := decodeMessage(rec.Payload, int64(len(rec.Payload)))
		if err != nil {
			r.odd(rec)
			return
		}
		r.message(m, rec.Location)
		return
	}
	c, err := decodeChange(rec.Kind, rec.Payload)
	if err != nil {
		r.odd(rec)
		return
	}
	k, e := q.index.find(c.id)
	if rec.Kind == kindDone {
		if l := r.files[c.id]; l != nil {
			l.done = true
		}
		if e != nil {
			q.index.remove(k)
			q.forget(e.loc)
		}
		return
	}
	if e == nil {
		return
	}
	for _, i := range c.recipients {
		if i >= e.recipients() {
			continue
		}
		s := e.state(i)
		switch {
		case rec.Kind == kindSettled && e.settle(i):
			q.index.recipients--
		// The spool may know of a later attempt whose record was lost.
		case rec.Kind == kindDeferred && !s.settled && c.attempts >= int(s.attempts):
			*s = state{last: q.index.texts.intern(c.last), next: c.next, attempts: int32(c.attempts)}
		}
	}
	e.flags |= stale
}

func (r *recovery) message(m message, loc journal.Location) {
	q := r.q
	if _, e := q.index.find(m.id); e != nil {
		return // it was spilled
	}
	e := newEntry(m.recipients, m.size)
	e.loc = loc
	if m.spooled {
		e.flags |= large
	}
	if l := r.files[m.id]; l != nil {
		e.flags |= files
		l.done = false
	}
	q.index.add(m.id, e)
	q.need(loc)
}

// odd is for records that are whole and make no sense.
func (r *recovery) odd(rec journal.Record) {
	if err := r.q.preserve(rec); err != nil {
		r.q.log.Error("queue: record is not preserved", zap.Error(err))
	}
	r.moved++
}

// settle decides about what is left: files of finished messages, files without a
// message, records without their content.
func (r *recovery) settle() {
	q := r.q
	for id, l := range r.files {
		q.mu.Lock()
		_, e := q.index.find(id)
		if e == nil && l.done {
			q.trash = append(q.trash, id)
		}
		q.mu.Unlock()
		if e != nil || l.done || l.keep {
			continue
		}
		r.moved++
		q.log.Error("queue: files go to corrupt/", zap.String("uuid", string(id)), zap.Error(l.bad))
		if err := q.spool.Quarantine(id, l.bad.Error()); err != nil {
			q.log.Error("queue: files stay", zap.String("uuid", string(id)), zap.Error(err))
		}
	}
	type lost struct {
		id mail.ID
		at entry
	}
	var missing []lost
	q.mu.Lock()
	for k, e := range q.index.entries {
		if id := q.index.id(k); !e.spooled() && e.is(large) && (r.files[id] == nil || r.files[id].size != e.size) {
			missing = append(missing, lost{id, *e})
		} else if e.left == 0 {
			q.finish(k, e, id)
		}
	}
	q.mu.Unlock()
	for _, m := range missing {
		r.moved++
		if err := q.condemn(m.id, m.at, errors.New("the content's file is missing or has another size")); err != nil {
			q.log.Error("queue: message cannot be read", zap.String("uuid", string(m.id)), zap.Error(err))
		}
	}
}

// damaged preserves a range of the journal that cannot be read.
func (q *Queue) damaged(d journal.Damage) error {
	q.log.Error("queue: journal is damaged", zap.Uint32("segment", d.Segment), zap.Int64("offset", d.Offset),
		zap.Int64("length", d.Length), zap.String("reason", d.Reason))
	return q.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", d.Segment, d.Offset, d.Length), d.Reason, d.Data)
}

// preserve keeps a record that makes no sense.
func (q *Queue) preserve(r journal.Record) error {
	q.log.Error("queue: malformed record", zap.Uint32("segment", r.Location.Segment), zap.Uint32("offset", r.Location.Offset))
	return q.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", r.Location.Segment, r.Location.Offset, r.Location.Length),
		errRecord.Error(), bytes.NewReader(r.Payload))
}
