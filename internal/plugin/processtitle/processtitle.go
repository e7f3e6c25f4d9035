// Package processtitle is the plugin process_title: it shows counters in the title
// of the process. See README.md.
//
// It has no settings. A reload keeps the instance, and with it the counters.
package processtitle

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
)

// Name is the plugin's name in config/plugins.
const Name = "process_title"

// tick is how often the title changes while anything happens.
const tick = time.Second

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	c := &counters{set: env.Title}
	if c.set == nil { // a system without titles
		c.set = func(string) {}
	}
	return c, nil
}

// Register implements plugin.Plugin.
func (c *counters) Register(h plugin.Host) {
	count := func(what *series, current int) hook.Handler {
		return func(context.Context, *hook.Event) hook.Verdict {
			c.count(what, current)
			return hook.Proceed()
		}
	}
	// Counting takes no time, so that it needs no goroutine.
	h.Timeout(0)
	h.On(hook.OnConnectInit, "hook_connect_init", 0, count(&c.connections, 1))
	h.On(hook.OnRcpt, "hook_rcpt", -100, count(&c.recipients, 0)) // before one that decides: refused ones count too
	h.On(hook.OnData, "hook_data", -100, count(&c.messages, 0))
	h.On(hook.OnDisconnect, "hook_disconnect", 0, count(nil, -1))
}

// Start implements plugin.Starter: it shows the first title.
func (c *counters) Start(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.set(c.title(0))
	return nil
}

// Reload implements plugin.Reloader: there are no settings, and the counters go on.
func (c *counters) Reload(plugin.Env) (swap func(), err error) { return func() {}, nil }

// Close implements io.Closer: the title stays as it is.
func (c *counters) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.timer != nil {
		c.timer.Stop()
	}
	return nil
}

// series is one counter and its growth second by second.
type series struct{ total, before, last, most int }

// step closes a second.
func (s *series) step() {
	s.last, s.before = s.total-s.before, s.total
	s.most = max(s.most, s.last)
}

// rates are those of the last second, on average, and of the busiest second.
func (s *series) rates(seconds float64) string {
	return fmt.Sprintf("%d/%s/%d", s.last, ratio(float64(s.total), seconds), s.most)
}

// counters are what the title shows.
type counters struct {
	set func(string)

	mu                                sync.Mutex
	current                           int // open connections
	connections, recipients, messages series
	start                             time.Time // of the first event
	pending                           bool      // step will be called
	timer                             *time.Timer
	closed                            bool
}

// count adds one to what, if it is not nil, and so many open connections.
func (c *counters) count(what *series, current int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current += current
	if what != nil {
		what.total++
	}
	// Averages are over the time in which there was something to count.
	if c.start.IsZero() {
		c.start = time.Now()
	}

	// A server without work needs no timer.
	if !c.pending && !c.closed {
		c.pending = true
		c.timer = time.AfterFunc(tick, c.step)
	}
}

// step sets the title. It comes again as long as there is a rate to count down.
func (c *counters) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	// All close the same second, so that their rates are of one time.
	for _, s := range []*series{&c.connections, &c.recipients, &c.messages} {
		s.step()
	}
	c.set(c.title(time.Since(c.start).Seconds()))
	if c.pending = c.connections.last+c.recipients.last+c.messages.last > 0; c.pending {
		c.timer.Reset(tick)
	}
}

// title is Haraka's, as far as it is about one process.
func (c *counters) title(seconds float64) string {
	return fmt.Sprintf("tarishi cn=%d cc=%d cps=%s rcpts=%d/%s rps=%s msgs=%d/%s mps=%s",
		c.connections.total, c.current, c.connections.rates(seconds),
		c.recipients.total, ratio(float64(c.recipients.total), float64(c.messages.total)), c.recipients.rates(seconds),
		c.messages.total, ratio(float64(c.messages.total), float64(c.connections.total)), c.messages.rates(seconds))
}

// ratio returns a/b with two digits behind the point at most; 0 where b is 0.
func ratio(a, b float64) string {
	if b == 0 {
		return "0"
	}
	return strconv.FormatFloat(float64(int(a/b*100+0.5))/100, 'f', -1, 64)
}
