package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/journal"
	"tarishi/internal/mail"
	"tarishi/internal/spool"
)

// When the oldest segment is retired though it holds live mail.
const (
	keepSegments = 4                // there are more full ones than this
	oldSegment   = 10 * time.Minute // it is older than this
	youngSegment = time.Minute      // it is older than this and 3/4 of it are dead
	retirePause  = 30 * time.Second // after a failure
	tick         = time.Second
	spillers     = 8 // files written at a time: their syncs share a commit of the file system
)

// Run does the work in the background until ctx ends: it syncs what Settle and
// Defer wrote, removes the files of finished messages, retires segments, and
// tries a journal that failed again. Messages are safe without it, disk space is
// not given back.
func (q *Queue) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
			q.maintain(ctx)
		}
	}
}

func (q *Queue) maintain(ctx context.Context) {
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	if q.journal.Unsynced() || q.journal.Err() != nil {
		if err := q.journal.Sync(); err != nil {
			q.log.Error("queue: journal cannot be written", zap.Error(err))
			return
		}
	}
	if err := q.emptyTrash(); err != nil {
		q.log.Error("queue: files of finished messages stay", zap.Error(err))
	}
	for ctx.Err() == nil && !q.o.Now().Before(q.retireAfter) {
		s, ok := q.retirable()
		if !ok {
			return
		}
		err := q.retire(s.Number)
		if errors.Is(err, errArriving) {
			return
		}
		if err != nil {
			q.retireAfter = q.o.Now().Add(retirePause)
			q.log.Error("queue: segment stays", zap.Uint32("segment", s.Number), zap.Error(err))
		}
	}
}

// retirable returns the oldest segment if it is time for it.
func (q *Queue) retirable() (journal.Info, bool) {
	list := q.journal.Segments()
	if len(list) == 0 || !list[0].Done {
		return journal.Info{}, false
	}
	full := 0
	for _, s := range list {
		if s.Done {
			full++
		}
	}
	s := list[0]
	q.mu.Lock()
	live := q.shares[s.Number]
	q.mu.Unlock()
	age := q.o.Now().Sub(s.Created)
	return s, live.messages == 0 || full > keepSegments || age > oldSegment ||
		age > youngSegment && live.bytes < s.Size/4
}

// errArriving says that a Put has not returned yet whose record is in the
// segment.
var errArriving = errors.New("message is arriving")

// retire removes the oldest segment after everything in it that is needed is in
// the spool.
func (q *Queue) retire(number uint32) error {
	need, err := q.needed(number)
	if err != nil {
		return err
	}
	if err := q.spill(need); err != nil {
		return err
	}
	q.mu.Lock()
	left := q.shares[number].messages
	q.mu.Unlock()
	if left > 0 {
		q.bury(number)
	}
	if err := q.emptyTrash(); err != nil {
		return err
	}
	if err := q.spool.Sync(); err != nil {
		return err
	}
	return q.journal.Remove(number)
}

// needed returns the messages that a segment holds or knows more about than the
// spool does. Damage in it is preserved.
func (q *Queue) needed(number uint32) ([]mail.ID, error) {
	need := map[mail.ID]bool{}
	var failed error
	visit := func(r journal.Record) {
		var id mail.ID
		if r.Kind == kindMessage {
			m, err := decodeMessage(r.Payload, int64(len(r.Payload)))
			if err != nil {
				failed = errors.Join(failed, q.preserve(r))
				return
			}
			id = m.id
		} else {
			c, err := decodeChange(r.Kind, r.Payload)
			if err != nil {
				failed = errors.Join(failed, q.preserve(r))
				return
			}
			id = c.id
		}
		q.mu.Lock()
		defer q.mu.Unlock()
		_, e := q.index.find(id)
		switch {
		case e == nil:
		case e.is(arriving):
			failed = errArriving
		case e.loc == r.Location, e.spooled() && e.is(stale):
			need[id] = true
		}
	}
	err := q.journal.Scan(number, journal.Visitor{Record: visit, Damage: func(d journal.Damage) {
		failed = errors.Join(failed, q.damaged(d))
	}})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	ids := make([]mail.ID, 0, len(need))
	for id := range need {
		ids = append(ids, id)
	}
	return ids, nil
}

// bury gives up the messages that a segment should hold and does not: their
// records were damaged after they were written, and what is left of them is in
// corrupt/.
func (q *Queue) bury(number uint32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for k, e := range q.index.entries {
		if e.loc.Segment == number && !e.is(arriving) {
			id := q.index.id(k)
			q.log.Error("queue: message lost in a damaged segment", zap.String("uuid", string(id)), zap.Uint32("segment", number))
			q.finish(k, e, id)
		}
	}
}

// spill writes the files of messages and, when those are durable, notes that
// the journal is not needed for them any more.
func (q *Queue) spill(ids []mail.ID) error {
	type result struct {
		id  mail.ID
		loc journal.Location
	}
	var (
		mu      sync.Mutex
		written []result
		errs    []error
		wg      sync.WaitGroup
		work    = make(chan mail.ID)
	)
	for range min(spillers, len(ids)) {
		wg.Go(func() {
			for id := range work {
				loc, err := q.write(id)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", id, err))
				} else {
					written = append(written, result{id, loc})
				}
				mu.Unlock()
			}
		})
	}
	for _, id := range ids {
		work <- id
	}
	close(work)
	wg.Wait()
	if err := q.spool.Sync(); err != nil {
		for _, r := range written {
			q.outdateAgain(r.id)
		}
		return errors.Join(append(errs, err)...)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range written {
		switch _, e := q.index.find(r.id); {
		case e == nil: // settled meanwhile
			q.trash = append(q.trash, r.id)
		case e.loc == r.loc && !e.spooled():
			q.forget(e.loc)
			e.loc = journal.Location{}
			e.flags &^= large | files
		}
	}
	return errors.Join(errs...)
}

// outdateAgain undoes that a message's state file was thought to be durable.
func (q *Queue) outdateAgain(id mail.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, e := q.index.find(id); e != nil {
		e.flags |= stale
	}
}

// write writes a message's files. It returns where in the journal it took the
// message from. A message that is gone, or whose files say all, is left alone.
func (q *Queue) write(id mail.ID) (journal.Location, error) {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	q.mu.Lock()
	_, e := q.index.find(id)
	if e == nil || e.spooled() && !e.is(stale) {
		q.mu.Unlock()
		return journal.Location{}, nil
	}
	at, states := *e, e.states()
	e.flags &^= stale // from here on changes make it stale again
	q.mu.Unlock()

	err := q.writeFiles(id, at, states)
	if err == nil {
		return at.loc, nil
	}
	if errors.Is(err, errDamaged) || errors.Is(err, spool.ErrDamaged) || errors.Is(err, fs.ErrNotExist) {
		return journal.Location{}, q.condemn(id, at, err)
	}
	q.outdateAgain(id)
	return journal.Location{}, err
}

func (q *Queue) writeFiles(id mail.ID, at entry, states []state) error {
	env, err := q.envelope(id, at.loc)
	if err != nil {
		return err
	}
	if !at.spooled() && !at.is(large) {
		if err := q.spool.WriteContent(id, placed{q, id, at}); err != nil {
			return err
		}
	}
	st := &spool.State{Size: at.size, Envelope: env, Recipients: make([]spool.Recipient, len(states))}
	for i := range states {
		st.Recipients[i] = states[i].document()
	}
	return q.spool.WriteState(st)
}

// condemn moves a message that can never be read out of the way.
func (q *Queue) condemn(id mail.ID, at entry, cause error) error {
	if at.loc.Segment != 0 {
		r, err := q.journal.Open(at.loc)
		if err != nil {
			return err
		}
		err = q.spool.Preserve(string(id)+".record", cause.Error(), newReader(r, 0, r.Size(), func() {}))
		r.Close()
		if err != nil {
			return err
		}
	}
	if err := q.spool.Quarantine(id, cause.Error()); err != nil {
		return err
	}
	q.log.Error("queue: message cannot be read and is in corrupt/", zap.String("uuid", string(id)), zap.Error(cause))
	q.mu.Lock()
	defer q.mu.Unlock()
	if k, e := q.index.find(id); e != nil {
		q.index.remove(k)
		q.forget(e.loc)
	}
	return nil
}

// emptyTrash removes the files of finished messages, after the record that they
// are finished is durable.
func (q *Queue) emptyTrash() error {
	q.mu.Lock()
	ids := q.trash
	q.trash = nil
	q.mu.Unlock()
	err := q.journal.Sync()
	for i, id := range ids {
		if err == nil {
			err = q.discard(id)
		}
		if err != nil {
			q.mu.Lock()
			q.trash = append(q.trash, ids[i:]...)
			q.mu.Unlock()
			break
		}
	}
	return err
}

func (q *Queue) discard(id mail.ID) error {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	q.mu.Lock()
	_, e := q.index.find(id)
	q.mu.Unlock()
	if e != nil {
		return nil // the same ID came again
	}
	return q.spool.Remove(id)
}
