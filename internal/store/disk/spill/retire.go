package spill

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/catalog"
	"tarishi/internal/store/disk/quarantine"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
)

// oldest returns the oldest segment if nothing is written to it any more and it can be
// read.
func (s *Spiller) oldest() (journal.Info, bool) {
	list := s.journal.Segments()
	if len(list) == 0 || !list[0].Done || list[0].Unread {
		return journal.Info{}, false
	}
	return list[0], true
}

// retirable returns the oldest segment if it is time for it.
func (s *Spiller) retirable() (journal.Info, bool) {
	oldest, ok := s.oldest()
	if !ok {
		return oldest, false
	}
	excess, segments := s.Excess()
	live := s.catalog.SegmentShare(oldest.Number)
	age := s.options.Now().Sub(oldest.Created)
	return oldest, live.Messages == 0 || age > OldSegment || oldest.Number <= s.orphan.Load() || age > youngSegment && live.Bytes < oldest.Size/4 ||
		excess > s.options.Limits.Rest+s.pace.busy*(s.options.Limits.Busy-s.options.Limits.Rest) || segments > s.options.Limits.Long
}

// spareSegments removes the oldest segments as long as nothing needs them. It is for a journal
// that cannot be written, perhaps for want of the very space that they take. A message
// may be settled only in memory: when the message goes with the segment
// nobody will miss that. Files of finished messages still need the record that they
// are, so nothing happens while there are any.
func (s *Spiller) spareSegments() {
	for {
		oldest, ok := s.oldest()
		if !ok || oldest.Unreadable || s.catalog.SegmentShare(oldest.Number).Messages > 0 || s.catalog.TrashSize() > 0 {
			return
		}
		if need, err := s.needed(oldest.Number); err != nil || len(need) > 0 {
			return
		}
		if err := s.journal.Remove(oldest.Number); err != nil {
			s.log.Error("queue: segment stays", zap.Uint32("segment", oldest.Number), zap.Error(err))
			return
		}
	}
}

// Retire removes the oldest segment after everything in it that is needed is in the
// spool. Caller is in Exclusive, or holds s.working.
func (s *Spiller) Retire(ctx context.Context, number uint32) error {
	need, err := s.needed(number)
	if err != nil {
		return err
	}
	if err := s.affords(number, need); err != nil {
		return err
	}
	if err := s.spillMessages(ctx, need); err != nil {
		return err
	}

	// Records that were damaged after they were written were not found above. What
	// can still be read of them is spilled too, and the rest goes to corrupt/.
	stranded := s.catalog.InSegment(number)
	if err := s.spillMessages(ctx, stranded); err != nil {
		return err
	}

	// Only now may the segment go, with the last that was known of finished messages.
	if err := s.catalog.EmptyTrash(); err != nil {
		if e := s.catalog.RepeatDone(); e != nil {
			return errors.Join(err, e)
		}
		s.log.Error("queue: files of finished messages stay", zap.Error(err))
	}
	if err := s.keepUnreadable(number, stranded); err != nil {
		return err
	}
	if err := s.spool.Sync(); err != nil {
		return err
	}
	return s.journal.Remove(number)
}

// affords returns an error if there is no room for the files of all messages that a
// segment holds: those of half of them would take space and give none back. The second
// half of the floor is touched only for what soon gives back more.
func (s *Spiller) affords(number uint32, ids []mail.ID) error {
	bytes, inodes := s.catalog.Demand(ids)
	free, err := s.options.Floor.Free()
	if err != nil || inodes == 0 {
		return nil
	}
	if bytes < s.segment(number).Space && bytes <= free.Bytes/2 {
		bytes = 0
	}
	return s.options.Floor.Affords(free, bytes, inodes)
}

// segment describes a segment.
func (s *Spiller) segment(number uint32) journal.Info {
	for _, info := range s.journal.Segments() {
		if info.Number == number {
			return info
		}
	}
	return journal.Info{}
}

// keepUnreadable moves a segment to corrupt/ that the disk did not give whole: it may
// do so another day. Messages that live on, though a scan has not found their records,
// are not to be brought back from there.
func (s *Spiller) keepUnreadable(number uint32, stranded []mail.ID) error {
	if !s.segment(number).Unreadable {
		return nil
	}

	// The whole segment is kept, with messages that are alive: a list says that those are
	// not wanted twice.
	var here quarantine.Settled
	for _, id := range stranded {
		if !s.spool.Kept(string(id) + ".record") {
			here.AddRecipients(id, nil)
		}
	}
	if err := s.catalog.KeepSettled(&here, quarantine.SettledName, "messages that are in the queue, or were"); err != nil {
		return err
	}
	err := s.spool.Keep(s.journal.Name(number), "blocks of it could not be read")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// needed returns the messages that a segment holds or knows more about than the spool
// does. Damage in it is preserved.
func (s *Spiller) needed(number uint32) ([]mail.ID, error) {
	need := map[mail.ID]bool{}
	var failed error

	// A record that makes no sense is set aside, and keeps the segment from going until it
	// is.
	visit := func(r journal.Record) {
		id, err := messageOf(r)
		if err != nil {
			failed = errors.Join(failed, s.catalog.PreserveRecord(r))
			return
		}
		needed, err := s.catalog.IsNeeded(id, r.Location)
		switch {
		case err != nil:
			failed = err
		case needed:
			need[id] = true
		}
	}

	// The scan itself finds damage between the records.
	err := s.journal.Scan(number, journal.Visitor{Record: visit, Damage: func(d journal.Damage) {
		failed = errors.Join(failed, s.catalog.PreserveDamage(d))
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

// messageOf returns the ID of the message that a record is about.
func messageOf(r journal.Record) (mail.ID, error) {
	if r.Kind == record.KindMessage {
		m, err := record.DecodeMessage(r.Payload, int64(len(r.Payload)))
		return m.ID, err
	}
	c, err := record.DecodeChange(r.Kind, r.Payload)
	return c.ID, err
}

// spillMessages writes the files of messages and, when those are durable, notes that the
// journal is not needed for them any more. It does so in batches. Between two it gives
// s.working, which the caller holds, away for a while if others need the disk, and
// stops when ctx ends.
func (s *Spiller) spillMessages(ctx context.Context, ids []mail.ID) error {
	var errs []error
	for len(ids) > 0 {
		part := ids[:min(len(ids), spillBatch)]
		ids = ids[len(part):]
		start := time.Now()
		errs = append(errs, s.spillTogether(part))
		if len(ids) == 0 {
			break
		}
		s.pace.measure(s.options.Now(), s.accepted.Load())
		s.yieldDisk(ctx, s.pauseAfter(time.Since(start)))
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

// yieldDisk rests.
func (s *Spiller) yieldDisk(ctx context.Context, pause time.Duration) {
	s.working.Unlock()
	if pause > 0 {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-s.hurry:
		}
		t.Stop()
	}
	s.working.Lock()
	if ctx.Err() == nil {
		s.syncAndTidy()
	}
}

// spillTogether spills messages as one batch.
func (s *Spiller) spillTogether(ids []mail.ID) error {
	var (
		mu      sync.Mutex
		written []catalog.Written
		errs    []error
		wg      sync.WaitGroup
		work    = make(chan mail.ID)
		batch   = s.spool.Batch(len(ids) <= s.options.Few)
	)

	// A few files at a time: their syncs share a commit of the file system.
	for range min(spillers, len(ids)) {
		wg.Go(func() {
			for id := range work {
				w, ok, err := s.catalog.WriteFiles(batch, id)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", id, err))
				} else if ok {
					written = append(written, w)
				}
				mu.Unlock()
			}
		})
	}

	// The channel has no buffer: a message is handed to a spiller that is free.
	for _, id := range ids {
		work <- id
	}
	close(work)
	wg.Wait()

	// Before the commit nothing of it is durable, and after a failed one anything may
	// be.
	if err := batch.Commit(); err != nil {
		s.catalog.NotSpilled(written)
		return errors.Join(append(errs, err)...)
	}
	s.catalog.Spilled(written)
	for _, w := range written {
		s.credit.Add(int64(w.Loc.Length))
	}
	s.retired.Broadcast()
	return errors.Join(errs...)
}
