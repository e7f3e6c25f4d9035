package mem

import (
	"errors"
	"slices"
	"time"

	"tarishi/internal/mail"
)

var errClosed = errors.New("mem: store is closed")

// Claim makes the store the owner of a partition, if it is free or its owner has not
// committed for a Lease. It reports whether the store has become the owner.
func (s *Store) Claim(number int) bool {
	now := s.cluster.options.Now()
	messages, term, ok := s.cluster.claimFor(s, number, now)
	if !ok {
		return false
	}
	s.mu.Lock()
	// If this store lost the partition without noticing, it must forget it before it has
	// it again.
	former := s.held[number]
	s.mu.Unlock()
	if former != nil { // it was somebody else's meanwhile
		s.abandonPartition(number, former)
	}

	// The time of the claim counts like that of a batch.
	h := &holding{term: term, messages: messages}
	s.extendLease(h, now)
	all := make([]*message, 0, len(messages))
	for _, m := range messages {
		all = append(all, m)
	}
	s.mu.Lock()
	s.held[number] = h
	for _, m := range inOrder(all) {
		s.places[m.env.ID] = number
		s.found = append(s.found, m.env.ID)
	}
	// The Deliverer is called without the lock: it will ask the store.
	d := s.deliverer
	s.mu.Unlock()
	if d != nil && len(all) > 0 {
		d.Adopt()
	}
	return true
}

// Commit makes the batch of a partition durable, which is how an owner stays one. If
// another store has claimed it meanwhile, everything in it is abandoned.
func (s *Store) Commit(number int) { s.commitBatch(number, true) }

// CommitUnconfirmed is a Commit with a confirmation that gets lost: the store knows nothing
// and will send the same again.
func (s *Store) CommitUnconfirmed(number int) { s.commitBatch(number, false) }

func (s *Store) commitBatch(number int, confirmed bool) {
	s.mu.Lock()
	h := s.held[number]
	s.mu.Unlock()
	if h == nil {
		return
	}
	if err := s.sendBatch(number, h, confirmed); errors.Is(err, errFenced) {
		s.abandonPartition(number, h)
	}
}

// sendBatch hands the batch over, and notes the outcome if that is confirmed.
func (s *Store) sendBatch(number int, h *holding, confirmed bool) error {
	h.committing.Lock()
	defer h.committing.Unlock()
	s.mu.Lock()
	changes, waiters := slices.Clone(h.batch), len(h.waiters)
	s.mu.Unlock()

	// The lease counts from before the batch was sent: the confirmation may take its time.
	sent := s.cluster.options.Now()
	err := s.cluster.commitBatch(number, h.term, changes, sent)
	if !confirmed || errors.Is(err, errFenced) {
		if !confirmed {
			return nil
		}
		return err
	}

	// A message in a failed batch was never accepted: its client is refused, and it must
	// not come with the next batch. Other changes stay, as nobody would repeat them.
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := h.batch[len(changes):]
	if err != nil {
		changes = slices.DeleteFunc(changes, func(c change) bool { return c.put != nil })
		h.batch = append(changes, rest...)
	} else {
		h.batch = slices.Clone(rest)
		s.extendLease(h, sent)
		s.showArrivals(number, h, changes)
	}

	// Only those are answered that had queued something when the batch was taken.
	for _, done := range h.waiters[:waiters] {
		done <- err
	}
	h.waiters = h.waiters[waiters:]
	return err
}

// showArrivals makes new messages visible that are durable. Caller holds s.mu.
func (s *Store) showArrivals(number int, h *holding, changes []change) {
	if s.held[number] != h {
		return
	}
	for _, c := range changes {
		if c.put != nil {
			h.messages[c.id] = c.put.clone()
			s.places[c.id] = number
		}
	}
}

// extendLease notes that a batch that was sent at some time was confirmed. Caller holds
// s.mu, unless nobody else knows h.
func (s *Store) extendLease(h *holding, sent time.Time) {
	if s.cluster.options.Lease > 0 {
		h.sure = sent.Add(s.cluster.options.Lease)
	}
}

// abandonPartition forgets a partition that another store owns.
func (s *Store) abandonPartition(number int, h *holding) {
	s.owning.Lock()
	defer s.owning.Unlock()
	s.mu.Lock()
	if s.held[number] != h {
		s.mu.Unlock()
		return
	}

	// First the store does not know the messages any more, so that no permit is given;
	// then the Deliverer hears of it.
	delete(s.held, number)
	ids := make(map[mail.ID]bool, len(h.messages))
	for id := range h.messages {
		s.forgetMessage(id)
		ids[id] = true
	}
	for _, c := range h.batch { // what was settled in vain is the new owner's too
		ids[c.id] = true
	}
	lost := func(id mail.ID) bool { return ids[id] }
	s.found = slices.DeleteFunc(s.found, lost)
	h.answerAll(errFenced)
	d := s.deliverer
	s.mu.Unlock()
	if d != nil {
		d.Abandon(lost)
	}
}

// answerAll answers the waiters. Caller holds the mu of the Store.
func (h *holding) answerAll(err error) {
	for _, done := range h.waiters {
		done <- err
	}
	h.waiters = nil
}

// Adopt implements store.Store.
func (s *Store) Adopt(fn func(mail.Pending) bool) (left int) {
	for {
		more, left := s.adoptOne(fn)
		if !more {
			return left
		}
	}
}

// adoptOne passes the first message on, if it is still there.
func (s *Store) adoptOne(fn func(mail.Pending) bool) (more bool, left int) {
	s.owning.Lock()
	defer s.owning.Unlock()
	s.mu.Lock()
	if len(s.found) == 0 {
		s.mu.Unlock()
		return false, 0
	}
	id := s.found[0]
	s.found = s.found[1:]
	left = len(s.found)
	s.mu.Unlock()
	p, ok := s.Find(id)
	return !ok || fn(p), left
}

// Kill ends the store as the death of its process would: what was not committed
// is gone. Others can claim its partitions after the Lease.
func (s *Store) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.places {
		s.forgetMessage(id)
	}
	for number, h := range s.held {
		if s.cluster.options.Lease == 0 {
			s.cluster.releasePartition(number, h.term)
		}
		h.answerAll(errClosed)
	}
	clear(s.held)
	s.found = nil
}
