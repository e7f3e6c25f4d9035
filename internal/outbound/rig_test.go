package outbound

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/destination"
	"tarishi/internal/dns/memory"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store/mem"
)

var (
	ok       = reply.New(250, "2.0.0", "OK")
	later    = reply.New(450, "4.2.0", "greylisted")
	no       = reply.New(550, "5.1.1", "unknown")
	errDisk  = reply.New(452, "4.3.1", "disk full")
	sender   = mail.Address{Local: "sender", Domain: "from.test"}
	interval = []time.Duration{64 * time.Second, 128 * time.Second}
)

// memoryQueue is a store in memory that notes what is done to it, in order, and that
// fails where a test wants it to.
type memoryQueue struct {
	*mem.Store
	cluster *mem.Cluster

	mu         sync.Mutex
	ops        []string
	fail       map[string]error // by "put", "load", "settle", "defer", "notes", "hold", "release"
	noted      int              // calls of SetNotes
	unreadable int              // how often Adopt cannot read anything
	loading    func()           // called before Adopt passes on a message; nil: nothing
}

func newMemoryQueue() *memoryQueue {
	q := &memoryQueue{cluster: mem.NewCluster(mem.Options{})}
	q.Store = q.cluster.Open()
	return q
}

// reopen is what another process finds.
func (q *memoryQueue) reopen() {
	q.Kill()
	q.Store = q.cluster.Open()
}

// failing returns the error that an operation is to end with, which is noted.
func (q *memoryQueue) failing(op, note string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	err := q.fail[op]
	if err != nil {
		q.ops = append(q.ops, note+" fails")
	}
	return err
}

func (q *memoryQueue) note(op string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ops = append(q.ops, op)
}

func (q *memoryQueue) Put(env *mail.Envelope, c mail.Content) error {
	if err := q.failing("put", "put"); err != nil {
		return err
	}
	if err := q.Store.Put(env, c); err != nil {
		return err
	}
	q.note("put " + env.From.Path())
	return nil
}

// fence orders what was done before it before what is done under q.mu later.
func (q *memoryQueue) fence() {
	q.mu.Lock()
	defer q.mu.Unlock()
}

func (q *memoryQueue) Adopt(fn func(mail.Pending) bool) (left int) {
	q.mu.Lock()
	loading, none := q.loading, q.unreadable > 0
	if none {
		q.unreadable--
	}
	q.mu.Unlock()
	if none {
		return q.left()
	}
	return q.Store.Adopt(func(p mail.Pending) bool {
		if loading != nil {
			loading()
		}
		return fn(p)
	})
}

func (q *memoryQueue) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	if err := q.failing("load", "load"); err != nil {
		return nil, nil, err
	}
	return q.Store.Load(id)
}

func (q *memoryQueue) Settle(id mail.ID, recipients []int) error {
	if err := q.failing("settle", fmt.Sprintf("settle %v", recipients)); err != nil {
		return err
	}
	q.note(fmt.Sprintf("settle %v", recipients))
	q.check(id, recipients, "settled twice")
	return q.Store.Settle(id, recipients)
}

func (q *memoryQueue) Defer(id mail.ID, recipients []int, attempts int, next time.Time, last string) error {
	if err := q.failing("defer", fmt.Sprintf("defer %v", recipients)); err != nil {
		return err
	}
	q.note(fmt.Sprintf("defer %v attempts %d in %v: %s", recipients, attempts, time.Until(next), last))
	q.check(id, recipients, "deferred after it was settled")
	return q.Store.Defer(id, recipients, attempts, next, last)
}

// check panics unless all recipients are pending.
func (q *memoryQueue) check(id mail.ID, recipients []int, complaint string) {
	p, _ := q.Find(id)
	for _, i := range recipients {
		if !slices.ContainsFunc(p.Recipients, func(r mail.PendingRecipient) bool { return r.Index == i }) {
			panic(complaint)
		}
	}
}

func (q *memoryQueue) SetNotes(id mail.ID, values map[string]any) error {
	q.mu.Lock()
	err := q.fail["notes"]
	if err == nil {
		q.noted++
	}
	q.mu.Unlock()
	if err != nil {
		return err
	}
	return q.Store.SetNotes(id, values)
}

func (q *memoryQueue) Hold(id mail.ID, recipients []int) error {
	if err := q.failing("hold", "hold"); err != nil {
		return err
	}
	return q.Store.Hold(id, recipients)
}

func (q *memoryQueue) Release(id mail.ID, recipients []int) error {
	if err := q.failing("release", "release"); err != nil {
		return err
	}
	return q.Store.Release(id, recipients)
}

func (q *memoryQueue) Path(id mail.ID) (string, error) { return "/queue/" + string(id) + ".eml", nil }

func (q *memoryQueue) set(op string, err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.fail == nil {
		q.fail = map[string]error{}
	}
	q.fail[op] = err
}

func (q *memoryQueue) takeOps() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	ops := q.ops
	q.ops = nil
	return ops
}

func (q *memoryQueue) left() int { return q.Stat().Messages }

// holds reports whether a message is in the queue.
func (q *memoryQueue) holds(env *mail.Envelope) bool {
	_, ok := q.Find(env.ID)
	return ok
}

// attemptSeen is one Send.
type attemptSeen struct {
	after  time.Duration // since the rig was made
	addr   string
	from   string
	to     string // local parts
	env    *mail.Envelope
	body   mail.Content
	target pool.Target
}

// wire is the outside world: what it answers is answer, for each recipient by
// its local part, or for the whole Send if it returns an error.
type wire struct {
	start time.Time
	dsn   bool // it offers DSN

	mu     sync.Mutex
	answer func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error)
	seen   []attemptSeen
}

func (w *wire) Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error) {
	addr := t.Addr
	if len(t.Addrs) > 0 {
		addr = t.Addrs[0].String()
	}
	s := attemptSeen{after: time.Since(w.start), addr: addr, from: env.From.String(), env: env, body: received(c), target: t}
	var to []string
	for _, r := range env.Recipients {
		to = append(to, r.Address.Local)
	}
	s.to = strings.Join(to, ",")
	w.mu.Lock()
	w.seen = append(w.seen, s)
	answer := w.answer
	w.mu.Unlock()
	replies, err := answer(ctx, s)
	return smtpclient.Result{Replies: replies, TLS: "none", Addr: addr, DSN: w.dsn}, err
}

// received is a content as it is when it is sent: it goes with its message.
func received(c mail.Content) mail.Content {
	r, err := c.Open()
	if err != nil {
		return c
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return c
	}
	return mail.Memory{b}
}

func (w *wire) set(fn func(ctx context.Context, s attemptSeen) ([]*reply.Reply, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer = fn
}

func (w *wire) take() []attemptSeen {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := w.seen
	w.seen = nil
	return seen
}

// byName answers each recipient by the start of its local part; DSNs are taken.
func byName(_ context.Context, s attemptSeen) ([]*reply.Reply, error) {
	var all []*reply.Reply
	for _, r := range s.env.Recipients {
		switch local := r.Address.Local; {
		case strings.HasPrefix(local, "later"):
			all = append(all, later)
		case strings.HasPrefix(local, "no"):
			all = append(all, no)
		default:
			all = append(all, ok)
		}
	}
	return all, nil
}

// rig is an Outbound in a world of its own, in a synctest bubble.
type rig struct {
	t     *testing.T
	queue *memoryQueue
	wire  *wire
	dns   *memory.Resolver
	logs  *observer.ObservedLogs
	o     Options
	out   *Outbound
	regs  []hook.Registration
	stop  func()
	ended chan struct{}
	n     int
}

// inBubble runs test in a synctest bubble with a rig that is not started yet.
func inBubble(t *testing.T, test func(r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zapcore.DebugLevel)
		log := zap.New(core)
		r := &rig{t: t, queue: newMemoryQueue(), dns: &memory.Resolver{}, logs: logs, wire: &wire{start: time.Now(), answer: byName}}
		for i, d := range []string{"a.test", "b.test", "c.test", "from.test"} {
			r.dns.AddAddr(d, fmt.Sprintf("192.0.2.%d", i+1))
		}
		r.o = Options{
			Generation: Generation{
				Settings: destination.Settings{
					ConcurrencyMax: 100, TempFailIntervals: interval, MaxLifetime: 5 * 24 * time.Hour, PoolConcurrencyMax: 10, DelayWarning: -1, IPv6: true,
					LocalMXOK: true, // whatever addresses the machine of the test has
				},
				Me: "me.test", Grace: 10 * time.Second, Resolver: r.dns,
			},
			Queue: r.queue, Pool: r.wire, Mail: maillog.New(log), Log: log,
		}
		defer func() {
			if r.stop != nil {
				r.stop()
				<-r.ended
			}
		}()
		test(r)
	})
}

func (r *rig) start() {
	r.o.Chain = hook.NewChain(r.regs, zap.NewNop())
	r.queue.reopen()
	r.out = New(r.o)
	ctx, cancel := context.WithCancel(r.t.Context())
	r.stop, r.ended = cancel, make(chan struct{})
	go func() {
		defer close(r.ended)
		if err := r.out.Run(ctx); err != nil {
			r.t.Error(err)
		}
	}()
	synctest.Wait()
}

// use puts a changed generation in force.
func (r *rig) use(change func(g *Generation)) (drained <-chan struct{}) {
	change(&r.o.Generation)
	drained = r.out.Use(r.o.Generation)
	synctest.Wait()
	return drained
}

// disable stops delivery, or has it go on.
func (r *rig) disable(disabled bool) { r.use(func(g *Generation) { g.Disabled = disabled }) }

// on registers a handler and returns where its events are kept. They may be read
// between two calls of pass.
func (r *rig) on(p hook.Point, v hook.Verdict) *[]hook.Event {
	events := &[]hook.Event{}
	r.regs = append(r.regs, hook.Registration{Point: p, Plugin: "test", Handler: func(_ context.Context, e *hook.Event) hook.Verdict {
		r.queue.mu.Lock()
		defer r.queue.mu.Unlock()
		*events = append(*events, *e)
		return v
	}})
	return events
}

// envelope makes a message from sender to addresses, received now.
func (r *rig) envelope(to ...string) *mail.Envelope {
	r.n++
	env := &mail.Envelope{ID: mail.ID(fmt.Sprintf("M%d.1", r.n)), From: sender, Received: time.Now()}
	for _, s := range to {
		a, err := mail.ParseAddress(s)
		if err != nil {
			r.t.Fatal(err)
		}
		env.Recipients = append(env.Recipients, mail.Recipient{Address: a})
	}
	return env
}

// put queues a message without a word to the Outbound.
func (r *rig) put(env *mail.Envelope) mail.Pending {
	content := mail.Memory{[]byte("Subject: hello\r\n\r\nbody\r\n")}
	if err := r.queue.Put(env, content); err != nil {
		r.t.Fatal(err)
	}
	return mail.NewPending(env, content.Size())
}

// send queues a message and waits until all that happens at once has happened.
func (r *rig) send(to ...string) *mail.Envelope {
	env := r.envelope(to...)
	r.sendEnvelope(env)
	return env
}

func (r *rig) sendEnvelope(env *mail.Envelope) {
	p := r.put(env)
	r.queue.takeOps()
	r.out.Enqueue(p)
	synctest.Wait()
}

// pass lets time go by.
func (r *rig) pass(d time.Duration) {
	r.queue.fence() // what was read before comes before what handlers write
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) wantOps(want ...string) {
	r.t.Helper()
	if got := r.queue.takeOps(); !slices.Equal(got, want) {
		r.t.Fatalf("queue operations\n got %q\nwant %q", got, want)
	}
}

func (r *rig) wantOpsInAnyOrder(want ...string) {
	r.t.Helper()
	got := r.queue.takeOps()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		r.t.Fatalf("queue operations\n got %q\nwant %q", got, want)
	}
}

// wantSent expects sends as "after from>to@addr".
func (r *rig) wantSent(want ...string) []attemptSeen {
	r.t.Helper()
	var got []string
	seen := r.wire.take()
	for _, s := range seen {
		got = append(got, fmt.Sprintf("%v %s>%s %s", s.after, s.from, s.to, s.addr))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Fatalf("sent\n got %q\nwant %q", got, want)
	}
	return seen
}

// wantLines expects lines of the mail log as "message to", in order.
func (r *rig) wantLines(want ...string) {
	r.t.Helper()
	if got := r.lines(); !slices.Equal(got, want) {
		r.t.Fatalf("log\n got %q\nwant %q", got, want)
	}
}

// wantLinesInAnyOrder expects lines that are given in alphabetical order.
func (r *rig) wantLinesInAnyOrder(want ...string) {
	r.t.Helper()
	got := r.lines()
	slices.Sort(got)
	if !slices.Equal(got, want) {
		r.t.Fatalf("log\n got %q\nwant %q", got, want)
	}
}

func (r *rig) lines() (got []string) {
	for _, e := range r.logs.TakeAll() {
		line := e.Message
		switch m := e.ContextMap(); e.Message {
		case "delivered", "deferred", "failed":
			line += fmt.Sprintf(" %v %v", m["to"], m["response"])
		case "dsn":
			line += fmt.Sprintf(" about %v to %v", m["about"], m["to"])
		case "no dsn":
			line += fmt.Sprintf(" %v", m["reason"])
		default:
			if e.Level < zapcore.WarnLevel {
				continue
			}
		}
		got = append(got, line)
	}
	return got
}

func (r *rig) wantIdle() {
	r.t.Helper()
	if n := r.queue.left(); n != 0 || r.out.Stat().Waiting+r.out.Stat().Ready+r.out.Stat().Running != 0 {
		r.t.Fatalf("%d messages, %+v", n, r.out.Stat())
	}
}
