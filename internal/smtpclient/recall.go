package smtpclient

import (
	"context"
	"sync"
)

// Recall ends what is done with its context, unless that has come to the content
// of a message: from there on only the time that the server needs counts, because
// whoever gives up then has transferred it in vain, or does not know whether it
// was taken. Its methods may be called from any goroutine.
type Recall struct {
	cancel context.CancelCauseFunc

	mu     sync.Mutex
	beyond bool  // content is being sent
	cause  error // of a recall that came then
}

// recallKey finds the Recall of a context.
type recallKey struct{}

// WithRecall returns a context for Sends that the Recall ends. done frees what
// belongs to it, and ends it too.
func WithRecall(ctx context.Context) (recallable context.Context, r *Recall, done func()) {
	r = &Recall{}
	ctx, r.cancel = context.WithCancelCause(ctx)
	return context.WithValue(ctx, recallKey{}, r), r, func() { r.cancel(nil) }
}

// End ends the context with a cause; while content is sent it only notes that, and
// ends it before anything else is tried.
func (r *Recall) End(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.beyond {
		r.cause = cause
		return
	}
	r.cancel(cause)
}

// proceed is called before content is sent: from here on there is no way back.
// It returns false if the context has ended.
func (r *Recall) proceed(ctx context.Context) bool {
	if r == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beyond = ctx.Err() == nil
	return r.beyond
}

// resume is called when the server has answered or is lost.
func (r *Recall) resume() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.beyond = false
	if r.cause != nil {
		r.cancel(r.cause)
	}
}

// recallOf returns the Recall of a context, which may be nil, as the context.
func recallOf(ctx context.Context) *Recall {
	if ctx == nil {
		return nil
	}
	r, _ := ctx.Value(recallKey{}).(*Recall)
	return r
}
