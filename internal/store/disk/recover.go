package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// recovery is the state of Open while it puts journal and spool together.
type recovery struct {
	q *Store
	// Files that are no message yet: one of two, or those of a message that the
	// journal says is finished.
	files   map[mail.ID]*leftover
	moved   int  // what went to corrupt/
	dropped int  // contents that came with no message
	noted   int  // records of notes for which there was no room
	damaged bool // the journal has damage before what is being replayed
	orphans orphans
}

type leftover struct {
	bad     error // why it is no message
	done    bool  // the journal says that it is finished
	settled []int // recipients of which it says so
	new     bool  // all there is is a content that nobody had promised to keep
}

// recover fills the index. The names in the spool are listed first; the journal,
// which is the truth about what changed lately, is replayed over them. State
// files are not read. Nothing but a folder that cannot be listed is an error.
func (q *Store) recover() error {
	began := time.Now()
	r := &recovery{q: q, files: map[mail.ID]*leftover{}}
	r.list()
	j, found, err := journal.Open(journal.Options{
		FS: q.fs, Dir: q.journalDir(), SegmentSize: q.o.SegmentSize, Log: q.log, Now: q.o.Now, Synced: q.o.Synced,
	}, journal.Visitor{Record: r.replay, Damage: func(d journal.Damage) {
		r.damaged = true
		if err := q.damaged(d); err != nil {
			q.log.Error("queue: damaged range is not preserved", zap.Error(err))
		}
	}, Unread: q.unread})
	if err != nil {
		return err
	}
	q.journal = j
	r.keepOrphans()
	r.settle(found)
	q.found = ordered(q.index.snapshot())
	if r.noted > 0 {
		q.log.Error("queue: there is no room for notes of messages", zap.Int("records", r.noted))
	}
	q.log.Info("queue: recovered",
		zap.Int("messages", len(q.index.entries)), zap.Int("segments", found.Segments), zap.Int("records", found.Records),
		zap.Int64("cut", found.Cut), zap.Int("damaged", found.Damages), zap.Int("unread", found.Unread), zap.Int("corrupt", r.moved), zap.Int("unaccepted", r.dropped),
		zap.Duration("time", time.Since(began)))
	return nil
}

// list makes entries of all messages that have both files.
func (r *recovery) list() {
	q := r.q
	q.spool.Walk(func(f spool.Found) {
		switch {
		case f.Content && f.State:
			q.index.add(f.ID, q.index.unread)
		case f.New && !f.State:
			r.files[f.ID] = &leftover{bad: errors.New("it seems that the message was never accepted, but the journal is damaged"), new: true}
		case f.State:
			r.files[f.ID] = &leftover{bad: errors.New("no content belongs to it")}
		default:
			r.files[f.ID] = &leftover{bad: errors.New("no state file belongs to it")}
		}
	}, func(name string, err error) {
		if errors.Is(err, spool.ErrUnlisted) {
			u := &q.index.unreadable
			u.reason = reasonOf(err)
			if u.folders++; u.folders > examples {
				return // a line counts them
			}
		}
		q.log.Error("queue: spool", zap.String("name", name), zap.Error(err))
	})
	if u := q.index.unreadable; u.folders > 0 {
		q.log.Error("queue: folders cannot be listed, the messages there wait until a start can list them",
			zap.Int("folders", u.folders), zap.String("reason", u.reason))
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
	switch {
	case rec.Kind == kindDone:
		r.done(c.id, k, e)
	case e == nil && rec.Kind == kindSettled:
		r.orphaned(c.id, c.recipients)
	case e != nil && rec.Kind == kindNotes:
		r.amend(k, e, c)
	case e != nil && e.is(partial):
		r.note(k, e, c, rec.Kind)
	case e != nil:
		r.change(e, c, rec.Kind)
	}
}

func (r *recovery) done(id mail.ID, k key, e *entry) {
	l := r.files[id]
	if e != nil {
		r.q.index.remove(k)
		r.q.forget(e.loc)
		if l == nil && (e.spooled() || e.is(files|large)) {
			l = &leftover{}
			r.files[id] = l
		}
	}
	if l != nil {
		l.done = true
	}
	if e == nil && l == nil {
		r.orphaned(id, nil)
	}
}

// maxReach bounds what a record can make us allocate.
const maxReach = 1 << 20

// own returns an entry of its own for a message whose state file was not read.
func (r *recovery) own(k key, e *entry) *entry {
	if e == r.q.index.unread {
		e = &entry{flags: partial | stale}
		r.q.index.entries[k] = e
	}
	return e
}

// amend keeps what a record says of a message's notes.
func (r *recovery) amend(k key, e *entry, c change) {
	if err := r.q.index.amend(k, c.notes); err != nil {
		r.noted++
		return
	}
	r.own(k, e).flags |= stale
}

// note keeps what a record says for when the state file is read.
func (r *recovery) note(k key, e *entry, c change, kind journal.Kind) {
	e = r.own(k, e)
	s := r.state(c, kind)
	for _, i := range c.recipients {
		switch {
		case i >= maxReach:
		case s.hold != unsaid:
			e.noteHold(i, s.hold)
		default:
			e.note(i, s)
		}
	}
}

func (r *recovery) change(e *entry, c change, kind journal.Kind) {
	changed := r.state(c, kind)
	for _, i := range c.recipients {
		if i >= e.recipients() {
			continue
		}
		s := e.state(i)
		switch {
		case changed.settled:
			if e.settle(i) {
				r.q.index.recipients--
			}
		case s.settled:
		case changed.hold != unsaid:
			s.setHeld(changed.hold == held)
		case changed.attempts >= s.attempts:
			hold := s.hold
			*s = changed
			s.hold = hold
		}
	}
	e.flags |= stale
}

// state is what a record says of each recipient that it names.
func (r *recovery) state(c change, kind journal.Kind) state {
	switch kind {
	case kindSettled:
		return state{settled: true}
	case kindHeld:
		return state{hold: held}
	case kindReleased:
		return state{hold: released}
	}
	return state{last: r.q.index.texts.intern(c.last), next: c.next, attempts: int32(c.attempts)}
}

// message makes an entry of a Message record. As long as there is one, the
// journal has all that is to be known of the message, and whatever files it has
// are only in the way of the next spill.
func (r *recovery) message(m message, loc journal.Location) {
	q := r.q
	k, old := q.index.find(m.id)
	if old != nil && !old.is(partial) {
		return
	}
	e := newEntry(m.recipients, m.size)
	e.loc = loc
	if m.spooled {
		e.flags |= large
	}
	if old != nil {
		e.flags |= files
		q.index.remove(k)
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
func (r *recovery) settle(found journal.Recovery) {
	q := r.q
	// What the journal does not know was never accepted, if all of it was read.
	whole := found.Damages == 0 && r.moved == 0
	q.mu.Lock()
	for id, l := range r.files {
		if _, e := q.index.find(id); e != nil {
			delete(r.files, id)
			if l.new && e.is(large) && !q.look {
				if err := q.spool.Accept(id); err != nil { // it is found under the other name too
					q.log.Error("queue: content keeps the name of one that is not accepted", zap.String("uuid", string(id)), zap.Error(err))
				}
			}
		} else if l.done {
			q.trash = append(q.trash, id)
			delete(r.files, id)
		}
	}
	type lost struct {
		id mail.ID
		at entry
	}
	var check []lost
	for k, e := range q.index.entries {
		switch {
		case e.spooled():
		case e.left == 0:
			q.finish(k, e, q.index.id(k))
		case e.is(large):
			check = append(check, lost{q.index.id(k), *e})
		}
	}
	q.mu.Unlock()
	if found.Unread > 0 {
		// They may belong to messages of which a later start will know.
		for id := range r.files {
			q.log.Error("queue: files stay, as a segment cannot be read that may know of their message", zap.String("uuid", string(id)))
		}
		clear(r.files)
	}
	for id, l := range r.files {
		if l.new && whole && !q.look {
			if err := q.spool.Remove(id); err != nil {
				q.log.Error("queue: content of a message that was not accepted stays", zap.String("uuid", string(id)), zap.Error(err))
				continue
			}
			r.dropped++
			q.log.Info("queue: content of a message that was not accepted is removed", zap.String("uuid", string(id)))
			continue
		}
		r.moved++
		if err := q.keepSettled(id, l.settled, l.bad); err != nil {
			q.log.Error("queue: settled recipients are not preserved", zap.String("uuid", string(id)), zap.Error(err))
		}
		if err := q.quarantine(id, l.bad); err != nil {
			q.log.Error("queue: files stay", zap.String("uuid", string(id)), zap.Error(err))
		}
	}
	for _, m := range check {
		n, err := q.spool.ContentSize(m.id)
		if err == nil && n == m.at.size || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		r.moved++
		if err := q.condemn(m.id, m.at, errors.New("the content's file is missing or has another size")); err != nil {
			q.log.Error("queue: message cannot be read", zap.String("uuid", string(m.id)), zap.Error(err))
		}
	}
}

// unread tells of a segment that this start cannot read at all. It is where it was.
func (q *Store) unread(name string, err error) {
	fields := []zap.Field{zap.String("name", name), zap.Error(err)}
	if errors.Is(err, fs.ErrPermission) {
		fields = append(fields, zap.String("user", currentUser()))
	}
	q.index.unreadable.segments++
	q.index.unreadable.reason = reasonOf(err)
	q.log.Error("queue: segment cannot be read, its messages wait; it stays, and all younger ones, until a start can read it", fields...)
}

// damaged preserves a range of the journal that cannot be read.
func (q *Store) damaged(d journal.Damage) error {
	q.log.Error("queue: journal is damaged", zap.Uint32("segment", d.Segment), zap.Int64("offset", d.Offset),
		zap.Int64("length", d.Length), zap.String("reason", d.Reason))
	if q.look {
		return nil
	}
	return q.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", d.Segment, d.Offset, d.Length), d.Reason, d.Data)
}

// preserve keeps a record that makes no sense.
func (q *Store) preserve(r journal.Record) error {
	q.log.Error("queue: malformed record", zap.Uint32("segment", r.Location.Segment), zap.Uint32("offset", r.Location.Offset))
	if q.look {
		return nil
	}
	return q.spool.Preserve(fmt.Sprintf("%08d.log@%d+%d", r.Location.Segment, r.Location.Offset, r.Location.Length),
		errRecord.Error(), bytes.NewReader(r.Payload))
}

// quarantine moves the files of a message to corrupt/.
func (q *Store) quarantine(id mail.ID, cause error) error {
	q.log.Error("queue: message cannot be read and goes to corrupt/", zap.String("uuid", string(id)), zap.Error(cause))
	if q.look {
		return nil
	}
	return q.spool.Quarantine(id, cause.Error())
}
