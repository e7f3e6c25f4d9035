// Package storetest holds a store to the contract of package store: Run is the same
// suite for all of them. It tests the promises I1 to I7 and every method.
//
// Crashes are tested against a model: after each, the store must hold what the model
// had at some moment since the last operation that promises to be durable.
package storetest

import (
	"testing"

	"tarishi/internal/mail"
	"tarishi/internal/store"
)

// Place is where a store under test keeps its messages. Open and Crash are needed.
type Place struct {
	// Open opens the store, or opens it again after Close or Crash.
	Open func() (store.Store, error)
	// Crash ends the process that has the store open, and the power: whatever was not
	// durable is gone. The store is not used any more.
	Crash func()

	// CrashAt has the crash come with the n-th write or sync from now on, and Crashed
	// reports whether it has; nil: there is no such moment within an operation.
	CrashAt func(n int)
	Crashed func() bool
	// Fail makes every write and sync fail until it is called with nil; nil: they
	// cannot fail.
	Fail func(err error)
	// Damage changes a bit of a large content while the store is closed; nil: nothing
	// can be damaged.
	Damage func(t *testing.T, id mail.ID)
}

// Run tests the store that open gives a new place for.
func Run(t *testing.T, open func(t *testing.T) *Place) {
	for _, test := range []struct {
		name string
		run  func(t *testing.T, p *Place)
	}{
		{"Put", testPut},
		{"Body", testBody},
		{"Settle", testSettle},
		{"Defer", testDefer},
		{"Notes", testNotes},
		{"Hold", testHold},
		{"Remove", testRemove},
		{"Walk", testWalk},
		{"Adopt", testAdopt},
		{"Path", testPath},
		{"Run", testRun},
		{"DurableWhenPutReturns", testDurable},
		{"FailedWrites", testFailure},
		{"ReportBeforeFailure", testReport},
		{"Damage", testDamage},
		{"OneDaemon", testOneDaemon},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}

	// The last two need a new place for each of their rounds.
	t.Run("Model", func(t *testing.T) { testModel(t, open) })
	t.Run("CrashAnywhere", func(t *testing.T) { testCrashAnywhere(t, open) })
}

// openStore opens the store and closes it at the end of the test.
func (p *Place) openStore(t *testing.T) store.Store {
	t.Helper()
	s, err := p.Open()
	noError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// reopenStore is what another process finds after an orderly end.
func (p *Place) reopenStore(t *testing.T, s store.Store) store.Store {
	t.Helper()
	noError(t, s.Close())
	return p.openStore(t)
}

// openAfterCrash is what another process finds after a crash.
func (p *Place) openAfterCrash(t *testing.T) store.Store {
	t.Helper()
	p.Crash()
	return p.openStore(t)
}
