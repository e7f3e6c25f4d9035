package disk

import (
	"errors"
	"fmt"
	"io"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
	"tarishi/internal/store/disk/record"
	"tarishi/internal/store/journal"
	"tarishi/internal/store/spool"
)

// Put implements store.Store.
func (q *Store) Put(env *mail.Envelope, c mail.Content) error {
	if err := q.putMessage(env, c); err != nil {
		return refuse(err)
	}
	return nil
}

// refuse turns an error into the reply to a client if its message cannot be stored.
func refuse(err error) *reply.Reply {
	var r *reply.Reply
	switch {
	case errors.As(err, &r):
		return r
	case isFull(err):
		return reply.New(452, "4.3.1", "Insufficient system storage, please try again later").Because(err)
	}
	return reply.New(451, "4.3.0", "Message cannot be queued, please try again later").Because(err)
}

// frames is what a record may take in the journal beside its bytes: its header and
// padding, and a Commit.
const frames = 40

func (q *Store) putMessage(env *mail.Envelope, c mail.Content) error {
	if q.readOnly {
		return store.ErrReadOnly
	}
	if !env.ID.Valid() || len(env.Recipients) == 0 {
		return fmt.Errorf("queue: message %q with %d recipients", env.ID, len(env.Recipients))
	}

	// The envelope is encoded before anything else: one that cannot be read back is
	// refused without a trace.
	size := c.Size()
	large := size > q.limits.Load().largeBody
	head, err := record.EncodeMessage(env, size, large)
	if err != nil {
		return err
	}

	// A small content is part of the record, a large one a file that it refers to.
	var content mail.Memory
	var sum spool.Sum
	if !large {
		if content, err = slicesOf(c); err != nil {
			return err
		}
		sum = spool.SumOf(content...)
		record.SealMessage(head, sum)
	}
	parts := append(append(make(mail.Memory, 0, 1+len(content)), head), content...)
	q.spiller.AdmitRecord(parts.Size() + frames)
	arrival, err := q.catalog.Arrive(env, size, large)
	if err != nil {
		return err
	}
	if large {
		sum, err = q.placeContent(env.ID, c)
		record.SealMessage(head, sum)
	}

	// From here on the record may be on the disk, whatever becomes of it.
	var loc journal.Location
	if err == nil {
		loc, err = q.journal.Append(record.KindMessage, parts...)
	}
	if err == nil && large {
		err = q.acceptContent(env.ID)
	}
	if err != nil {
		arrival.Withdraw()
		return err
	}
	q.spiller.Durable(loc.Segment)
	arrival.Accept(env, loc, sum, len(head), content)
	q.spiller.Accepted()
	return nil
}

// slicesOf returns a content's bytes, without a copy if it is in memory.
func slicesOf(c mail.Content) (mail.Memory, error) {
	if m, ok := c.(mail.Memory); ok {
		return m, nil
	}

	// Anything else is read once, into memory of its own size.
	r, err := c.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()

	// One byte more than it says shows a content that is longer.
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
	return mail.Memory{b[:n]}, nil
}

// placeContent makes a large content durable under the name of one that is not accepted yet. A
// body that came into a file of ours and was not changed is moved, anything else
// written.
func (q *Store) placeContent(id mail.ID, c mail.Content) (spool.Sum, error) {
	defer q.catalog.LockFiles(id)()
	sum, err := q.moveContent(id, c)
	if err != nil {
		return sum, err
	}
	return sum, q.spool.SyncContent(id)
}

// acceptContent gives a large content its final name, after its record is durable. If that is
// lost the next start does it again.
func (q *Store) acceptContent(id mail.ID) error {
	defer q.catalog.LockFiles(id)()
	return q.spool.Accept(id)
}

func (q *Store) moveContent(id mail.ID, c mail.Content) (spool.Sum, error) {
	b, ok := c.(*bodyFile)
	if !ok {
		return q.spool.WriteContent(id, c)
	}

	// The file becomes the message's, so that nothing is written twice.
	temp, ok := b.takeName()
	if !ok { // it was placed before, for another message
		return q.spool.WriteContent(id, c)
	}

	// Its bytes are durable before it has a name that counts.
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
