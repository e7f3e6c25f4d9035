package mailq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
	"tarishi/internal/store"
	"tarishi/internal/store/mem"
	"tarishi/internal/web"
)

// memory is a store in memory that may misbehave.
type memory struct {
	*mem.Store
	contents map[mail.ID]mail.Content // in place of the real ones
	sick     error
	endless  bool          // Walk goes round until it is told to stop
	walking  chan struct{} // Walk says on it that it began, if it is set,
	proceed  chan struct{} // and waits for this
	damaged  mail.ID       // cannot be loaded
}

var errDamage = errors.New("damaged on disk")

func newMemory(t *testing.T, messages ...*mail.Envelope) *memory {
	t.Helper()
	q := &memory{Store: mem.New(), contents: map[mail.ID]mail.Content{}}
	for _, env := range messages {
		if err := q.Put(env, mail.Memory{[]byte("Subject: " + string(env.ID) + "\r\n\r\nHello.\r\n")}); err != nil {
			t.Fatal(err)
		}
	}
	return q
}

func (q *memory) Walk(fn func(mail.Pending) bool) {
	if q.walking != nil {
		q.walking <- struct{}{}
		<-q.proceed
	}
	more := true
	for again := true; again && more; again = q.endless {
		q.Store.Walk(func(p mail.Pending) bool {
			more = p.ID == q.damaged || fn(p)
			return more
		})
	}
}

func (q *memory) Find(id mail.ID) (mail.Pending, bool) {
	p, ok := q.Store.Find(id)
	return p, ok && id != q.damaged
}

func (q *memory) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	if id == q.damaged {
		return nil, nil, errDamage
	}
	env, c, err := q.Store.Load(id)
	if other := q.contents[id]; other != nil && err == nil {
		c = other
	}
	return env, c, err
}

func (q *memory) Healthy() error { return q.sick }

func (q *memory) Unreadable() store.Unreadable {
	if q.damaged == "" {
		return store.Unreadable{}
	}
	return store.Unreadable{Messages: 1, Reason: errDamage.Error()}
}

func (q *memory) WalkUnreadable(fn func(mail.ID, string) bool) {
	if q.damaged != "" {
		fn(q.damaged, errDamage.Error())
	}
}

// flushes is an Outbound that remembers what was flushed and forgotten.
type flushes struct {
	mu        sync.Mutex
	domains   []string
	forgotten []mail.ID
	steered   []string
	sick      error
}

func (f *flushes) Hold(id mail.ID, recipients []int) error {
	return f.note("hold", id, recipients)
}

func (f *flushes) Release(id mail.ID, recipients []int) error {
	return f.note("release", id, recipients)
}

func (f *flushes) note(what string, id mail.ID, recipients []int) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.sick != nil {
		return f.sick
	}
	f.steered = append(f.steered, fmt.Sprintf("%s %s %v", what, id, recipients))
	return nil
}

func (f *flushes) Explain(id mail.ID) []outbound.Waiting {
	return []outbound.Waiting{
		{Domain: "x.test", Recipients: []int{0, 2}, Attempts: 3, Next: born, Reason: "why " + string(id)},
		{Domain: "y.test", Recipients: []int{1}, Reason: "ready"},
		{Domain: "z.test", Recipients: []int{6}, Reason: "held"}, // one by one, in no order
		{Domain: "z.test", Recipients: []int{5}, Reason: "ready"},
		{Domain: "z.test", Recipients: []int{4}, Reason: "held"},
	}
}

func (f *flushes) Destinations(limit int) []schedule.DestinationStat {
	all := []schedule.DestinationStat{
		{
			Domain: "x.test", Site: "mx.test", Waiting: 1, Ready: 2, Running: 3, Oldest: born, Limit: 4,
			Rate: schedule.Rate{Count: 600, Per: time.Minute}, SuspendedUntil: born, LastError: "421 no",
		},
		{Domain: "y.test", Site: "y.test"},
	}
	return all[:min(limit, len(all))]
}

func (f *flushes) Counts() outbound.Counts { return outbound.Counts{DSN: 1, DSNFailed: 2, Double: 3} }

func (f *flushes) Forget(ids ...mail.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forgotten = append(f.forgotten, ids...)
}

func (f *flushes) Flush(domain string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.domains = append(f.domains, domain)
	return 7
}

func (f *flushes) FlushMessages(ids ...mail.ID) int {
	for _, id := range ids {
		f.Flush(string(id))
	}
	return 2 * len(ids)
}

func (f *flushes) Active() map[mail.ID][]int { return map[mail.ID][]int{"A.1": {1}} }

func (f *flushes) Sites(match func(string) bool) map[string]bool {
	return map[string]bool{"x.test": match("mx1.test,mx2.test")}
}

func (f *flushes) Suspensions() map[string]schedule.Suspension {
	return map[string]schedule.Suspension{"y.test": {Until: born.Add(time.Hour), Ready: 1}}
}

func (f *flushes) Stat() schedule.Stat { return schedule.Stat{Waiting: 3, Ready: 2, Running: 1} }

func address(t *testing.T, s string) mail.Address {
	t.Helper()
	a, err := mail.ParseAddress(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var born = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func envelope(t *testing.T, id, from string, to ...string) *mail.Envelope {
	t.Helper()
	env := &mail.Envelope{ID: mail.ID(id), From: address(t, from), Received: born}
	for _, a := range to {
		env.Recipients = append(env.Recipients, mail.Recipient{Address: address(t, a)})
	}
	return env
}

// running is the operations on the socket in a folder.
type running struct {
	t      *testing.T
	dir    string
	cancel context.CancelFunc
	done   chan error
}

func serve(t *testing.T, dir string, q Queue, o Outbound) *running {
	t.Helper()
	s := web.New(web.Options{})
	s.Handle(web.Operator, "/v1/", control.NewHandler(New(q, o, nil).Operations(), nil))
	e, err := s.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t, dir, cancel, make(chan error, 1)}
	go func() { r.done <- e.Run(ctx) }()
	t.Cleanup(r.stop)
	return r
}

func (r *running) stop() {
	r.t.Helper()
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	if err := <-r.done; err != nil {
		r.t.Errorf("Run: %v", err)
	}
}

func (r *running) dial() *caller {
	r.t.Helper()
	c, err := control.Dial(r.t.Context(), r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	return &caller{c}
}

// local performs operations in this process.
func local(l *Local) *caller { return &caller{&control.Table{Operations: l.Operations()}} }

// both runs a test in this process and over the socket, on the same queue.
func both(t *testing.T, make func(t *testing.T) (Queue, Outbound), test func(t *testing.T, c *caller)) {
	t.Run("local", func(t *testing.T) {
		q, o := make(t)
		test(t, local(New(q, o, nil)))
	})
	t.Run("client", func(t *testing.T) {
		q, o := make(t)
		test(t, serve(t, t.TempDir(), q, o).dial())
	})
}

// caller has a method for each operation.
type caller struct{ control.Caller }

// one performs an operation and returns the last element of its answer.
func one[T any](ctx context.Context, c *caller, name string, a control.Arguments) (last *T, err error) {
	err = control.Each(ctx, c, Row(name), a, func(v *T) error { last = v; return nil })
	if f, ok := any(last).(control.Failure); ok && err == nil && last != nil {
		err = f.Failure()
	}
	return last, err
}

func (c *caller) List(ctx context.Context, f conditions, fn func(*view.Message) error) error {
	return control.Each(ctx, c, Row("queue list"), f.arguments(), fn)
}

func (c *caller) Stat(ctx context.Context, top int) (*view.Stat, error) {
	return one[view.Stat](ctx, c, "queue stat", control.Arguments{"destinations": {strconv.Itoa(top)}})
}

func (c *caller) Show(ctx context.Context, id mail.ID) (*view.Message, error) {
	return one[view.Message](ctx, c, "queue show", of(id))
}

// Content returns all bytes, and how many there should be.
func (c *caller) Content(ctx context.Context, id mail.ID) (text []byte, size int64, err error) {
	err = c.Call(ctx, Row("queue cat"), of(id), func(v any) error {
		b := v.(*control.Bytes)
		text, err = io.ReadAll(b)
		size = b.Size
		return err
	})
	return text, size, err
}

func (c *caller) Flush(ctx context.Context, domain string) (int, error) {
	a := control.Arguments{}
	if domain != "" {
		a["domain"] = []string{domain}
	}
	f, err := one[view.Flushed](ctx, c, "queue flush", a)
	if f == nil {
		f = &view.Flushed{}
	}
	return f.Deliveries, err
}

func (c *caller) FlushMessage(ctx context.Context, id mail.ID) (int, error) {
	f, err := one[view.Flushed](ctx, c, "queue flush", of(id))
	if f == nil {
		f = &view.Flushed{}
	}
	return f.Deliveries, err
}

func (c *caller) Remove(ctx context.Context, id mail.ID) error {
	_, err := one[view.Removal](ctx, c, "queue remove", of(id))
	return err
}

func (c *caller) Hold(ctx context.Context, id mail.ID) error {
	_, err := one[view.Holding](ctx, c, "queue hold", of(id))
	return err
}

func (c *caller) Release(ctx context.Context, id mail.ID) error {
	_, err := one[view.Holding](ctx, c, "queue release", of(id))
	return err
}

func (c *caller) Why(ctx context.Context, id mail.ID) (all []view.Delivery, err error) {
	err = control.Each(ctx, c, Row("queue why"), of(id), func(d *view.Delivery) error { all = append(all, *d); return nil })
	return all, err
}

func (c *caller) Destinations(ctx context.Context, limit int) (all []view.DestinationState, err error) {
	a := control.Arguments{"limit": {strconv.Itoa(limit)}}
	err = control.Each(ctx, c, Row("queue destinations"), a, func(d *view.DestinationState) error { all = append(all, *d); return nil })
	return all, err
}

func of(id mail.ID) control.Arguments { return control.Arguments{"id": {string(id)}} }

// conditions are what a list is asked for.
type conditions struct {
	Domain, Sender string
	Limit          int
}

func (f conditions) arguments() control.Arguments {
	a := control.Arguments{}
	if f.Domain != "" {
		a["domain"] = []string{f.Domain}
	}
	if f.Sender != "" {
		a["sender"] = []string{f.Sender}
	}
	if f.Limit != 0 {
		a["limit"] = []string{strconv.Itoa(f.Limit)}
	}
	return a
}

func ids(t *testing.T, c *caller, f conditions) string {
	t.Helper()
	var all []string
	err := c.List(t.Context(), f, func(m *view.Message) error {
		all = append(all, string(m.ID))
		return nil
	})
	if err != nil {
		t.Errorf("list %+v: %v", f, err)
	}
	return strings.Join(all, " ")
}

func read(t *testing.T, c *caller, id mail.ID) string {
	t.Helper()
	b, size, err := c.Content(t.Context(), id)
	if err != nil || int64(len(b)) != size {
		t.Fatalf("%d of %d bytes, %v", len(b), size, err)
	}
	return string(b)
}
