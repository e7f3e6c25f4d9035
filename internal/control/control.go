// Package control is the table of what an administrator can ask of the daemon and
// have it do. One row, an Operation, is all that a new one takes: from the rows come
//
//	the request of HTTP     NewHandler, for package web; Client asks it
//	the command             its flags, arguments, help and exit code, in cmd/tarishi
//	the check of parameters the same for both
//	--json and the text     the elements of the answer, and the row's Printer
//	the reference           the tables in docs/queue-commands.md
//
// The rows themselves stand where their functions are: package mailq has those of
// the queue.
//
// An answer is one object, a stream of them, or the bytes of a message. Streams are
// never held in memory, on neither side. A stream that is cut off ends with an
// error, never as if it were whole.
//
// Errors wrap ErrUnknown, ErrInvalid, ErrBusy or ErrStopped; all others are
// failures of the daemon, its files or the connection.
package control

import (
	"context"
	"errors"

	"tarishi/internal/web"
)

// The errors of operations.
var (
	ErrUnknown = errors.New("not in the queue")
	ErrInvalid = errors.New("invalid request")
	ErrBusy    = errors.New("too many listings at a time, try again later")
	ErrStopped = web.ErrStopped // no daemon runs
)

// Caller performs operations: a Client in the daemon, or a Table in this process.
type Caller interface {
	// Call performs an operation and calls emit with each element of its answer,
	// which is only valid during that call. An error of emit ends the operation
	// and is returned.
	Call(ctx context.Context, op *Operation, a Arguments, emit func(any) error) error
	// Close gives up what the Caller uses.
	Close() error
}

// Table is operations that this process performs itself.
type Table struct {
	Operations []Operation
	Release    func() error // what Close does; nil: nothing
}

// Call implements Caller.
func (t *Table) Call(ctx context.Context, op *Operation, a Arguments, emit func(any) error) error {
	// The caller's row describes the operation, ours has the function.
	own := findOperation(t.Operations, op.Name)
	if own == nil {
		return ErrStopped
	}
	if err := own.Check(a, ""); err != nil {
		return err
	}
	return own.stream(ctx, a, emit)
}

// Close implements Caller.
func (t *Table) Close() error {
	if t.Release == nil {
		return nil
	}
	return t.Release()
}

func findOperation(all []Operation, name string) *Operation {
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// Each performs an operation with elements of type T, and calls fn with each of
// them.
func Each[T any](ctx context.Context, c Caller, op *Operation, a Arguments, fn func(*T) error) error {
	return c.Call(ctx, op, a, func(element any) error { return fn(element.(*T)) })
}
