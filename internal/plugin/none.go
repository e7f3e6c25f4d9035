package plugin

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"
)

// ErrNoStore is the error of a Store where nothing can be remembered: in a check of
// the configuration, or while no daemon runs.
var ErrNoStore = errors.New("plugin: there is no store here")

// noStore is the Store of an Env without one.
type noStore struct{}

func (noStore) Get(string) ([]byte, bool, error)        { return nil, false, ErrNoStore }
func (noStore) Put(string, []byte, time.Duration) error { return ErrNoStore }
func (noStore) Delete(string) error                     { return ErrNoStore }
func (noStore) Update(string, func([]byte, bool) ([]byte, time.Duration, bool)) error {
	return ErrNoStore
}
func (noStore) Range(string, func(string, []byte) bool) error { return ErrNoStore }

// unread is the Metrics of an Env without a reader of figures.
type unread struct{}

func (unread) Counter(string, string, ...string) Counter { return unread{} }
func (unread) Gauge(string, string, func() float64)      {}
func (unread) Add(float64, ...string)                    {}

// heldMetrics are the Metrics of one plugin of a set. The gauges of a generation that is
// prepared must not take the place of those in force: it may come to nothing.
type heldMetrics struct {
	Metrics
	held *held
}

// Gauge implements Metrics.
func (m heldMetrics) Gauge(name, help string, read func() float64) {
	m.held.do(func() { m.Metrics.Gauge(name, help, read) })
}

// held is what is done when a generation is in force.
type held struct {
	mu      sync.Mutex
	pending []func()
	free    bool
}

// do does something then, or now if it is.
func (h *held) do(something func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.free {
		something()
		return
	}
	h.pending = append(h.pending, something)
}

// release does what was held.
func (h *held) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, something := range h.pending {
		something()
	}
	h.pending, h.free = nil, true
}

// prefixed is the Mux of one plugin.
type prefixed struct {
	*routes
	plugin string
}

// Handle implements Mux. The handlers of a plugin that is listed twice are those of
// its first line.
func (p prefixed) Handle(pattern string, h http.Handler) {
	method, path, found := strings.Cut(pattern, " ")
	if found {
		method += " "
	} else {
		method, path = "", pattern
	}

	// The pattern of http.ServeMux has the method, a blank and the path.
	whole := method + "/plugins/" + p.plugin + strings.TrimLeft(path, " \t")
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.known[whole] {
		p.known[whole] = true
		p.mux.Handle(whole, h)
	}
}
