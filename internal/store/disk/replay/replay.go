// Package replay fills the catalog of a store at its start: the names in the spool are
// listed first, and the journal, which is the truth about what changed lately, is
// replayed over them. State files are not read.
//
// As long as the journal has a message's own record it has all that is to be known of
// the message, and whatever files it has are only in the way of the next spill. Files
// without a message, and records that make no sense, go to corrupt/. Nothing but a
// folder that cannot be listed is an error.
package replay

import (
	"errors"
	"io/fs"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/catalog"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/disk/quarantine"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// Options is what Open works with. All are needed.
type Options struct {
	Spool   *spool.Spool
	Journal journal.Options
	Log     *zap.Logger
	// ReadOnly: nothing may change, and damage stays where it is.
	ReadOnly bool
}

// replay is the state of Open while it puts journal and spool together.
type replay struct {
	options Options
	log     *zap.Logger
	spool   *spool.Spool
	index   *index.Index
	catalog *catalog.Catalog

	// Files that are no message yet: one of two, or those of a message that the
	// journal says is finished.
	files   map[mail.ID]*leftover
	moved   int  // to corrupt/
	dropped int  // contents that came with no message
	noted   int  // records of notes for which there was no room
	damaged bool // the journal has damage before the current record
	settled quarantine.Settled
}

type leftover struct {
	bad     error // why it is no message
	done    bool  // the journal says that it is finished
	settled []int // recipients that it calls settled
	new     bool  // all there is is a content that nobody had promised to keep
}

// Open opens the journal and returns the catalog of all messages.
func Open(o Options) (*catalog.Catalog, *journal.Journal, error) {
	began := time.Now()
	r := &replay{options: o, log: o.Log, spool: o.Spool, index: index.New(), files: map[mail.ID]*leftover{}}
	r.catalog = catalog.New(catalog.Options{Spool: o.Spool, Index: r.index, Log: o.Log, ReadOnly: o.ReadOnly})

	// The spool comes first: what the journal says is applied over it.
	r.listSpool()
	j, found, err := journal.Open(o.Journal, journal.Visitor{Record: r.applyRecord, Damage: func(d journal.Damage) {
		r.damaged = true
		if err := r.catalog.PreserveDamage(d); err != nil {
			r.log.Error("queue: damaged range is not preserved", zap.Error(err))
		}
	}, Unread: r.unread})
	if err != nil {
		return nil, nil, err
	}

	// Only now can the journal be read from and written to, which setting damage aside may
	// need.
	r.catalog.SetJournal(j)
	if err := r.catalog.KeepSettled(&r.settled, quarantine.SettledName, "what became of messages that could not be read"); err != nil {
		r.log.Error("queue: settled recipients are not preserved", zap.Error(err))
	}
	r.settle(found)

	// Trouble that comes in numbers is one line of the log.
	if r.noted > 0 {
		r.log.Error("queue: notes of messages are dropped, there is no room for them", zap.Int("records", r.noted))
	}
	r.log.Info("queue: recovered",
		zap.Int("messages", r.index.Len()), zap.Int("segments", found.Segments), zap.Int("records", found.Records),
		zap.Int64("cut", found.Cut), zap.Int("damaged", found.Damages), zap.Int("unread", found.Unread), zap.Int("corrupt", r.moved), zap.Int("unaccepted", r.dropped),
		zap.Duration("time", time.Since(began)))
	return r.catalog, j, nil
}

// listSpool makes entries of all messages that have both files.
func (r *replay) listSpool() {
	u := &r.index.Unreadable
	r.spool.Walk(func(f spool.Found) {
		// Two files are a message; one alone, or a content that was never accepted, is
		// looked at later.
		switch {
		case f.Content && f.State:
			r.index.AddUnread(f.ID)
		case f.New && !f.State:
			r.files[f.ID] = &leftover{bad: errors.New("it seems that the message was never accepted, but the journal is damaged"), new: true}
		case f.State:
			r.files[f.ID] = &leftover{bad: errors.New("no content belongs to it")}
		default:
			r.files[f.ID] = &leftover{bad: errors.New("no state file belongs to it")}
		}
	}, func(name string, err error) {
		// A folder that cannot be listed hides its messages until another start.
		if errors.Is(err, spool.ErrUnlisted) {
			u.Reason = catalog.Reason(err)
			if u.Folders++; u.Folders > catalog.Examples {
				return // a line counts them
			}
		}
		r.log.Error("queue: spool", zap.String("name", name), zap.Error(err))
	})
	if u.Folders > 0 {
		r.log.Error("queue: folders cannot be listed, the messages there wait until a start can list them",
			zap.Int("folders", u.Folders), zap.String("reason", u.Reason))
	}
}

// unread notes a segment that this start cannot read at all. It is where it was.
func (r *replay) unread(name string, err error) {
	fields := []zap.Field{zap.String("name", name), zap.Error(err)}
	if errors.Is(err, fs.ErrPermission) {
		fields = append(fields, zap.String("user", catalog.CurrentUser()))
	}
	r.index.Unreadable.Segments++
	r.index.Unreadable.Reason = catalog.Reason(err)
	r.log.Error("queue: segment cannot be read; it and all younger ones stay, and their messages wait, until a start can read it", fields...)
}

// applyRecord applies one record.
func (r *replay) applyRecord(rec journal.Record) {
	if rec.Kind == record.KindMessage {
		m, err := record.DecodeMessage(rec.Payload, int64(len(rec.Payload)))
		if err != nil {
			r.preserve(rec)
			return
		}
		r.applyMessage(m, rec.Location)
		return
	}

	// Everything else changes a message that is known, or was lost.
	c, err := record.DecodeChange(rec.Kind, rec.Payload)
	if err != nil {
		r.preserve(rec)
		return
	}

	// A change is applied to nothing that is known, to a name in the spool, or to
	// everything.
	k, e := r.index.Find(c.ID)

	// A record about a lost message is of use only if that is found again in corrupt/.
	switch {
	case rec.Kind == record.KindDone:
		r.applyDone(c.ID, k, e)
	case e == nil && rec.Kind == record.KindSettled:
		r.settledOf(c.ID, c.Recipients)
	case e != nil && rec.Kind == record.KindNotes:
		r.applyNotes(k, e, c)
	case e != nil && e.Is(index.Partial):
		r.notePartial(k, e, c, rec.Kind)
	case e != nil:
		r.applyChange(e, c, rec.Kind)
	}
}

// preserve is for records that are whole and make no sense.
func (r *replay) preserve(rec journal.Record) {
	if err := r.catalog.PreserveRecord(rec); err != nil {
		r.log.Error("queue: record is not preserved", zap.Error(err))
	}
	r.moved++
}

// applyMessage makes an entry of a Message record.
func (r *replay) applyMessage(m record.Message, loc journal.Location) {
	k, old := r.index.Find(m.ID)
	if old != nil && !old.Is(index.Partial) {
		return
	}

	// The record has everything: an entry for the files of the message, which may be
	// older, makes room for it.
	e := index.NewEntry(m.Recipients, m.Size)
	e.Loc = loc
	if m.Spooled {
		e.Flags |= index.Large
	}
	if old != nil {
		e.Flags |= index.Files
		r.index.Remove(k)
	}

	// The ID may have come again after the message was done with.
	if l := r.files[m.ID]; l != nil {
		e.Flags |= index.Files
		l.done = false
	}
	r.index.Add(m.ID, e)
	r.catalog.KeepRecord(loc)
}

func (r *replay) applyDone(id mail.ID, k index.Key, e *index.Entry) {
	l := r.files[id]
	if e != nil {
		r.catalog.Discard(k, e)
		if l == nil && (e.Spooled() || e.Is(index.Files|index.Large)) {
			l = &leftover{}
			r.files[id] = l
		}
	}
	if l != nil {
		l.done = true
	}
	if e == nil && l == nil {
		r.settledOf(id, nil)
	}
}

// settledOf keeps what a record says of recipients of a message that was lost; nil:
// all.
func (r *replay) settledOf(id mail.ID, recipients []int) {
	if l := r.files[id]; l != nil {
		l.settled = append(l.settled, recipients...)
	} else if r.damaged {
		r.settled.AddRecipients(id, recipients)
	}
}

// applyNotes keeps what a record says of a message's notes.
func (r *replay) applyNotes(k index.Key, e *index.Entry, c record.Change) {
	if err := r.index.Notes.AddNotes(k, c.Notes); err != nil {
		r.noted++
		return
	}
	r.index.OwnEntry(k, e).Flags |= index.Stale
}

// maxReach bounds how many recipients a record can make us allocate.
const maxReach = 1 << 20

// notePartial keeps what a record says for when the state file is read.
func (r *replay) notePartial(k index.Key, e *index.Entry, c record.Change, kind journal.Kind) {
	e = r.index.OwnEntry(k, e)
	s := r.stateOf(c, kind)
	for _, i := range c.Recipients {
		if i < maxReach {
			e.NoteChange(i, s)
		}
	}
}

// applyChange applies a record to an entry that is whole. A record of fewer attempts than
// are known is older.
func (r *replay) applyChange(e *index.Entry, c record.Change, kind journal.Kind) {
	changed := r.stateOf(c, kind)
	for _, i := range c.Recipients {
		if i >= e.Recipients() {
			continue
		}
		// A settled recipient stays so, whatever came before it in another segment.
		s := e.StateOf(i)
		switch {
		case changed.Settled:
			r.index.Settle(e, i)
		case s.Settled:
		case changed.Hold != index.Unsaid:
			s.SetHeld(changed.Hold == index.Held)
		case changed.Attempts >= s.Attempts:
			hold := s.Hold
			*s = changed
			s.Hold = hold
		}
	}
	e.Flags |= index.Stale
}

// stateOf is what a record says of each recipient that it names.
func (r *replay) stateOf(c record.Change, kind journal.Kind) index.State {
	switch kind {
	case record.KindSettled:
		return index.State{Settled: true}
	case record.KindHeld:
		return index.State{Hold: index.Held}
	case record.KindReleased:
		return index.State{Hold: index.Released}
	}
	return index.State{Last: r.index.Intern(c.Last), Next: c.Next, Attempts: int32(c.Attempts)}
}
