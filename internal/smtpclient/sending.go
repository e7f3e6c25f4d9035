package smtpclient

import (
	"context"
	"errors"
	"sync"
)

// Sending is a context for all that is done to send one message, to one server after
// another. It ends with its parent, and those who cannot wait any longer end it
// earlier, each as far as that is wise: once content is sent only the time that the
// server needs counts, because whoever gives up then has transferred it in vain, and
// once all of it is sent the message may have been taken. Its methods may be called
// from any goroutine.
type Sending struct {
	context.Context
	cancel context.CancelCauseFunc
	guard  Guard // nil: nobody

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

// sendingKey finds the Sending among the values of a context.
type sendingKey struct{}

// NewSending returns a Sending that ends with ctx at the latest. Cancel must be called
// at its end.
func NewSending(ctx context.Context) *Sending {
	s := &Sending{}
	s.Context, s.cancel = context.WithCancelCause(ctx)
	return s
}

// Guard names who is asked before the message is sent to its end: an error ends the
// Sending. It is to be called before anything is sent.
func (s *Sending) Guard(g Guard) { s.guard = g }

// Value implements context.Context.
func (s *Sending) Value(key any) any {
	if key == (sendingKey{}) {
		return s
	}
	return s.Context.Value(key)
}

// Recall ends it with a cause, unless content is being sent.
func (s *Sending) Recall(cause error) { s.endBefore(contentBegun, cause) }

// GiveUp ends it with a cause, unless the message has been sent to its end.
func (s *Sending) GiveUp(cause error) { s.endBefore(contentEnded, cause) }

// Cancel ends it in any case.
func (s *Sending) Cancel(cause error) { s.cancel(cause) }

// endBefore ends it now, or before anything else is tried.
func (s *Sending) endBefore(limit progress, cause error) {
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
func (s *Sending) enter(next progress) bool {
	// Whoever the guard asks may just be waiting for s.mu, to end the Sending.
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

// sendingOf returns the Sending of a context, if it has one.
func sendingOf(ctx context.Context) (*Sending, bool) {
	s, ok := ctx.Value(sendingKey{}).(*Sending)
	return s, ok
}

// MayEnd asks on behalf of a sender that is no Client whether a message may be sent to
// its end. It is always true for a context without a Sending.
func MayEnd(ctx context.Context) bool {
	s, ok := sendingOf(ctx)
	return !ok || s.enter(contentEnded)
}

// Answered tells on behalf of such a sender that the server has answered to the
// message.
func Answered(ctx context.Context) {
	s, ok := sendingOf(ctx)
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

var errEnding = errors.New("given up before the end of the message")

// mayEnd is MayEnd for this connection; the failure says that it is not.
func (c *Client) mayEnd() *Failure {
	if MayEnd(c.ctx) {
		return nil
	}
	f := c.wire(StageContent, errEnding)
	f.aborted = true
	return f
}
