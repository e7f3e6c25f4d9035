package outbound

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/destination"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/sending"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store"
	"tarishi/internal/store/mem"
)

// members are processes that share a store, each with an Outbound, in a synctest
// bubble. Nothing is claimed or committed but by the test.
type members struct {
	t       *testing.T
	cluster *mem.Cluster
	dns     *memory.Resolver
	all     []*member
	random  func(n int) int

	mu           sync.Mutex
	acknowledged map[mail.ID]*mail.Envelope
	taken        map[string][]taking // by message and recipient
	doubles      int
	refused      int // permits at the end of a message
}

// taking is one time that the next hop took a message for a recipient.
type taking struct {
	by   *mem.Store
	term uint64
}

// member is one process. It is a pool, too: the outside world.
type member struct {
	m      *members
	store  *mem.Store
	out    *Outbound
	paused time.Time // it commits nothing until then
	late   []mail.Pending
	stop   func()
}

const (
	memberLease = 3 * time.Second
	memberCount = 3
)

func newMembers(t *testing.T, seed uint64) *members {
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 3))
	m := &members{
		t: t, cluster: mem.NewCluster(mem.Options{Partitions: memberCount, Lease: memberLease, Manual: true}), dns: &memory.Resolver{},
		acknowledged: map[mail.ID]*mail.Envelope{}, taken: map[string][]taking{},
		random: func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return rnd.IntN(n)
		},
	}
	for i, d := range []string{"a.test", "b.test", "c.test"} {
		m.dns.AddAddr(d, fmt.Sprintf("192.0.2.%d", i+1))
	}
	for range memberCount {
		n := &member{m: m}
		m.all = append(m.all, n)
		n.start()
	}
	return m
}

// start begins a process.
func (n *member) start() {
	n.store = n.m.cluster.Open()
	var intervals []time.Duration
	for range 100 {
		intervals = append(intervals, 20*time.Second)
	}
	n.out = New(Options{
		Generation: Generation{
			Settings: destination.Settings{
				ConcurrencyMax: 100, TempFailIntervals: intervals, DelayWarning: -1, PoolConcurrencyMax: 10, LocalMXOK: true,
				AlwaysSplit: n.m.random(2) == 0,
			},
			Me: "me.test", Grace: time.Minute, ReplyGrace: time.Minute, Resolver: n.m.dns,
		},
		Queue: n.store, Pool: worldOf{n, n.store}, Log: zap.NewNop(),
	})
	ctx, cancel := context.WithCancel(n.m.t.Context())
	ended := make(chan struct{})
	out := n.out
	go func() {
		defer close(ended)
		_ = out.Run(ctx)
	}()
	n.stop = func() { cancel(); <-ended }
}

// die ends a process as kill -9 does: what it has not committed is gone, and what it
// has in flight ends somehow.
func (n *member) die() {
	n.store.Kill()
	n.late = nil
	n.stop()
	n.paused = time.Time{}
	n.start()
}

// worldOf is the pool of one process, which may be dead by now.
type worldOf struct {
	n     *member
	store *mem.Store
}

func (w worldOf) Send(ctx context.Context, _ pool.Target, env *mail.Envelope, _ mail.Content) (smtpclient.Result, error) {
	m := w.n.m
	w.mustOwn(env.ID, "an attempt begins")
	failure := &smtpclient.Failure{Stage: smtpclient.StageContent, Err: errors.New("cut off")}
	if !sleepUntil(ctx, time.Duration(m.random(5000))*time.Millisecond) || !sending.MayEnd(ctx) {
		m.mu.Lock()
		m.refused++
		m.mu.Unlock()
		return smtpclient.Result{}, failure
	}
	w.mustOwn(env.ID, "a message is sent to its end")

	// The next hop decides now, and says so later.
	var replies []*reply.Reply
	_, term := m.cluster.Owner(env.ID)
	m.mu.Lock()
	for _, to := range env.Recipients {
		if m.randomLocked(4) == 0 {
			replies = append(replies, later)
			continue
		}
		replies = append(replies, ok)
		name := fmt.Sprint(env.ID, to.Address)
		for _, t := range m.taken[name] {
			if m.doubles++; t.by == w.store && t.term == term {
				m.t.Errorf("%s was taken twice from one owner", name)
			}
		}
		m.taken[name] = append(m.taken[name], taking{w.store, term})
	}
	m.mu.Unlock()
	time.Sleep(time.Duration(m.random(4000)) * time.Millisecond)
	sending.Answered(ctx)
	return smtpclient.Result{Replies: replies, TLS: "none", Addr: "192.0.2.1"}, nil
}

func (m *members) randomLocked(n int) int { return m.random(n) }

// sleepUntil waits, and returns false if ctx ends meanwhile.
func sleepUntil(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// mustOwn fails unless this process owns a message and can be sure of it.
func (w worldOf) mustOwn(id mail.ID, what string) {
	if owner, _ := w.n.m.cluster.Owner(id); owner != w.store {
		w.n.m.t.Errorf("%s by a process that does not own the message", what)
	}
	if err := w.store.Permit(id); err != nil {
		w.n.m.t.Errorf("%s without a permit: %v", what, err)
	}
}

// put puts a message, whose batch is committed some time.
func (m *members) put(n *member) {
	env := &mail.Envelope{ID: mail.NewID(mail.NewConnectionID(), 1), From: sender, Received: time.Now()}
	for i := range 1 + m.random(3) {
		domain := []string{"a.test", "b.test", "c.test"}[m.random(3)]
		env.Recipients = append(env.Recipients, mail.Recipient{Address: mail.Address{Local: fmt.Sprintf("r%d", i), Domain: domain}})
	}
	s, out, late := n.store, n.out, m.random(3) == 0
	go func() {
		if s.Put(env, mail.Memory{[]byte("Subject: x\r\n\r\n")}) != nil {
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.acknowledged[env.ID] = env
		switch p := mail.NewPending(env, 14); {
		case n.store != s: // it died meanwhile
		case late:
			n.late = append(n.late, p)
		default:
			out.Enqueue(p)
		}
	}()
}

// step does one thing at random.
func (m *members) step() {
	n := m.all[m.random(len(m.all))]
	number := m.random(memberCount)
	switch m.random(10) {
	case 0, 1, 2:
		m.put(n)
	case 3:
		n.store.Claim(number)
	case 4:
		if time.Now().After(n.paused) {
			n.store.Commit(number)
		}
	case 5:
		n.store.CommitUnconfirmed(number)
	case 6:
		n.paused = time.Now().Add(time.Duration(m.random(10_000)) * time.Millisecond)
	case 7:
		m.enqueueLate(n)
	case 8:
		n.out.Flush("")
	case 9:
		if m.random(20) == 0 {
			n.die()
		}
	}
	synctest.Wait()
}

// enqueueLate hands over what was put before.
func (m *members) enqueueLate(n *member) {
	m.mu.Lock()
	late := n.late
	n.late = nil
	m.mu.Unlock()
	for _, p := range late {
		n.out.Enqueue(p)
	}
}

// pass lets time go by. Processes that are not paused commit what they own, and claim
// what nobody does.
func (m *members) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
	for _, n := range m.all {
		if time.Now().Before(n.paused) {
			continue
		}
		for number := range memberCount {
			if m.random(8) > 0 {
				n.store.Commit(number)
			}
			if m.random(8) == 0 {
				n.store.Claim(number)
			}
			synctest.Wait()
		}
	}
}

// TestPartitionsChangeHands takes partitions away from running Outbounds: claims,
// batches, lost confirmations, pauses and deaths in every order. No message that was
// acknowledged is lost, none is attempted or sent to its end by a process that does not
// own it, and none is taken twice from one owner.
func TestPartitionsChangeHands(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { newMembers(t, seed).live() })
		})
	}
}

// live lets the processes work at random, and then in peace until all is done.
func (m *members) live() {
	for range 300 {
		m.step()
		if m.random(3) == 0 {
			m.pass(time.Duration(m.random(1500)) * time.Millisecond)
		}
	}
	for _, n := range m.all {
		n.paused = time.Time{}
	}
	for range 3000 {
		if m.pass(time.Second); len(m.cluster.Messages()) == 0 {
			break
		}
		for _, n := range m.all {
			m.enqueueLate(n)
		}
	}
	if left := m.cluster.Messages(); len(left) > 0 {
		m.t.Errorf("%d messages are left", len(left))
	}
	for _, n := range m.all {
		n.stop()
		if s := n.out.Stat(); s.Waiting+s.Ready+s.Running > 0 {
			m.t.Errorf("deliveries are left: %+v", s)
		}
		if len(n.out.held)+len(n.out.kept)+len(n.out.unrecorded)+len(n.out.forgone)+len(n.out.running) > 0 {
			m.t.Errorf("left over: %v %v %v %v", n.out.held, n.out.kept, n.out.unrecorded, n.out.forgone)
		}
		if err := n.store.Close(); err != nil {
			m.t.Error(err)
		}
	}
	for id, env := range m.acknowledged {
		for _, to := range env.Recipients {
			if len(m.taken[fmt.Sprint(id, to.Address)]) == 0 {
				m.t.Errorf("%s for %s was acknowledged and is lost", id, to.Address)
			}
		}
	}
	m.t.Logf("%d messages, %d doubles, %d messages stopped before their end", len(m.acknowledged), m.doubles, m.refused)
}

// TestAbandonAndAdopt follows one message: its delivery waits, is abandoned, adopted
// again, and an operator's wishes reach it meanwhile.
func TestAbandonAndAdopt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMembers(t, 1)
		one, two := m.all[0], m.all[1]
		if !one.store.Claim(0) || two.store.Claim(0) {
			t.Fatal("two owners, or none")
		}
		env := &mail.Envelope{ID: "M1.1", From: sender, Received: time.Now(), Recipients: []mail.Recipient{{Address: mail.Address{Local: "x", Domain: "a.test"}}, {Address: mail.Address{Local: "y", Domain: "b.test"}}}}
		go func() { _ = one.store.Put(env, mail.Memory{[]byte("x\r\n")}) }()
		synctest.Wait()
		one.store.Commit(0)
		p := mail.NewPending(env, 3)
		for i := range p.Recipients {
			p.Recipients[i].Attempts, p.Recipients[i].Next = 1, time.Now().Add(time.Hour)
		}
		one.out.Enqueue(p)
		if err := one.store.Defer(env.ID, []int{0, 1}, 1, time.Now().Add(time.Hour), "later"); err != nil {
			t.Fatal(err)
		}
		held := make(chan error, 1)
		go func() { held <- one.out.Hold(env.ID, []int{1}) }()
		synctest.Wait()
		one.store.Commit(0)
		if err := <-held; err != nil {
			t.Fatal(err)
		}

		// The owner is paused for longer than its lease: another one takes over.
		time.Sleep(memberLease)
		if err := one.store.Permit(env.ID); !errors.Is(err, store.ErrPaused) {
			t.Error(err)
		}
		if !two.store.Claim(0) {
			t.Fatal("not claimed")
		}
		one.out.Flush("") // its attempt must not begin
		synctest.Wait()
		one.store.Commit(0)
		if n := one.out.Stat(); n.Waiting+n.Ready+n.Running != 0 || len(one.out.held) > 0 {
			t.Errorf("the former owner keeps %+v, %v", n, one.out.held)
		}
		if err := one.out.Hold(env.ID, nil); !errors.Is(err, store.ErrUnknown) {
			t.Error(err)
		}
		one.out.Enqueue(p) // a hand-over that comes too late
		if n := one.out.Stat(); n.Waiting+n.Ready+n.Running != 0 {
			t.Errorf("%+v", n)
		}

		// The new owner knows what was durable, and the hold.
		synctest.Wait()
		if n := two.out.Stat(); n.Waiting != 1 {
			t.Errorf("the new owner has %+v", n)
		}
		if why := two.out.Explain(env.ID); len(why) != 2 {
			t.Errorf("%+v", why)
		}
		for _, n := range m.all {
			n.stop()
			if err := n.store.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}
