package replay

import (
	"errors"
	"io/fs"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/store/disk/index"
	"tarishi/internal/store/journal"
)

// settle decides about the rest: files of finished messages, files without a
// message, records without their content.
func (r *replay) settle(found journal.Recovery) {
	r.matchFiles()
	check := r.finished()
	if found.Unread > 0 {
		// They may belong to messages that a later start will know.
		for id := range r.files {
			r.log.Error("queue: files stay, since an unreadable segment may hold records of their message", zap.String("uuid", string(id)))
		}
		clear(r.files)
	}

	// What the journal does not know was never accepted, if all of it was read.
	whole := found.Damages == 0 && r.moved == 0
	for id, l := range r.files {
		r.leftOver(id, l, whole)
	}
	for _, m := range check {
		r.checkContent(m)
	}
}

// matchFiles takes files off the list that belong to a message, or to one that is
// finished. A large content of an accepted message gets its final name.
func (r *replay) matchFiles() {
	for id, l := range r.files {
		if _, e := r.index.Find(id); e != nil {
			delete(r.files, id)
			if l.new && e.Is(index.Large) && !r.options.ReadOnly {
				if err := r.spool.Accept(id); err != nil { // it is found under the other name too
					r.log.Error("queue: content keeps the name of one that is not accepted", zap.String("uuid", string(id)), zap.Error(err))
				}
			}
		} else if l.done {
			r.catalog.AddTrash(id)
			delete(r.files, id)
		}
	}
}

// large is a message in the journal with a content in a file.
type large struct {
	id mail.ID
	at index.Entry
}

// finished takes messages out that are settled, though no record says that they are
// done, and returns those with a content that must be looked for.
func (r *replay) finished() (check []large) {
	for k, e := range r.index.All() {
		switch {
		case e.Spooled():
		case e.Left == 0:
			r.catalog.Finish(k, e, r.index.ID(k))
		case e.Is(index.Large):
			check = append(check, large{r.index.ID(k), *e})
		}
	}
	return check
}

// leftOver removes a content that was never accepted, and moves other files without a
// message to corrupt/.
func (r *replay) leftOver(id mail.ID, l *leftover, whole bool) {
	if l.new && whole && !r.options.ReadOnly {
		if err := r.spool.Remove(id); err != nil {
			r.log.Error("queue: content of a message that was not accepted stays", zap.String("uuid", string(id)), zap.Error(err))
			return
		}
		r.dropped++
		r.log.Info("queue: content of a message that was not accepted is removed", zap.String("uuid", string(id)))
		return
	}
	r.moved++
	if err := r.catalog.KeepSettledOf(id, l.settled, l.bad); err != nil {
		r.log.Error("queue: settled recipients are not preserved", zap.String("uuid", string(id)), zap.Error(err))
	}
	if err := r.catalog.Quarantine(id, l.bad); err != nil {
		r.log.Error("queue: files stay", zap.String("uuid", string(id)), zap.Error(err))
	}
}

// checkContent moves a message to corrupt/ if its content is missing or cut short. One
// that cannot be looked at now is left alone.
func (r *replay) checkContent(m large) {
	n, err := r.spool.ContentSize(m.id)
	if err == nil && n == m.at.Size || err != nil && !errors.Is(err, fs.ErrNotExist) {
		return
	}
	r.moved++
	if err := r.catalog.Condemn(m.id, m.at, errors.New("the content's file is missing or has another size")); err != nil {
		r.log.Error("queue: message cannot be read", zap.String("uuid", string(m.id)), zap.Error(err))
	}
}
