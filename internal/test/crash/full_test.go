package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"tarishi/internal/destination"
	"tarishi/internal/dns/memory"
	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/reply"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store/disk"
	"tarishi/internal/vfs"
	"tarishi/internal/vfs/crashfs"
)

// fullness is what a full disk refuses.
type fullness int32

const (
	spacious  fullness = iota
	allocated          // everything but writing where space was reserved
	total              // every write, as where each one takes new blocks
)

// fullDisk is a file system that can be full.
type fullDisk struct {
	vfs.FS
	is atomic.Int32

	mu      sync.Mutex
	refused map[string]int // by what the file is for
}

func (d *fullDisk) refuse(name string, from fullness) error {
	if fullness(d.is.Load()) < from {
		return nil
	}
	use := "spill"
	switch {
	case strings.Contains(name, "/journal/"):
		use = "journal"
	case strings.Contains(name, "/body."):
		use = "body"
	}
	d.mu.Lock()
	d.refused[use]++
	d.mu.Unlock()
	return syscall.ENOSPC
}

func (d *fullDisk) Create(name string) (vfs.File, error) {
	if err := d.refuse(name, allocated); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name)
	return &diskFile{File: f, disk: d, name: name}, err
}

func (d *fullDisk) Mkdir(name string) error {
	if _, err := d.List(name); err == nil {
		return nil
	}
	if err := d.refuse(name, allocated); err != nil {
		return err
	}
	return d.FS.Mkdir(name)
}

func (d *fullDisk) Free(name string) (vfs.Space, error) {
	if fullness(d.is.Load()) != spacious {
		return vfs.Space{TotalBytes: 1 << 40, Bytes: 200 << 20}, nil // as far as one can know
	}
	return d.FS.Free(name)
}

type diskFile struct {
	vfs.File
	disk     *fullDisk
	name     string
	reserved int64
}

func (f *diskFile) Write(p []byte) (int, error) {
	if err := f.disk.refuse(f.name, allocated); err != nil {
		n, _ := f.File.Write(p[:len(p)/2]) // there was room for some of it
		return n, err
	}
	return f.File.Write(p)
}

func (f *diskFile) WriteVec(bufs [][]byte, off int64) error {
	end := off
	for _, b := range bufs {
		end += int64(len(b))
	}
	from := allocated
	if end <= f.reserved {
		from = total
	}
	if err := f.disk.refuse(f.name, from); err != nil {
		if len(bufs) > 1 {
			_ = f.File.WriteVec(bufs[:1], off)
		}
		return err
	}
	return f.File.WriteVec(bufs, off)
}

func (f *diskFile) Reserve(size int64) error {
	if err := f.disk.refuse(f.name, allocated); err != nil {
		return err
	}
	f.reserved = size
	return f.File.Reserve(size)
}

// world is where mail goes: recipients of yes.test are taken, those of no.test
// refused, and all others deferred while it hesitates.
type world struct {
	mu        sync.Mutex
	hesitates bool
	refuses   bool // those of later.test
	arrived   map[string]int
	deferred  int

	cut     bool            // it cannot be reached
	named   map[string]bool // by reports, if not nil
	refused int
}

func (w *world) Send(_ context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return smtpclient.Result{}, &smtpclient.Failure{Stage: smtpclient.StageConnect, Fresh: true, Err: errors.New("cut")}
	}
	if w.named != nil && env.From.IsNull() {
		if err := w.read(c); err != nil {
			return smtpclient.Result{}, err
		}
	}
	var all []*reply.Reply
	for _, r := range env.Recipients {
		switch domain := r.Address.Domain; {
		case domain == "no.test", domain == "later.test" && w.refuses:
			all = append(all, reply.New(550, "5.1.1", "nobody has that name here"))
			w.refused++
		case domain == "later.test" && w.hesitates:
			all = append(all, reply.New(451, "4.7.1", "come back later"))
			w.deferred++
		default:
			w.arrived[r.Address.String()]++
			all = append(all, reply.New(250, "2.0.0", "ok"))
		}
	}
	return smtpclient.Result{Replies: all, TLS: "none", Addr: t.Addr}, nil
}

func (w *world) deferrals() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.deferred
}

func (w *world) set(hesitates, refuses bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hesitates, w.refuses = hesitates, refuses
}

// plant is a queue and an outbound on a disk.
type plant struct {
	t     *testing.T
	disk  *fullDisk
	world *world
	queue *disk.Store
	out   *outbound.Outbound
	stop  func()
	n     int
	owed  map[string]bool // addresses that something must reach

	config *destination.Settings // nil: the usual
}

func (p *plant) start(fs vfs.FS, how fullness) {
	p.t.Helper()
	p.disk = &fullDisk{FS: fs, refused: map[string]int{}}
	p.disk.is.Store(int32(how))
	var err error
	p.queue, err = disk.Open(disk.Options{Dir: "/queue", SegmentSize: 128 << 10, LargeBody: 5000, FS: p.disk})
	if err != nil {
		p.t.Fatal(err)
	}
	names := &memory.Resolver{}
	for i, d := range []string{"yes.test", "no.test", "later.test", "sender.test"} {
		names.AddAddr(d, fmt.Sprintf("192.0.2.%d", i+1))
	}
	settings := destination.Settings{
		TempFailIntervals: []time.Duration{time.Minute, time.Minute, time.Hour, time.Hour, time.Hour}, MaxLifetime: 5 * 24 * time.Hour, DelayWarning: -1,
	}
	if p.config != nil {
		settings = *p.config
	}
	settings.LocalMXOK, settings.IPv6 = true, true
	p.out = outbound.New(outbound.Options{
		Generation: outbound.Generation{Settings: settings, Me: "me.test", Resolver: names}, Queue: p.queue, Pool: p.world,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{p.queue.Run, p.out.Run} {
		running.Go(func() {
			if err := run(ctx); err != nil {
				p.t.Error(err)
			}
		})
	}
	p.stop = func() {
		cancel()
		running.Wait()
	}
}

// offer puts a message for one recipient in the queue, as a session does.
func (p *plant) offer(domain string, size int) error {
	p.n++
	to := mail.Address{Local: fmt.Sprintf("r%d", p.n), Domain: domain}
	env := &mail.Envelope{
		ID: mail.NewID(mail.NewConnectionID(), 1), From: mail.Address{Local: fmt.Sprintf("s%d", p.n), Domain: "sender.test"},
		Received: time.Now(), Recipients: []mail.Recipient{{Address: to}},
	}
	body := p.queue.NewBody()
	defer body.Discard()
	if _, err := body.Write([]byte(strings.Repeat("0123456789abcdef0123456789abcd\r\n", size/32))); err != nil {
		return err
	}
	c, err := body.Content()
	if err != nil {
		return err
	}
	if err := p.queue.Put(env, c); err != nil {
		return err
	}
	p.out.Enqueue(mail.NewPending(env, c.Size()))
	if domain == "yes.test" {
		p.owed[to.String()] = true
	} else { // the sender hears of it in the end
		p.owed[env.From.String()] = true
	}
	return nil
}

// refused expects a reply of class 4 to a message, 452 if it says so.
func (p *plant) refused(size int) {
	p.t.Helper()
	var r *reply.Reply
	if err := p.offer("yes.test", size); !errors.As(err, &r) || r.Code != 452 || r.Enhanced.String() != "4.3.1" {
		p.t.Fatalf("a message of %d bytes: %v", size, err)
	}
}

// pass lets time go by.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// missing returns who was promised something that has neither arrived nor is in
// the queue.
func (p *plant) missing() []string {
	p.world.mu.Lock()
	defer p.world.mu.Unlock()
	waits := map[string]bool{}
	p.queue.Walk(func(m mail.Pending) bool {
		for _, r := range m.Recipients {
			waits[r.Address.String()] = true
			if r.Address.Domain != "yes.test" { // its sender will hear
				waits[m.From.String()] = true
			}
		}
		return true
	})
	var missing []string
	for to := range p.owed {
		if p.world.arrived[to] == 0 && !waits[to] {
			missing = append(missing, to)
		}
	}
	return missing
}

// The disk is full while messages are accepted, deferred, spilled and reported.
// Nothing that was accepted is lost, and when there is space again everything
// works, without a restart. It is the same when the power fails or the process
// dies meanwhile, and the next one finds the disk still full.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]fullness{"allocations fail": allocated, "writes fail": total} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &plant{t: t, world: &world{arrived: map[string]int{}}, owed: map[string]bool{}}
				fs := crashfs.New()
				p.start(fs, spacious)
				p.suffer(how)
				p.recover()
				p.end()
				if p.twice() > 0 {
					t.Errorf("%d arrived more than once", p.twice())
				}
				p.start(fs, spacious)
				p.end()
				p.clean(fs)
			})
		})
		for survives, s := range map[string]crashfs.Survival{"power failure": crashfs.Nothing, "crash": crashfs.All} {
			t.Run(name+", "+survives, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					p := &plant{t: t, world: &world{arrived: map[string]int{}}, owed: map[string]bool{}}
					fs := crashfs.New()
					p.start(fs, spacious)
					p.suffer(how)
					next := fs.Restart(s, nil)
					p.stop()
					_ = p.queue.Close()
					p.start(next, how)
					pass(time.Minute)
					if lost := p.missing(); len(lost) > 0 {
						t.Errorf("lost: %q", lost)
					}
					p.refused(2000)
					p.recover()
					p.end()
					p.clean(next)
				})
			})
		}
	}
}

// suffer fills the disk.
func (p *plant) suffer(how fullness) {
	t := p.t
	t.Helper()
	p.world.set(true, false)
	for i := range 60 {
		for _, domain := range []string{"yes.test", "no.test", "later.test"} {
			if err := p.offer(domain, 100+100*i); err != nil {
				t.Fatal(err)
			}
		}
	}
	pass(time.Second)

	// While it spills: the journal has room left in what it reserved, its
	// segments get old, and hold what is deferred.
	p.disk.is.Store(int32(allocated))
	before := p.world.deferrals()
	pass(15 * time.Minute)
	if p.world.deferrals() == before {
		t.Error("nothing was attempted while the disk was full")
	}

	// While it accepts.
	p.disk.is.Store(int32(how))
	var r *reply.Reply
	if err := p.queue.Healthy(); !errors.As(err, &r) || r.Code != 452 || r.Enhanced.String() != "4.3.1" {
		t.Fatalf("Healthy: %v", err)
	}
	p.refused(20000)
	for i := 0; p.offer("yes.test", 2000) == nil; i++ { // into what is reserved
		if i == 100 {
			t.Fatal("a full disk takes everything")
		}
	}
	p.refused(2000)

	// While it defers, and then reports: what was deferred fails.
	pass(2 * time.Hour)
	p.world.set(false, true)
	pass(2 * time.Hour)
	if lost := p.missing(); len(lost) > 0 {
		t.Fatalf("lost: %q", lost)
	}
	for _, use := range []string{"journal", "body", "spill"} {
		if p.disk.refused[use] == 0 {
			t.Errorf("the disk refused only %v", p.disk.refused)
		}
	}
	t.Logf("the disk refused %v", p.disk.refused)
}

// recover gives space back.
func (p *plant) recover() {
	p.t.Helper()
	p.disk.is.Store(int32(spacious))
	pass(3 * time.Second)
	if err := p.queue.Healthy(); err != nil {
		p.t.Errorf("with space again: %v", err)
	}
	for _, size := range []int{100, 20000} {
		if err := p.offer("yes.test", size); err != nil {
			p.t.Errorf("with space again: %v", err)
		}
	}
	pass(2 * time.Hour)
}

// end expects that everything has arrived, and stops the plant.
func (p *plant) end() {
	p.t.Helper()
	pass(time.Minute)
	p.stop()
	if s := p.queue.Stat(); s.Messages > 0 {
		p.t.Errorf("left in the queue: %+v", s)
	}
	for to := range p.owed {
		if p.world.arrived[to] == 0 {
			p.t.Errorf("%s: lost", to)
		}
	}
	if err := p.queue.Close(); err != nil {
		p.t.Error(err)
	}
}

// twice is how many got more than one message or report.
func (p *plant) twice() int {
	n := 0
	for to := range p.owed {
		if p.world.arrived[to] > 1 {
			n++
		}
	}
	return n
}

// clean expects nothing in quarantine.
func (p *plant) clean(fs vfs.FS) {
	p.t.Helper()
	if list, err := fs.List("/queue/corrupt"); err != nil || len(list) > 0 {
		p.t.Errorf("corrupt/ holds %v, %v", list, err)
	}
}
