package smtpclient

import (
	"context"
	"errors"
)

// endingKey is where WithEnding keeps its function.
type endingKey struct{}

// WithEnding returns a context with which Send calls ask when all of a message but
// its end has been sent: the final dot, or the last chunk. With true it sends
// that, and the message may be taken from then on. With false it does not, and
// closes the connection; ask has then ended the context, or is about to.
//
// With several transactions, one after another, ask is called for each.
func WithEnding(ctx context.Context, ask func() bool) context.Context {
	return context.WithValue(ctx, endingKey{}, ask)
}

// MayEnd asks on behalf of a sender whether a message may be ended; true if the
// context is not one of WithEnding.
func MayEnd(ctx context.Context) bool {
	ask, ok := ctx.Value(endingKey{}).(func() bool)
	return !ok || ask()
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
