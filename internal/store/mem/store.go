package mem

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/reply"
	"tarishi/internal/store"
)

// Store is one member of a Cluster. Its methods may be called from any goroutine.
//
// Locks are taken in the order committing, owning, mu. The Deliverer is called with
// owning held, so that nothing is adopted while something is abandoned.
type Store struct {
	cluster *Cluster

	owning sync.Mutex

	mu        sync.Mutex
	deliverer store.Deliverer // nil: nobody
	held      map[int]*holding
	places    map[mail.ID]int // partition of each message in held
	found     []mail.ID       // Adopt has not passed them on yet
	names     map[mail.ID]string
}

// holding is a partition that this store thinks it owns, as it will be when the
// batch is durable.
type holding struct {
	committing sync.Mutex

	// The mu of the Store guards the rest.
	term     uint64
	sure     time.Time // until then nobody else can be the owner; zero: for good
	messages map[mail.ID]*message
	batch    []change
	waiters  []chan error // for the batch
}

var _ store.Store = (*Store)(nil)

// Watch implements store.Store.
func (s *Store) Watch(d store.Deliverer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deliverer = d
}

// Put implements store.Store.
func (s *Store) Put(env *mail.Envelope, c mail.Content) error {
	m, err := newMessage(env, c)
	if err == nil {
		err = s.putMessage(m)
	}
	if err != nil {
		return refuse(err)
	}
	return nil
}

func (s *Store) putMessage(m *message) (err error) {
	id := m.env.ID
	if m.sequence, err = s.cluster.nextSequence(id); err != nil {
		return err
	}

	// The message goes into the batch alone. It becomes visible with the confirmation, as on a
	// disk.
	s.mu.Lock()
	number, h := s.homePartition()
	if h == nil {
		s.mu.Unlock()
		return store.ErrPaused
	}
	done := h.queueChange(change{id: id, put: m}, true)
	s.mu.Unlock()
	return s.waitForBatch(number, done)
}

// homePartition returns the partition that new messages go to, or nil. Caller holds s.mu.
func (s *Store) homePartition() (int, *holding) {
	now := s.cluster.options.Now()

	// In order of numbers, so that a test can tell where a message goes.
	for _, number := range slices.Sorted(maps.Keys(s.held)) {
		if h := s.held[number]; h.isSure(now) {
			return number, h
		}
	}
	return 0, nil
}

func (h *holding) isSure(now time.Time) bool { return h.sure.IsZero() || now.Before(h.sure) }

// queueChange adds a change to the batch. done gets the outcome if somebody waits. Caller
// holds the mu of the Store.
func (h *holding) queueChange(c change, waits bool) (done chan error) {
	h.batch = append(h.batch, c)
	if waits {
		done = make(chan error, 1)
		h.waiters = append(h.waiters, done)
	}
	return done
}

// waitForBatch returns the outcome of a batch; nil: nobody waits for it.
func (s *Store) waitForBatch(number int, done chan error) error {
	if !s.cluster.options.Manual {
		s.Commit(number)
	}
	if done == nil {
		return nil
	}
	return <-done
}

// refuse turns an error into the reply to a client if its message is not stored.
func refuse(err error) *reply.Reply {
	return reply.New(451, "4.3.0", "Message cannot be queued, please try again later").Because(err)
}

// Healthy implements store.Store.
func (s *Store) Healthy() error { return s.Room(0) }

// Room implements store.Store.
func (s *Store) Room(int64) error {
	s.cluster.mu.Lock()
	err := s.cluster.failure
	s.cluster.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, h := s.homePartition(); h == nil {
		return refuse(store.ErrPaused)
	}
	if err != nil {
		return reply.New(452, "4.3.1", "Mail queue cannot be written, please try again later").Because(err)
	}
	return nil
}

// findMessage returns a message and its partition. Caller holds s.mu.
func (s *Store) findMessage(id mail.ID) (int, *message, error) {
	number, ok := s.places[id]
	if !ok {
		return 0, nil, fmt.Errorf("%w: %s", store.ErrUnknown, id)
	}
	return number, s.held[number].messages[id], nil
}

// Permit implements store.Store. Where the owner can never be another one it does
// not look at the message.
func (s *Store) Permit(id mail.ID) error {
	if s.cluster.options.Lease == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	// This is the question before the final dot: an owner that is not sure any more must not answer
	// yes.
	number, _, err := s.findMessage(id)
	if err == nil && !s.held[number].isSure(s.cluster.options.Now()) {
		err = store.ErrPaused
	}
	return err
}

// Load implements store.Store.
func (s *Store) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, m, err := s.findMessage(id)
	if err != nil {
		return nil, nil, fmt.Errorf("queue: load %s: %w", id, err)
	}
	return m.envelope(), &content{s, id, m.content}, nil
}

// Find implements store.Store.
func (s *Store) Find(id mail.ID) (mail.Pending, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, m, err := s.findMessage(id)
	if err != nil {
		return mail.Pending{}, false
	}
	return m.pending(), true
}

// alterMessage changes a message here at once and in the Cluster with the next batch.
func (s *Store) alterMessage(id mail.ID, recipients []int, waits bool, c change) error {
	s.mu.Lock()
	number, m, err := s.findMessage(id)
	// An index beyond the recipients is a mistake of the caller, and changes nothing.
	if err == nil {
		for _, i := range recipients {
			if i < 0 || i >= len(m.recipients) {
				err = fmt.Errorf("queue: message %s has no recipient %d", id, i)
			}
		}
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}

	// The copy here changes at once; the Cluster hears of it with the batch.
	h := s.held[number]
	c.id = id
	c.applyTo(h.messages)
	if h.messages[id] == nil {
		s.forgetMessage(id)
	}
	done := h.queueChange(c, waits)
	s.mu.Unlock()
	return s.waitForBatch(number, done)
}

// forgetMessage is for a message that is gone. Caller holds s.mu.
func (s *Store) forgetMessage(id mail.ID) {
	delete(s.places, id)
	if name := s.names[id]; name != "" {
		_ = os.Remove(name)
		delete(s.names, id)
	}
}

// Settle implements store.Store.
func (s *Store) Settle(id mail.ID, recipients []int) error {
	return s.alterMessage(id, recipients, false, change{alter: markSettled(slices.Clone(recipients))})
}

// Defer implements store.Store.
func (s *Store) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	return s.alterMessage(id, recipients, false, change{alter: postpone(slices.Clone(recipients), attempts, next, last)})
}

// SetNotes implements store.Store.
func (s *Store) SetNotes(id mail.ID, values map[string]any) error {
	b, err := json.Marshal(values)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", store.ErrNotes, id, err)
	}
	var plain map[string]any
	if err := json.Unmarshal(b, &plain); err != nil {
		return err
	}
	return s.alterMessage(id, nil, false, change{alter: setNotes(plain)})
}

// Hold implements store.Store.
func (s *Store) Hold(id mail.ID, recipients []int) error {
	return s.alterMessage(id, recipients, true, change{alter: setHeld(slices.Clone(recipients), true)})
}

// Release implements store.Store.
func (s *Store) Release(id mail.ID, recipients []int) error {
	return s.alterMessage(id, recipients, true, change{alter: setHeld(slices.Clone(recipients), false)})
}

// Remove implements store.Store.
func (s *Store) Remove(id mail.ID) error { return s.alterMessage(id, nil, true, change{removed: true}) }

// Sync implements store.Store.
func (s *Store) Sync() error {
	s.mu.Lock()
	waits := map[int]chan error{}
	for number, h := range s.held {
		done := make(chan error, 1)
		h.waiters = append(h.waiters, done)
		waits[number] = done
	}
	s.mu.Unlock()

	// Every partition gets a waiter before the first batch is sent. One that fails ends the wait,
	// for the caller cannot be told that all is safe.
	for number, done := range waits {
		if err := s.waitForBatch(number, done); err != nil {
			return err
		}
	}
	return nil
}

// Walk implements store.Store.
func (s *Store) Walk(fn func(mail.Pending) bool) {
	s.mu.Lock()
	var all []*message
	for _, h := range s.held {
		for _, m := range h.messages {
			all = append(all, m)
		}
	}

	// fn may change the store: it is called without the lock, with the state of that moment.
	ids := make([]mail.ID, 0, len(all))
	for _, m := range inOrder(all) {
		ids = append(ids, m.env.ID)
	}
	s.mu.Unlock()
	for _, id := range ids {
		if p, ok := s.Find(id); ok && !fn(p) {
			return
		}
	}
}

// WalkUnreadable implements store.Store: everything can be read.
func (s *Store) WalkUnreadable(func(mail.ID, string) bool) {}

// Unreadable implements store.Store.
func (s *Store) Unreadable() store.Unreadable { return store.Unreadable{} }

// Stat implements store.Store.
func (s *Store) Stat() (n store.Stat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		for _, m := range h.messages {
			n.Messages++
			n.Recipients += m.left
			n.Bytes += m.content.Size()
		}
	}
	return n
}

// Run implements store.Store. Unless all is Manual it renews what this store owns,
// and claims what nobody does any more.
func (s *Store) Run(ctx context.Context) error {
	if s.cluster.options.Lease == 0 || s.cluster.options.Manual {
		<-ctx.Done()
		return nil
	}
	t := time.NewTicker(s.cluster.options.Lease / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		// An owner stays one by committing, even if it has nothing to say.
		for number := range s.cluster.partitions {
			if !s.Claim(number) {
				s.Commit(number)
			}
		}
	}
}

// Close implements store.Store. Others can claim its partitions at once.
func (s *Store) Close() error {
	err := error(nil)
	if !s.cluster.options.Manual {
		err = s.Sync()
	}
	s.mu.Lock()
	defer s.mu.Unlock()

	// Messages that are not committed stay with the cluster's last state. Files for hooks go, as
	// nothing would remove them later.
	for id := range s.places {
		s.forgetMessage(id)
	}
	for number, h := range s.held {
		s.cluster.releasePartition(number, h.term)
		h.answerAll(errClosed)
	}
	clear(s.held)
	return err
}
