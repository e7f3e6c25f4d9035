// Package sending has the context of an attempt to send one message, which knows how
// far the message has come. Relay and queue make one for each attempt; the client that
// sends reports its progress with Begin, MayEnd and Answered.
package sending

import (
	"context"
	"sync"
)

// Context is a context for all that is done to send one message, to one server after
// another. It ends with its parent. Recall, GiveUp and Cancel end it earlier, each as
// far as that is wise: once content is sent only the time that the server needs counts,
// because giving up then has transferred it in vain, and once all of it is sent the
// message may have been taken. Its methods may be called from any goroutine.
type Context struct {
	context.Context
	cancel context.CancelCauseFunc
	guard  Guard // nil: none

	mu      sync.Mutex
	reached progress // of the transaction that is under way
	cause   error    // ends the context when the server has answered
}

// Guard is asked before a message is sent to its end.
type Guard interface {
	// Permit returns nil, or why the message must not be sent to its end. It must be
	// quick.
	Permit() error
}

// progress is how far a message has come.
type progress uint8

const (
	envelopeOnly progress = iota
	contentBegun
	contentEnded // the final dot or the last chunk, too
)

// key finds the Context among the values of another.
type key struct{}

// New returns a Context that ends with ctx at the latest. Cancel must be called at
// its end.
func New(ctx context.Context) *Context {
	s := &Context{}
	s.Context, s.cancel = context.WithCancelCause(ctx)
	return s
}

// Guard sets the guard that is asked before the message is sent to its end; its error
// ends the Context. It is to be called before anything is sent.
func (s *Context) Guard(g Guard) { s.guard = g }

// Value implements context.Context.
func (s *Context) Value(k any) any {
	if k == (key{}) {
		return s
	}
	return s.Context.Value(k)
}

// Recall ends it with a cause, unless content is being sent.
func (s *Context) Recall(cause error) { s.endBefore(contentBegun, cause) }

// GiveUp ends it with a cause, unless the message has been sent to its end.
func (s *Context) GiveUp(cause error) { s.endBefore(contentEnded, cause) }

// Cancel ends it in any case.
func (s *Context) Cancel(cause error) { s.cancel(cause) }

// endBefore ends it now, or before anything else is tried.
func (s *Context) endBefore(limit progress, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reached < limit {
		s.cancel(cause)
	} else if s.cause == nil {
		s.cause = cause
	}
}

// enter is called before the message gets so far, and returns false if it must not
// because the context has ended.
func (s *Context) enter(next progress) bool {
	// The guard may need a lock that is held while somebody waits for s.mu, to end this.
	if next == contentEnded && s.guard != nil {
		if err := s.guard.Permit(); err != nil {
			s.cancel(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Err() != nil {
		return false
	}
	s.reached = next
	return true
}

// of returns the Context of a context, if it has one.
func of(ctx context.Context) (*Context, bool) {
	s, ok := ctx.Value(key{}).(*Context)
	return s, ok
}

// Begin reports whether a client may begin to send the content. Begin and MayEnd are
// always true for a context without a Context.
func Begin(ctx context.Context) bool {
	s, ok := of(ctx)
	return !ok || s.enter(contentBegun)
}

// MayEnd reports whether a client may send the message to its end.
func MayEnd(ctx context.Context) bool {
	s, ok := of(ctx)
	return !ok || s.enter(contentEnded)
}

// Answered is called when the server has answered to the message, or when it can be
// sent to another one without risk.
func Answered(ctx context.Context) {
	s, ok := of(ctx)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reached = envelopeOnly
	if s.cause != nil {
		s.cancel(s.cause)
	}
}
