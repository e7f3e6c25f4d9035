// Package store is the contract between the parts that accept, deliver and
// administer mail and the place where accepted mail waits. It holds no logic:
// package disk keeps the messages of one machine, package mem is its twin in
// memory for tests, and package storetest holds every store to this contract.
//
// # Promises
//
//   - I1: Put returns nil only after envelope and content are on stable storage.
//     Only then may a client get its 250.
//   - I2: A state change is on record before anything that depends on it is
//     deleted.
//   - I3: Settle, Defer and SetNotes do not wait for stable storage. Losing what
//     they wrote can repeat an attempt or lose notes, never a message. Duplicates
//     after a crash are at most the attempts in flight plus what the last unsynced
//     batch settled.
//   - I4: A failed write or sync is never believed: the messages that it held are
//     refused with 451 or 452, nothing is acknowledged from the same place again,
//     and Healthy reports the trouble until a later write has succeeded.
//   - I5: A DSN is durable before the failed message is dropped: callers Put the
//     DSN before they Settle the failure, and a store keeps that order.
//   - I6: Nothing is deleted because it cannot be read. Damage is set aside with a
//     reason and a log line; every other message lives on, and no single one keeps
//     the store from opening.
//   - I7: One store, one daemon. A second process that opens the same store fails,
//     or owns other partitions of it.
//
// # A message
//
// Messages are named by their mail.ID and recipients by their indices in
// Envelope.Recipients. A recipient is pending until it is settled: delivered, or
// failed with its DSN in a store. A message leaves with its last pending recipient.
//
//	        Put returns nil                    Settle of the last one, Remove
//	(none) ─────────────────▶ here, pending ───────────────────────────────▶ (gone)
//	                           │   ▲     │
//	                   Abandon │   │     │ damage found
//	                           ▼   │     ▼
//	               another owner's │   set aside, ErrUnknown
//	                           └───┘
//	                           Adopt
//
// # Ownership
//
// The messages of a store that several processes share are divided into
// partitions, and each partition has one owner at a time. Only the owner attempts
// its messages. A message that came to this process otherwise than by its own Put
// (it was there at the start, or its partition was claimed since) is passed on by
// Adopt. One that another process takes over is lost: its ID is unknown from then
// on, the Deliverer learns of it by Abandon, and what was recorded and not yet
// durable is dropped without an error, for the new owner does not know it either.
//
// An owner that has not heard from the others for a while cannot know whether it
// still is one. Permit then fails with ErrPaused, until the ownership is renewed
// or the partition abandoned. So a process that was suspended in the middle of an
// attempt finds out before it sends the final dot.
//
// A store of one machine owns everything for good: it adopts at the start only,
// abandons nothing and permits all.
//
// # Errors
//
// Put, Room, Healthy and the methods of Body fail with a *reply.Reply of class 4.
// All other errors are temporary, but for those below.
package store

import (
	"context"
	"errors"
	"io"
	"time"

	"tarishi/internal/mail"
)

// Errors that stores wrap.
var (
	ErrUnknown  = errors.New("queue: no such message")       // it is not in the store, or not here any more
	ErrPaused   = errors.New("queue: ownership is not sure") // ask again later: it is renewed, or the message abandoned
	ErrReadOnly = errors.New("queue: opened to read only")
	ErrNotes    = errors.New("queue: notes cannot be kept") // they are no JSON, or too large
)

// IsUnknown reports whether err says that a message is not in the store.
func IsUnknown(err error) bool { return errors.Is(err, ErrUnknown) }

// Store holds accepted messages. Its methods may be called from any goroutine.
type Store interface {
	Intake
	Delivery
	Administration

	// Run does the work in the background until ctx ends. Messages are safe
	// without it.
	Run(ctx context.Context) error
	// Close makes durable what was recorded and gives the store up. Readers that
	// are open stay valid.
	Close() error
}

// Intake is what accepts messages.
type Intake interface {
	// NewBody returns an empty Body. Call its Discard at the end.
	NewBody() Body
	// Put takes responsibility for a message. The envelope is not kept. Of the content
	// nothing is used after Put has returned but the slices of a mail.Memory, which
	// never change.
	Put(env *mail.Envelope, c mail.Content) error
	// Room returns nil if a message of size bytes can be accepted now.
	Room(size int64) error
	// Healthy returns nil, or why no message can be accepted.
	Healthy() error
}

// Body takes the content of a message while it arrives. Write, Spill and Content
// are for one goroutine, and their errors stay.
type Body interface {
	io.Writer
	// Held is how many bytes of memory the body takes.
	Held() int64
	// Spill gives that memory back, if the store has another place.
	Spill() error
	// Content ends the body. It stays readable until Discard and until the readers
	// are closed that were opened before.
	Content() (mail.Content, error)
	// Discard frees the body. A message that was put is not touched.
	Discard()
}

// Delivery is what attempts and settles messages.
type Delivery interface {
	// Watch names the one Deliverer of the store; call it before Adopt.
	Watch(d Deliverer)
	// Adopt calls fn with every message that came otherwise than by Put and was not
	// passed on yet, until fn returns false. It returns how many are left: because
	// fn did not want them, or because they cannot be read now.
	Adopt(fn func(mail.Pending) bool) (left int)
	// Permit returns nil if this process owns the message and may begin an attempt,
	// or send it to its end. It does no I/O.
	Permit(id mail.ID) error
	// Load returns the envelope with all recipients that were accepted, and the
	// content, which can be opened as long as the message is here.
	Load(id mail.ID) (*mail.Envelope, mail.Content, error)
	// Find returns the pending recipients of a message.
	Find(id mail.ID) (p mail.Pending, ok bool)
	// Settle notes that nothing is left to do for recipients. Recipients that are
	// settled already are no error.
	Settle(id mail.ID, recipients []int) error
	// Defer notes when recipients are to be tried again (the zero time: at once),
	// after how many failed attempts, which never become fewer, and the reply that
	// deferred them. Settled recipients are passed over.
	Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error
	// SetNotes changes the notes that Load returns: values by dotted path, nil
	// removes. An error that wraps ErrNotes says that nothing was changed.
	SetNotes(id mail.ID, values map[string]any) error
	// Hold keeps recipients from being tried until Release; nil means all that are
	// not settled. It returns when that is durable.
	Hold(id mail.ID, recipients []int) error
	// Release ends what Hold began, in the same way.
	Release(id mail.ID, recipients []int) error
	// Path returns the name of a file with the content. It is there at least until
	// the hook that asked for it has returned.
	Path(id mail.ID) (string, error)
}

// Administration is for operators.
type Administration interface {
	// Walk calls fn with every message, the oldest first where the order is known,
	// until fn returns false. What comes or goes meanwhile may be seen or not, what
	// cannot be read is left out.
	Walk(fn func(mail.Pending) bool)
	// WalkUnreadable calls fn with every message that could not be read when it was
	// last tried, and why, until fn returns false.
	WalkUnreadable(fn func(id mail.ID, reason string) bool)
	// Unreadable counts what could not be read when it was last tried.
	Unreadable() Unreadable
	// Stat counts messages, recipients and bytes.
	Stat() Stat
	// Remove takes a message out, whatever its recipients wait for. It returns when
	// that is durable.
	Remove(id mail.ID) error
	// Sync returns when everything recorded so far is durable.
	Sync() error
}

// Deliverer attempts what a store holds; *outbound.Outbound is one. The store
// calls it without holding a lock that its own methods take.
type Deliverer interface {
	// Adopt says that Store.Adopt has more to pass on. It returns at once.
	Adopt()
	// Abandon says that messages are another process's by now: those for which lost
	// returns true. Messages are among them that were settled here, if that was not
	// durable: they may come back. No message is passed on by Store.Adopt while its Abandon runs.
	// When it returns, no attempt at them that was scheduled before will begin, and
	// those before their final dot have been stopped.
	Abandon(lost func(mail.ID) bool)
}

// Stat is how much is in a store. Messages with a state that was not read since the
// start count as messages, and not yet in the other two.
type Stat struct {
	Messages   int
	Recipients int   // not settled
	Bytes      int64 // of content
}
