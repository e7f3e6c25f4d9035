// Package mem is a store.Store in memory, for the tests of its users.
//
// New returns the store of one machine: whatever is recorded is safe at once, and
// it owns every message for good.
//
// A Cluster is shared by several stores, as processes share a replicated one. It
// holds the durable messages, in partitions with one owner at a time each. An owner
// works on its own copy of the partition, and its changes become durable by the next
// batch:
//
//	           Claim                     Commit
//	Cluster ──────────▶ copy of owner ────────────▶ Cluster, unless somebody
//	          Adopt      Settle, Defer               claimed meanwhile: Abandon
//
// Each Claim begins a term, and a batch of an earlier term is refused whole. An
// owner is not sure any more when its last batch was confirmed longer than
// Options.Lease ago: it permits nothing until a batch is confirmed again. Others may claim
// the partition from then on. With Options.Manual nothing of this happens by
// itself, so that a test can take every order: claim, batch, lost confirmation,
// pause.
package mem

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"tarishi/internal/mail"
)

// Options is how a Cluster works. The zero value is one partition that its first
// store owns for good.
type Options struct {
	Partitions int           // 0: 1
	Lease      time.Duration // for how long a confirmed batch makes an owner sure; 0: for good
	Manual     bool          // only Store.Claim and Store.Commit claim and commit
	Dir        string        // of the files of Store.Path; "": it fails
	Now        func() time.Time
}

// Cluster is what several stores share. Its methods may be called from any
// goroutine.
type Cluster struct {
	options Options

	mu         sync.Mutex
	partitions []*partition
	sequence   uint64 // of the last message
	failure    error  // of every batch; nil: none
}

// partition is one part of the durable messages.
type partition struct {
	owner    *Store // nil: nobody
	term     uint64 // counts the claims
	renewed  time.Time
	messages map[mail.ID]*message
}

// NewCluster returns a cluster without messages.
func NewCluster(o Options) *Cluster {
	if o.Partitions == 0 {
		o.Partitions = 1
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cluster{options: o}

	// Partitions exist from the start and never move. Only their owners change.
	for range o.Partitions {
		c.partitions = append(c.partitions, &partition{messages: map[mail.ID]*message{}})
	}
	return c
}

// New returns the store of one machine.
func New() *Store { return NewCluster(Options{}).Open() }

// Open adds a store, which claims what nobody owns unless all is Manual.
func (c *Cluster) Open() *Store {
	s := &Store{cluster: c, held: map[int]*holding{}, places: map[mail.ID]int{}, names: map[mail.ID]string{}}
	if !c.options.Manual {
		for number := range c.partitions {
			s.Claim(number)
		}
	}
	return s
}

// Fail makes every batch fail with err until it is called with nil.
func (c *Cluster) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failure = err
}

// Owner returns the store that owns the partition with a message, and the term: nil
// if nobody knows the message any more.
func (c *Cluster) Owner(id mail.ID) (owner *Store, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.partitions {
		if p.messages[id] != nil {
			return p.owner, p.term
		}
	}
	return nil, 0
}

// Messages returns the IDs of all messages that are durable, as they came.
func (c *Cluster) Messages() (ids []mail.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []*message
	for _, p := range c.partitions {
		for _, m := range p.messages {
			all = append(all, m)
		}
	}
	for _, m := range inOrder(all) {
		ids = append(ids, m.env.ID)
	}
	return ids
}

func inOrder(all []*message) []*message {
	slices.SortFunc(all, func(a, b *message) int { return int(a.sequence) - int(b.sequence) })
	return all
}

// errFenced refuses the batch of a former owner.
var errFenced = errors.New("mem: another store owns the partition")

// claimFor makes a store the owner of a partition that nobody owns, or with an owner that is
// not sure any more. It returns a copy of the messages and the term.
func (c *Cluster) claimFor(s *Store, number int, now time.Time) (messages map[mail.ID]*message, term uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.partitions[number]
	if p.owner == s || p.owner != nil && (c.options.Lease == 0 || now.Before(p.renewed.Add(c.options.Lease))) {
		return nil, 0, false
	}

	// The term goes up with each claim. It is what makes every batch of the former owner fail.
	p.owner, p.renewed = s, now
	p.term++
	messages = make(map[mail.ID]*message, len(p.messages))
	for id, m := range p.messages {
		messages[id] = m.clone()
	}
	return messages, p.term, true
}

// commitBatch makes a batch durable. The same batch may come again.
func (c *Cluster) commitBatch(number int, term uint64, changes []change, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.partitions[number]

	// The term is compared before a failure of the test is: a former owner has to learn that it
	// lost, even while nothing can be written.
	if p.term != term {
		return errFenced
	}
	if c.failure != nil {
		return c.failure
	}
	p.renewed = now
	for _, ch := range changes {
		ch.applyTo(p.messages)
	}
	return nil
}

// releasePartition gives a partition up, so that anybody may claim it at once.
func (c *Cluster) releasePartition(number int, term uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p := c.partitions[number]; p.term == term {
		p.owner = nil
	}
}

// nextSequence numbers a message, which must be a new one.
func (c *Cluster) nextSequence(id mail.ID) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	// An ID must be new in the whole cluster: its message may be in a partition of another owner.
	for _, p := range c.partitions {
		if p.messages[id] != nil {
			return 0, fmt.Errorf("queue: message %s is there already", id)
		}
	}
	c.sequence++
	return c.sequence, nil
}
