package sending

import (
	"context"
	"errors"
	"testing"
)

// TestEnds: how far the message has come decides which of its owners can still end the
// attempt, and when.
func TestEnds(t *testing.T) {
	cause := errors.New("enough")
	type step func(*Context)
	begin := func(c *Context) { Begin(c) }
	end := func(c *Context) { Begin(c); MayEnd(c) }
	answered := func(c *Context) { end(c); Answered(c) }
	recall, giveUp, cancel := func(c *Context) { c.Recall(cause) }, func(c *Context) { c.GiveUp(cause) }, func(c *Context) { c.Cancel(cause) }
	for _, tt := range []struct {
		name        string
		reached, by step
		ends        bool // at once
	}{
		{"recalled before the content", func(*Context) {}, recall, true},
		{"recalled within the content", begin, recall, false},
		{"recalled at the end", end, recall, false},
		{"recalled before the next server", answered, recall, true},
		{"given up before the content", func(*Context) {}, giveUp, true},
		{"given up within the content", begin, giveUp, true},
		{"given up at the end", end, giveUp, false},
		{"cancelled at the end", end, cancel, true},
	} {
		c := New(t.Context())
		tt.reached(c)
		tt.by(c)
		if ended := context.Cause(c) == cause; ended != tt.ends {
			t.Errorf("%s: ended %v, %v", tt.name, ended, context.Cause(c))
		}
		// What came too late holds as soon as the server has answered.
		if Answered(c); context.Cause(c) != cause {
			t.Errorf("%s: goes on after the answer", tt.name)
		}
		if Begin(c) || MayEnd(c) {
			t.Errorf("%s: goes on", tt.name)
		}
		c.Cancel(nil)
	}
}

type other struct{}

// TestInnerContext: it is found through contexts that were made of it, and others have
// none.
func TestInnerContext(t *testing.T) {
	c := New(t.Context())
	inner, cancel := context.WithCancel(context.WithValue(c, other{}, 1))
	defer cancel()
	if !Begin(inner) || !MayEnd(inner) {
		t.Error("may not")
	}
	c.GiveUp(errors.New("too late"))
	if inner.Err() != nil {
		t.Error("ended although all of it was sent")
	}
	if Answered(inner); inner.Err() == nil {
		t.Error("goes on")
	}
	if !Begin(t.Context()) || !MayEnd(t.Context()) {
		t.Error("a context without one may not")
	}
	Answered(t.Context())
}
