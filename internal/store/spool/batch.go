package spool

import (
	"bytes"
	"errors"
	"fmt"
	"sync"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

// Batch writes many messages and makes them durable together: one sync of the
// file system costs no more than a few of single files, and disturbs other syncs
// much less. Where that cannot be relied on, files are synced one by one.
// Write may be called from any goroutine.
type Batch struct {
	spool   *Spool
	barrier vfs.Barrier // nil: each file is synced when it is written

	mu    sync.Mutex
	moves []move
}

type move struct{ from, to string }

// Batch begins a batch. For a few messages syncing their files is cheaper, and
// does not wait for what else is written to the file system.
func (s *Spool) Batch(few bool) *Batch {
	b := &Batch{spool: s}
	if few {
		return b
	}

	// No barrier, or none to rely on: Write then syncs each file by itself.
	if barrier, err := s.fs.Barrier(s.messageDir()); err == nil {
		b.barrier = barrier
	}
	return b
}

// Write writes a message's state and its content, unless c is nil: then it is
// there already. The files replace older ones with Commit. A content that is not
// what st.Content says is ErrDamaged; what st does not say is found out.
func (b *Batch) Write(st *State, c mail.Content) error {
	id := st.Envelope.ID
	var moves []move

	// The content first: a state file that is found alone is no message.
	if c != nil {
		temp, sum, err := b.spool.writeContent(id, c, b.barrier == nil)
		if err != nil {
			return err
		}
		moves = append(moves, move{temp, b.spool.Path(id)})
		if st.Content.Known && st.Content != sum {
			b.dropTemps(moves)
			return fmt.Errorf("%w: the content's checksum does not match", ErrDamaged)
		}
		st.Content = sum
	}

	// The state has the checksum of the content, which is known by now.
	doc, err := st.Encode()
	var temp string
	if err == nil {
		temp, _, err = b.spool.writeTemp(id, extState, bytes.NewReader(doc), int64(len(doc)), b.barrier == nil)
	}
	if err != nil {
		b.dropTemps(moves)
		return err
	}

	// Nothing has its name before all contents of the batch are durable.
	moves = append(moves, move{temp, b.spool.fileName(id, extState)})
	b.mu.Lock()
	b.moves = append(b.moves, moves...)
	b.mu.Unlock()
	return nil
}

// dropTemps removes temporary files; those that stay are removed by Walk.
func (b *Batch) dropTemps(moves []move) {
	for _, m := range moves {
		_ = b.spool.fs.Remove(m.from)
	}
}

// Commit makes everything durable that was written, or returns an error; then
// any part of it may be in place. It ends the batch.
func (b *Batch) Commit() error {
	var err error
	if b.barrier != nil {
		defer b.barrier.Close()
		if len(b.moves) > 0 {
			err = b.barrier.Sync()
		}
	}

	// Names come after contents. The first that fails ends it: those in place stay.
	for i, m := range b.moves {
		if err == nil {
			err = b.spool.rename(m.from, m.to)
		}
		if err != nil {
			b.dropTemps(b.moves[i:])
			break
		}
	}

	// Last the names become durable.
	if b.barrier == nil {
		return errors.Join(err, b.spool.Sync())
	}
	if err != nil {
		return err
	}
	return b.spool.syncWith(b.barrier)
}
