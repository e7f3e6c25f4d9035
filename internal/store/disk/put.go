package disk

import (
	"errors"
	"fmt"
	"io"

	"tarishi/internal/mail"
	"tarishi/internal/store"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// Put takes responsibility for a message. It returns nil only when envelope and
// content are on stable storage; any error is a *reply.Reply of class 4. The
// envelope is not kept, the content not used after Put returns.
func (q *Store) Put(env *mail.Envelope, c mail.Content) error {
	if err := q.put(env, c); err != nil {
		return refuse(err)
	}
	return nil
}

// frames is what a record may take in the journal beside its bytes: its header
// and padding, and a Commit.
const frames = 40

func (q *Store) put(env *mail.Envelope, c mail.Content) error {
	if q.look {
		return store.ErrReadOnly
	}
	if !env.ID.Valid() || len(env.Recipients) == 0 {
		return fmt.Errorf("queue: message %q with %d recipients", env.ID, len(env.Recipients))
	}
	size := c.Size()
	big := size > q.o.LargeBody
	head, err := encodeMessage(env, size, big)
	if err != nil {
		return err
	}
	record := [][]byte{head}
	var sum spool.Sum
	if !big {
		content, err := slicesOf(c)
		if err != nil {
			return err
		}
		record = append(record, content...)
		sum = spool.SumOf(content...)
		seal(head, sum)
	}
	q.admit(mail.Memory(record).Size() + frames)
	e := newEntry(len(env.Recipients), size)
	e.flags = arriving
	if big {
		e.flags |= large
	}
	q.mu.Lock()
	if _, old := q.index.find(env.ID); old != nil {
		q.mu.Unlock()
		return fmt.Errorf("queue: message %s is there already", env.ID)
	}
	k := q.index.add(env.ID, e)
	q.mu.Unlock()

	if big {
		sum, err = q.place(env.ID, c)
		seal(head, sum)
	}
	var loc journal.Location
	if err == nil {
		loc, err = q.journal.Append(kindMessage, record...)
	}
	if err == nil && big {
		err = q.accept(env.ID)
	}
	if err == nil {
		q.begun(loc.Segment)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		// The record may have reached the disk all the same: take it back, so
		// that the next start does not find a message that the client sends
		// again.
		q.index.remove(k)
		_ = q.journal.Enqueue(kindDone, encodeChange(kindDone, change{id: env.ID}))
		if big {
			q.trash = append(q.trash, env.ID)
		}
		return err
	}
	e.loc = loc
	e.flags &^= arriving
	q.need(loc)
	q.index.recent.add(k, env, sum, len(head))
	q.accepted.Add(1)
	return nil
}

// slicesOf returns a content's bytes, without a copy if it is in memory.
func slicesOf(c mail.Content) ([][]byte, error) {
	if m, ok := c.(mail.Memory); ok {
		return m, nil
	}
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b := make([]byte, c.Size()+1)
	n, err := io.ReadFull(r, b)
	if !errors.Is(err, io.ErrUnexpectedEOF) && !(errors.Is(err, io.EOF) && n == 0) {
		if err == nil {
			err = errors.New("queue: content is longer than it says")
		}
		return nil, err
	}
	if n != len(b)-1 {
		return nil, fmt.Errorf("queue: content has %d bytes and says %d", n, len(b)-1)
	}
	return [][]byte{b[:n]}, nil
}

// place makes a large content durable under the name of one that is not accepted
// yet. A body that came into a file of ours and was not changed is moved, anything
// else written.
func (q *Store) place(id mail.ID, c mail.Content) (spool.Sum, error) {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	sum, err := q.move(id, c)
	if err != nil {
		return sum, err
	}
	return sum, q.spool.SyncContent(id)
}

// accept gives a large content its final name, after its record is durable. If
// that is lost the next start does it again.
func (q *Store) accept(id mail.ID) error {
	mu := q.filesOf(id)
	mu.Lock()
	defer mu.Unlock()
	return q.spool.Accept(id)
}

func (q *Store) move(id mail.ID, c mail.Content) (spool.Sum, error) {
	b, ok := c.(*bodyFile)
	if !ok {
		return q.spool.WriteContent(id, c)
	}
	temp, ok := b.take()
	if !ok { // it was placed before, for another message
		return q.spool.WriteContent(id, c)
	}
	if err := b.f.Sync(); err != nil {
		_ = q.spool.Drop(temp) // never to be believed again
		return spool.Sum{}, err
	}
	if err := q.spool.Place(id, temp); err != nil {
		b.giveBack(temp)
		return spool.Sum{}, err
	}
	return b.sum.Sum(), nil
}
