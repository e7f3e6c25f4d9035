// Package account keeps account of the recipients of one attempt: each is settled, or left
// in one of the groups that stay scheduled, and none is both or neither. It does no I/O.
package account

import (
	"slices"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/outbound/remember"
)

// Account is that of one attempt. Recipients are named by their position in the attempt's
// envelope; Left names them by their indices in the queue's envelope. It is not safe
// for concurrent use.
type Account struct {
	Index []int // of each recipient in the queue's envelope
	Left

	closed []bool // recipients that are settled, or in Later
}

// New returns the account of recipients, by their indices in the queue's envelope, which
// are all open.
func New(index []int) Account { return Account{Index: index, closed: make([]bool, len(index))} }

// Left is what an attempt leaves.
type Left struct {
	Later      []Rest
	Unrecorded []Unrecorded
	Kept       remember.Kept // for what stays scheduled
}

// Rest is recipients that stay scheduled, by their indices in the queue's envelope.
type Rest struct {
	Index    []int
	Attempts int
	Next     time.Time
}

// Unrecorded is settled recipients that the queue could not record: it is asked again
// until it does. That is no delivery: it waits for no place, rate or destination.
type Unrecorded struct {
	ID         mail.ID
	Domain     string
	Recipients []int
	Next       time.Time // when the queue is asked again
}

// Open returns the recipients that are neither settled nor left.
func (a *Account) Open() []int {
	var open []int
	for i, done := range a.closed {
		if !done {
			open = append(open, i)
		}
	}
	return open
}

// IsOpen reports whether a recipient is neither settled nor left.
func (a *Account) IsOpen(recipient int) bool { return !a.closed[recipient] }

// Keep leaves recipients in the schedule, as r says.
func (a *Account) Keep(recipients []int, r Rest) {
	if len(recipients) == 0 {
		return
	}
	r.Index = a.Close(recipients)
	a.Later = append(a.Later, r)
}

// Close notes that recipients are settled, and returns their indices.
func (a *Account) Close(recipients []int) []int {
	for _, i := range recipients {
		a.closed[i] = true
	}
	return a.Indices(recipients)
}

// Indices returns recipients by their indices in the queue's envelope.
func (a *Account) Indices(recipients []int) []int {
	index := make([]int, len(recipients))
	for n, i := range recipients {
		index[n] = a.Index[i]
	}
	return index
}

// Decided returns the recipients, by their indices in the queue's envelope, without those
// that are due again at once.
func (a *Account) Decided(now time.Time) []int {
	return slices.DeleteFunc(slices.Clone(a.Index), func(i int) bool {
		return slices.ContainsFunc(a.Later, func(r Rest) bool { return !r.Next.After(now) && slices.Contains(r.Index, i) })
	})
}
