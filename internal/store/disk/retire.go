package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// limits is how long the journal may be, in segments. Excess is what its files
// take beyond the messages in it that are live.
type limits struct {
	rest  float64 // excess beyond which the oldest is retired while no mail comes,
	busy  float64 // and while much does
	most  float64 // excess from which on Put waits
	long  int     // segments beyond which the oldest is retired though all are live,
	limit int     // and from which on Put waits
}

var defaultLimits = limits{rest: 2, busy: 8, most: 32, long: 40, limit: 64}

// When else the oldest segment is retired though it holds live mail.
const (
	oldSegment   = 10 * time.Minute // it is older than this
	youngSegment = time.Minute      // it is older than this and 3/4 of it are dead
	retirePause  = 30 * time.Second // after a failure
	tick         = time.Second
	spillers     = 8 // files written at a time: where each is synced, syncs share a commit of the file system
	fewFiles     = 8 // messages up to which files are synced one by one
	spillBatch   = 512

	// A spill costs the disk what some Puts cost. While this many messages are
	// accepted per second, spillers rest this many times as long as they work.
	busyRate   = 500
	spillPause = 8
)

// Run does the work in the background until ctx ends: it syncs what Settle and
// Defer wrote, removes the files of finished messages, retires segments, and
// tries a journal that failed again. Messages are safe without it, disk space is
// not given back.
func (q *Store) Run(ctx context.Context) error {
	t := time.NewTicker(tick)
	defer t.Stop()
	q.run(true)
	defer q.run(false)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		case <-q.hurry:
		}
		q.maintain(ctx)
	}
}

func (q *Store) run(on bool) {
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	q.running = on
	q.retired.Broadcast()
}

func (q *Store) maintain(ctx context.Context) {
	if q.look {
		return
	}
	_ = q.Healthy() // notices a journal that was removed; who accepts mail is told
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	defer func() {
		q.rounds++
		q.retired.Broadcast()
	}()
	if !q.tidy() {
		q.spare()
		return
	}
	q.measure()
	if !q.retiring { // else another call does, which has yielded
		q.retireDue(ctx, func() bool { return true })
	}
}

// retireDue retires segments for which it is time, as long as more says so.
// Caller holds q.maintaining.
func (q *Store) retireDue(ctx context.Context, more func() bool) {
	q.retiring = true
	defer func() {
		q.retiring = false
		q.retired.Broadcast()
	}()
	for ctx.Err() == nil && !q.o.Now().Before(q.retireAfter) && more() {
		s, ok := q.retirable()
		if !ok {
			return
		}
		err := q.retire(ctx, s.Number)
		if errors.Is(err, errArriving) || ctx.Err() != nil {
			return
		}
		if err != nil {
			q.retireAfter = q.o.Now().Add(retirePause)
			q.log.Error("queue: segment stays", zap.Uint32("segment", s.Number), zap.Error(err))
		}
		q.retired.Broadcast()
	}
}

// begun is told of the segment of each new message: with a new segment the
// journal may have become too long.
func (q *Store) begun(segment uint32) {
	if q.youngest.Swap(segment) != segment && q.full() >= 1 {
		q.credit.Store(0)
		q.crowded.Store(true)
	}
}

// admit lets a Put of n bytes wait while the journal is too long: until as much
// was moved out of it, or it cannot be given room.
func (q *Store) admit(n int64) {
	if q.crowded.Load() && q.credit.Add(-n) < 0 {
		q.relieve()
	}
}

func (q *Store) relieve() {
	tooLong := func() bool { return q.full() >= 1 }
	tried := false
	q.maintaining.Lock()
	defer q.maintaining.Unlock()
	for q.crowded.Load() && q.credit.Load() < 0 {
		switch {
		case !tooLong():
			q.crowded.Store(false)
		case q.retiring:
			q.urge()
			q.retired.Wait()
		case tried: // it has failed, or somebody is just arriving: the next segment asks again
			q.crowded.Store(false)
		case q.running:
			q.urge()
			for round := q.rounds; q.running && !q.retiring && q.rounds == round; {
				q.retired.Wait()
			}
			tried = !q.retiring
		default:
			q.retireDue(context.Background(), tooLong)
			tried = true
		}
	}
}

// urge wakes whoever spills, or should.
func (q *Store) urge() {
	select {
	case q.hurry <- struct{}{}:
	default:
	}
}

// excess is what the journal's files take beyond the live messages in it, in
// segments, and how many files there are.
func (q *Store) excess() (excess float64, segments int) {
	list := q.journal.Segments()
	var space int64
	for _, s := range list {
		space += s.Space
	}
	q.mu.Lock()
	for _, s := range q.shares {
		space -= s.bytes
	}
	q.mu.Unlock()
	return float64(space) / float64(q.journal.SegmentSize()), len(list)
}

// full is how near the journal is to its limits; from 1 on it is beyond.
func (q *Store) full() float64 {
	excess, segments := q.excess()
	return max(excess/q.limits.most, float64(segments)/float64(q.limits.limit))
}

// measure finds out how busy the queue is, from time to time.
func (q *Store) measure() {
	now, accepted := q.o.Now(), q.accepted.Load()
	took := now.Sub(q.measured)
	if took >= 0 && took < tick/20 {
		return
	}
	if !q.measured.IsZero() && took > 0 {
		q.busy = min(1, float64(accepted-q.before)/took.Seconds()/busyRate)
	}
	q.measured, q.before = now, accepted
}

// tidy syncs what Settle and Defer wrote, and removes the files of finished
// messages; false: the journal cannot be written.
func (q *Store) tidy() bool {
	if q.journal.Unsynced() || q.journal.Err() != nil {
		if err := q.journal.Sync(); err != nil {
			if now := q.o.Now(); q.complained.IsZero() || now.Sub(q.complained) >= time.Minute {
				q.complained = now
				q.log.Error("queue: journal cannot be written, it is tried again every second", zap.Error(err))
			}
			return false
		}
	}
	if !q.complained.IsZero() {
		q.complained = time.Time{}
		q.log.Info("queue: journal can be written again")
	}
	if err := q.emptyTrash(); err != nil {
		q.log.Error("queue: files of finished messages stay", zap.Error(err))
	}
	return true
}

// spare removes the oldest segments as long as nothing needs them. It is for a
// journal that cannot be written, perhaps for want of the very space that they
// take. What is settled there may be so only in memory: when the message goes
// with the segment nobody will miss that. Files of finished messages still need
// the record that they are, so nothing happens while there are any.
func (q *Store) spare() {
	for {
		list := q.journal.Segments()
		if len(list) == 0 || !list[0].Done || list[0].Unread {
			return
		}
		number := list[0].Number
		q.mu.Lock()
		busy := q.shares[number].messages > 0 || len(q.trash) > 0 || list[0].Unreadable
		q.mu.Unlock()
		if busy {
			return
		}
		if need, err := q.needed(number); err != nil || len(need) > 0 {
			return
		}
		if err := q.journal.Remove(number); err != nil {
			q.log.Error("queue: segment stays", zap.Uint32("segment", number), zap.Error(err))
			return
		}
	}
}

// retirable returns the oldest segment if it is time for it.
func (q *Store) retirable() (journal.Info, bool) {
	list := q.journal.Segments()
	if len(list) == 0 || !list[0].Done || list[0].Unread {
		return journal.Info{}, false
	}
	excess, segments := q.excess()
	s := list[0]
	q.mu.Lock()
	live := q.shares[s.Number]
	q.mu.Unlock()
	age := q.o.Now().Sub(s.Created)
	return s, live.messages == 0 || age > oldSegment || s.Number <= q.orphan.Load() || age > youngSegment && live.bytes < s.Size/4 ||
		excess > q.limits.rest+q.busy*(q.limits.busy-q.limits.rest) || segments > q.limits.long
}

// errArriving says that a Put has not returned yet whose record is in the
// segment.
var errArriving = errors.New("message is arriving")

// retire removes the oldest segment after everything in it that is needed is in
// the spool.
func (q *Store) retire(ctx context.Context, number uint32) error {
	need, err := q.needed(number)
	if err != nil {
		return err
	}
	if err := q.affords(number, need); err != nil {
		return err
	}
	if err := q.spill(ctx, need); err != nil {
		return err
	}
	stranded := q.stranded(number)
	if err := q.spill(ctx, stranded); err != nil {
		return err
	}
	if err := q.emptyTrash(); err != nil {
		if e := q.repeatDone(); e != nil {
			return errors.Join(err, e)
		}
		q.log.Error("queue: files of finished messages stay", zap.Error(err))
	}
	if err := q.keepUnreadable(number, stranded); err != nil {
		return err
	}
	if err := q.spool.Sync(); err != nil {
		return err
	}
	return q.journal.Remove(number)
}

// affords returns an error if there is no room for the files of all messages that a
// segment holds: those of half of them would take space and give none back. What
// tight keeps is touched only for what soon gives back more.
func (q *Store) affords(number uint32, ids []mail.ID) error {
	const block = 4096 // bytes that a file is rounded up to
	var bytes, inodes int64
	q.mu.Lock()
	for _, id := range ids {
		_, e := q.index.find(id)
		if e == nil || e.spooled() {
			continue
		}
		inodes++
		bytes += block
		if !e.is(large) {
			inodes++
			bytes += e.size + block
		}
	}
	q.mu.Unlock()
	s, err := q.fs.Free(q.o.Dir)
	if err != nil || inodes == 0 {
		return nil
	}
	if bytes >= q.segment(number).Space || bytes > s.Bytes/2 {
		err = q.lackBytes(s, bytes, 2)
	}
	return cmp.Or(err, q.lackInodes(s, inodes, 2))
}

// segment describes a segment.
func (q *Store) segment(number uint32) journal.Info {
	for _, s := range q.journal.Segments() {
		if s.Number == number {
			return s
		}
	}
	return journal.Info{}
}

// keepUnreadable moves a segment to corrupt/ of which the disk did not give all:
// it may do so another day. Messages whose records a scan has not found, and which
// live on all the same, are not to be brought back from there.
func (q *Store) keepUnreadable(number uint32, stranded []mail.ID) error {
	if !q.segment(number).Unreadable {
		return nil
	}
	var o orphans
	for _, id := range stranded {
		if !q.spool.Kept(string(id) + ".record") {
			o.add(id, nil)
		}
	}
	if err := q.keepOrphans(&o, extSettled, "messages that are in the queue, or were"); err != nil {
		return err
	}
	err := q.spool.Keep(q.journal.Name(number), "blocks of it could not be read")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// needed returns the messages that a segment holds or knows more about than the
// spool does. Damage in it is preserved.
func (q *Store) needed(number uint32) ([]mail.ID, error) {
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

// stranded returns the messages that a segment should hold and does not: their
// records were damaged after they were written. What can still be read of them
// is spilled all the same, and the rest goes to corrupt/.
func (q *Store) stranded(number uint32) (ids []mail.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.shares[number].messages == 0 {
		return nil
	}
	for k, e := range q.index.entries {
		if e.loc.Segment == number {
			ids = append(ids, q.index.id(k))
		}
	}
	return ids
}

// spill writes the files of messages and, when those are durable, notes that
// the journal is not needed for them any more. It does so in batches. Between two
// it gives q.maintaining, which the caller holds, away for a while if others need
// the disk, and stops when ctx ends.
func (q *Store) spill(ctx context.Context, ids []mail.ID) error {
	var errs []error
	for len(ids) > 0 {
		part := ids[:min(len(ids), spillBatch)]
		ids = ids[len(part):]
		start := time.Now()
		errs = append(errs, q.spillTogether(part))
		if len(ids) == 0 {
			break
		}
		q.measure()
		q.yield(ctx, q.pause(time.Since(start)))
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
	}
	return errors.Join(errs...)
}

// pause is how long to leave the disk to others after a batch that took some
// time: the longer, the more mail is accepted, and the shorter, the nearer the
// journal is to its limits: in the last quarter on the way.
func (q *Store) pause(took time.Duration) time.Duration {
	return time.Duration(float64(took) * spillPause * q.busy * max(0, min(1, 4*(1-q.full()))))
}

func (q *Store) yield(ctx context.Context, pause time.Duration) {
	q.maintaining.Unlock()
	if pause > 0 {
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-t.C:
		case <-q.hurry:
		}
		t.Stop()
	}
	q.maintaining.Lock()
	if ctx.Err() == nil {
		q.tidy()
	}
}

func (q *Store) spillTogether(ids []mail.ID) error {
	type result struct {
		id    mail.ID
		loc   journal.Location
		notes *noted
	}
	var (
		mu      sync.Mutex
		written []result
		errs    []error
		wg      sync.WaitGroup
		work    = make(chan mail.ID)
		batch   = q.spool.Batch(len(ids) <= q.few)
	)
	for range min(spillers, len(ids)) {
		wg.Go(func() {
			for id := range work {
				loc, notes, ok, err := q.write(batch, id)
				mu.Lock()
				if err != nil {
					errs = append(errs, fmt.Errorf("%s: %w", id, err))
				} else if ok {
					written = append(written, result{id, loc, notes})
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
	if err := batch.Commit(); err != nil {
		for _, r := range written {
			q.doubt(r.id)
		}
		return errors.Join(append(errs, err)...)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, r := range written {
		q.credit.Add(int64(r.loc.Length))
		k, e := q.index.find(r.id)
		if e == nil { // settled meanwhile
			q.trash = append(q.trash, r.id)
			continue
		}
		if e.loc == r.loc && !e.spooled() {
			q.forget(e.loc)
			e.loc = journal.Location{}
			e.flags &^= large | files
			q.index.recent.take(k) // it has waited, and may for long
		}
		if e.spooled() && q.index.notes[k] == r.notes { // else they have changed since
			q.index.dropNotes(k)
		}
		q.rest(k, e)
	}
	q.retired.Broadcast()
	return errors.Join(errs...)
}

// outdateAgain undoes that a message's state file was thought to be durable.
func (q *Store) outdateAgain(id mail.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, e := q.index.find(id); e != nil && !e.is(partial) {
		e.flags |= stale
	}
}

// doubt is outdateAgain for a message whose files may be in place or not: they
// must go when it is finished, or has been.
func (q *Store) doubt(id mail.ID) {
	q.outdateAgain(id)
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, e := q.index.find(id); e == nil {
		q.trash = append(q.trash, id)
	} else if !e.spooled() {
		e.flags |= files
	}
}

// write writes a message's files. It returns where in the journal it took the
// message from, and which notes it added; false: the message is gone, or its files said all before.
func (q *Store) write(b *spool.Batch, id mail.ID) (journal.Location, *noted, bool, error) {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	at, ok := q.outdated(id)
	if ok && at.is(partial) {
		if _, _, err := q.wakeLocked(id, true); err != nil && !errors.Is(err, store.ErrUnknown) {
			return journal.Location{}, nil, false, err
		}
		at, ok = q.outdated(id)
	}
	if !ok {
		return journal.Location{}, nil, false, nil
	}
	notes := q.noted(id) // if they change from now on, the message is stale again
	p, err := q.promised(id, at.loc)
	lost := damaged(err)
	if err == nil {
		if err = q.writeFiles(b, id, at, p, notes); err == nil {
			return at.loc, notes, true, nil
		}
		// A folder that is missing says nothing about the message.
		lost = errors.Is(err, errDamaged) || errors.Is(err, spool.ErrDamaged)
	}
	if lost {
		return journal.Location{}, nil, false, q.condemn(id, at, err)
	}
	q.outdateAgain(id)
	return journal.Location{}, nil, false, err
}

// outdated returns a copy of a message's entry if its files do not say all. From
// then on changes make it stale again.
func (q *Store) outdated(id mail.ID) (entry, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, e := q.index.find(id)
	if e == nil || e.spooled() && !e.is(stale) {
		return entry{}, false
	}
	at := *e
	if e.many != nil {
		many := e.states()
		at.many = &many
	}
	if !e.is(partial) {
		e.flags &^= stale
	}
	return at, true
}

func (q *Store) writeFiles(b *spool.Batch, id mail.ID, at entry, p promise, notes *noted) error {
	q.amendFile(p.envelope, notes)
	st := &spool.State{Size: at.size, Content: p.sum, Envelope: p.envelope, Recipients: make([]spool.Recipient, at.recipients())}
	for i := range st.Recipients {
		st.Recipients[i] = at.state(i).document()
	}
	if at.spooled() || at.is(large) {
		return b.Write(st, nil)
	}
	return b.Write(st, placed{q, id, at})
}

// condemn moves a message that can never be read out of the way.
func (q *Store) condemn(id mail.ID, at entry, cause error) error {
	if at.loc.Segment != 0 && !q.look {
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
	if err := q.keepSettled(id, at.settledOf(), cause); err != nil {
		return err
	}
	if err := q.quarantine(id, cause); err != nil {
		return err
	}
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
func (q *Store) emptyTrash() error {
	q.mu.Lock()
	ids := q.trash
	q.trash = nil
	q.mu.Unlock()
	left := ids[:0]
	err := q.journal.Sync()
	if err != nil {
		left = ids
	} else {
		for _, id := range ids {
			if e := q.discard(id); e != nil {
				left, err = append(left, id), e // the last error stands for all
			}
		}
	}
	if len(left) > 0 {
		q.mu.Lock()
		q.trash = append(q.trash, left...)
		q.mu.Unlock()
	}
	return err
}

// maxRepeated bounds what repeatDone writes each time.
const maxRepeated = 1000

// repeatDone writes once more that messages are finished whose files cannot be
// removed, so that the segment that says so is not needed for them: a few such
// files must not keep the journal from getting shorter.
func (q *Store) repeatDone() error {
	q.mu.Lock()
	ids := slices.Clone(q.trash)
	q.mu.Unlock()
	if len(ids) > maxRepeated {
		return fmt.Errorf("queue: files of %d finished messages cannot be removed", len(ids))
	}
	for _, id := range ids {
		if err := q.repeat(id); err != nil {
			return err
		}
	}
	return q.journal.Sync()
}

func (q *Store) repeat(id mail.ID) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, e := q.index.find(id); e != nil {
		return nil // the same ID came again
	}
	return q.journal.Enqueue(kindDone, encodeChange(kindDone, change{id: id}))
}

func (q *Store) discard(id mail.ID) error {
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
