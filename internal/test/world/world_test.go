package world

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/destination"
	"tarishi/internal/dns"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/mtasts"
	"tarishi/internal/outbound"
	"tarishi/internal/pool"
	"tarishi/internal/smtpclient"
	"tarishi/internal/store/disk"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/smtptest"
)

const (
	me       = "me.test"
	home     = "from.test" // the senders' domain, which takes DSNs
	publicIP = "198.19.0.1"
	domains  = 200
)

// size is how many messages there are.
func size(t *testing.T) int {
	s := cmp.Or(os.Getenv("TARISHI_WORLD"), "2000")
	n, err := strconv.Atoi(s)
	if err != nil || n < domains {
		t.Fatalf("TARISHI_WORLD=%s: not a number of %d or more", s, domains)
	}
	return n
}

// world is what is outside: a DNS and servers. Its hosts have addresses of
// 198.18.0.0/15, which no network uses, so that the rules about addresses of
// this host can be at work.
type world struct {
	t        *testing.T
	dns      *dnstest.Server
	sections map[string]*destination.Rules
	policies map[string]*mtasts.Policy
	silent   map[string]bool
	domains  []domain
	healthy  []string
	healed   atomic.Bool   // the sick are well again
	latency  time.Duration // of a healthy server, for each message

	servers []*smtptest.Server
	hosts   int

	mu     sync.Mutex
	routes map[string]string // from "address:25" to where that is on loopback
}

type domain struct {
	name string
	kind *kind // nil: healthy
}

// newWorld makes a world; without sick, their domains are not there.
func newWorld(t *testing.T, sick bool, latency time.Duration) *world {
	w := &world{
		t: t, latency: latency, dns: dnstest.New(t), sections: map[string]*destination.Rules{}, policies: map[string]*mtasts.Policy{}, silent: map[string]bool{}, routes: map[string]string{},
	}
	w.dns.SetTTL(300, 300)
	w.mx(home, 10, "mx."+home, w.server())
	for _, k := range kinds {
		for i := range 2 {
			if !sick {
				break
			}
			name := fmt.Sprintf("%s%d.test", k.name, i)
			w.domains = append(w.domains, domain{name, &k})
			k.prepare(w, name)
			w.silent[name] = k.silent
			if k.section != nil {
				w.sections[name] = k.section
			}
		}
	}
	shared := w.well()
	for i := range domains - 2*len(kinds) {
		name := fmt.Sprintf("well%d.test", i)
		w.domains = append(w.domains, domain{name: name})
		w.healthy = append(w.healthy, name)
		switch {
		case i < 10: // one site
			w.mx(name, 10, "mx.shared.test", "")
		case i < 20: // no MX
			w.dns.A(name, w.well())
		default:
			w.mx(name, 10, "mx."+name, w.well())
		}
	}
	w.dns.A("mx.shared.test", shared)
	return w
}

// well starts a healthy server.
func (w *world) well() string {
	return w.server(smtptest.On(smtptest.Dot, func(smtptest.Event) smtptest.Action {
		time.Sleep(w.latency)
		return smtptest.Action{}
	}))
}

// heal mends everything that is sick.
func (w *world) heal() {
	w.healed.Store(true)
	for _, d := range w.domains {
		if d.kind == nil {
			continue
		}
		w.dns.Remove(d.name)
		w.dns.Remove("mx." + d.name)
		w.mx(d.name, 10, "mx."+d.name, w.server())
		delete(w.policies, d.name)
	}
}

// server starts one and returns the address under which the world knows it.
func (w *world) server(options ...smtptest.Option) string {
	s := smtptest.New(w.t, options...)
	w.servers = append(w.servers, s)
	return w.route(s.Addr())
}

// route gives a place on loopback an address of the world.
func (w *world) route(to string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts++
	ip := fmt.Sprintf("198.18.%d.%d", w.hosts>>8, w.hosts&255)
	w.routes[ip+":25"] = to
	return ip
}

// mx adds an MX with an address, if one is given.
func (w *world) mx(domain string, preference int, host, ip string) {
	w.dns.MX(domain, preference, host)
	if ip != "" {
		w.dns.A(host, ip)
	}
}

// sickly makes a server's hook that does its harm until the world is healed.
func (w *world) sickly(stage smtptest.Stage, h smtptest.Hook) smtptest.Option {
	return smtptest.On(stage, func(e smtptest.Event) smtptest.Action {
		if w.healed.Load() {
			return smtptest.Action{}
		}
		return h(e)
	})
}

// connect is the world's network.
func (w *world) connect(ctx context.Context, o smtpclient.Options) (net.Conn, error) {
	w.mu.Lock()
	to, ok := w.routes[o.Addr]
	w.mu.Unlock()
	if !ok {
		w.t.Errorf("connects to %s", o.Addr)
		return nil, &smtpclient.Failure{Stage: smtpclient.StageConnect, Err: errors.New("no route"), Fresh: true, Addr: o.Addr}
	}
	there := o
	there.Addr = to
	c, err := smtpclient.Connect(ctx, there)
	var f *smtpclient.Failure
	if errors.As(err, &f) {
		f.Addr = o.Addr
	}
	return c, err
}

// Policy implements nexthop.Policies.
func (w *world) Policy(_ context.Context, domain string) (*mtasts.Policy, *mtasts.Fetch) {
	return w.policies[domain], nil
}

// impatient is a pool that soon gives up servers that are silent by nature, and
// that notes when healthy domains were served.
type impatient struct {
	*pool.Pool
	silent map[string]bool // domains
	healed *atomic.Bool    // they are no more
	served *served
}

type served struct {
	mu    sync.Mutex
	times []time.Time
}

func (p impatient) Send(ctx context.Context, t pool.Target, env *mail.Envelope, c mail.Content) (smtpclient.Result, error) {
	if p.silent[env.Recipients[0].Address.Domain] && !p.healed.Load() {
		t.CommandTimeout, t.SubmissionTimeout = 200*time.Millisecond, 200*time.Millisecond
	}
	res, err := p.Pool.Send(ctx, t, env, c)
	p.served.mu.Lock()
	defer p.served.mu.Unlock()
	for i, r := range res.Replies {
		if r != nil && r.Positive() && env.Recipients[i].Address.Local[0] == 'w' {
			p.served.times = append(p.served.times, time.Now())
		}
	}
	return res, err
}

func (s *served) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.times)
}

// rate is how many were served in a second since begin, until nine in ten were:
// what comes then waits for the few places of one site.
func (s *served) rate(begin time.Time) float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.SortFunc(s.times, time.Time.Compare)
	n := len(s.times) * 9 / 10
	return float64(n) / s.times[n].Sub(begin).Seconds()
}

// relay is the daemon's outgoing half on a queue folder.
type relay struct {
	t     *testing.T
	queue *disk.Store
	out   *outbound.Outbound
	logs  *observer.ObservedLogs
	served
	begin func()
	stop  func() // waits until everything has ended
}

func newRelay(t *testing.T, w *world, dir string) *relay {
	t.Helper()
	core, logs := observer.New(zapcore.InfoLevel)
	log := zap.New(core)
	q, err := disk.Open(disk.Options{Dir: filepath.Join(dir, "queue"), SegmentSize: 8 << 20, Log: log.Named("queue")})
	if err != nil {
		t.Fatal(err)
	}
	resolver, err := dns.New(dns.Settings{Servers: []string{w.dns.Addr()}, Timeout: time.Second, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{t: t, queue: q, logs: logs}
	p := pool.New(pool.Options{Connect: w.connect, Log: log.Named("pool")})
	r.out = outbound.New(outbound.Options{
		Generation: outbound.Generation{
			Me: me, STS: w, Grace: 20 * time.Second, ReplyGrace: 20 * time.Second, Resolver: resolver,
			Settings: destination.Settings{
				ConcurrencyMax: 100, EnableTLS: true, PublicIP: publicIP, ConnectTimeout: 3 * time.Second, IPv6: true, MinRate: 2048,
				PoolTimeout: 10 * time.Second, PoolConcurrencyMax: 5, Jitter: 20,
				TempFailIntervals: []time.Duration{500 * time.Millisecond, time.Second}, MaxLifetime: 5 * 24 * time.Hour, DelayWarning: -1,
				Destinations: w.sections, NextMXOnDeferral: true,
			},
		},
		Queue: q, Pool: impatient{p, w.silent, &w.healed, &r.served}, Mail: maillog.New(log), Log: log,
	})
	ctx, cancel := context.WithCancel(context.Background())
	under, sink := context.WithCancel(context.Background()) // what outbound works with goes after it
	ended, below := make(chan error, 1), make(chan error, 2)
	r.begin = func() {
		go func() { below <- q.Run(under) }()
		go func() { below <- p.Run(under) }()
		go func() { ended <- r.out.Run(ctx) }()
	}
	r.stop = sync.OnceFunc(func() {
		cancel()
		errs := []error{<-ended}
		sink()
		errs = append(errs, <-below, <-below, q.Close())
		if err := errors.Join(errs...); err != nil {
			t.Error(err)
		}
	})
	return r
}

// until waits for done. What the test is about fails later if that never is.
func (r *relay) until(what string, limit time.Duration, done func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Errorf("waited in vain until %s", what)
			return
		}
	}
}
