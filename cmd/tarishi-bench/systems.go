package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load"
	"tarishi/internal/test/load/checks"
	"tarishi/internal/test/load/instance"
)

// domain is where all mail goes, or below which with many destinations.
const domain = "sink.test"

// halfTrip is how long a byte takes to the distant next hop, or back.
const halfTrip = 25 * time.Millisecond

// findPeers finds out which of the other servers are there.
func (b *bench) findPeers(ctx context.Context) {
	without := func(why string, systems ...string) {
		for _, s := range systems {
			b.missing[s] = why
		}
	}
	switch {
	case !b.postfix:
		without("not asked for", postfixDefault, postfixTuned)
	case !instance.HasPostfix():
		without("Postfix is not installed, or this is not root", postfixDefault, postfixTuned)
	}
	if !b.haraka {
		without("not asked for", harakaRelay, harakaQueue, harakaChecked)
		return
	}
	if _, err := exec.LookPath(checks.RedisServer); err != nil {
		without("its limit needs "+checks.RedisServer+", which is not installed", harakaChecked)
	}

	// Haraka is installed once and kept: npm takes longer than the measuring.
	cache, err := b.cache, error(nil)
	if cache == "" {
		if cache, err = os.UserCacheDir(); err == nil {
			cache = filepath.Join(cache, "tarishi-bench")
		}
	}
	if err == nil {
		b.program, err = instance.InstallHaraka(ctx, cache, b.progress)
	}
	if err != nil {
		without(err.Error(), harakaRelay, harakaQueue, harakaChecked)
	}
}

// printMissing prints which systems a table lacks.
func (b *bench) printMissing(p part) {
	told := map[string]bool{}
	for _, l := range p.loads {
		for _, s := range l.systems {
			if why := b.missing[s]; why != "" && !told[s] {
				told[s] = true
				fmt.Fprintf(b.out, "\nWithout %s: %s.\n", s, why)
			}
		}
	}
}

// system is one server with its sink; without a server the load goes to the
// sink straight, which shows what the tool itself can do.
type system struct {
	addr   string
	sink   *load.Sink
	server *instance.Server // nil: none
	warm   bool             // had a run that does not count
}

// fleet is everything that has to end with a part.
type fleet struct {
	bench   *bench
	ctx     context.Context
	dir     string
	prefix  func(system string) []string // of its command
	systems map[string]*system
	stops   []func()
}

// startSystems starts the systems of a part that are there. The fleet must be
// stopped, also after an error.
func (b *bench) startSystems(ctx context.Context, p part, prefix func(system string) []string) (*fleet, error) {
	f := &fleet{bench: b, ctx: ctx, prefix: prefix, systems: map[string]*system{}}
	if f.prefix == nil {
		f.prefix = func(string) []string { return nil }
	}
	var err error
	if f.dir, err = os.MkdirTemp(b.dir, p.name+"-"); err != nil {
		return f, err
	}
	f.stops = append(f.stops, func() { os.RemoveAll(f.dir) })
	if err := os.Chmod(f.dir, 0o755); err != nil {
		return f, err
	}

	// Loads share servers wherever they can: a start costs seconds, and cold servers are slower.
	for _, l := range p.loads {
		for _, name := range l.systems {
			if f.systems[l.fleetKey(name)] != nil || b.missing[name] != "" {
				continue
			}
			if err := f.startSystem(name, l); err != nil {
				return f, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return f, nil
}

// stopAll ends everything, the last thing first.
func (f *fleet) stopAll() {
	for i := len(f.stops) - 1; i >= 0; i-- {
		f.stops[i]()
	}
	f.stops = nil
}

// fleetKey is the key of a system in a fleet: servers with a certificate and
// without are different ones.
func (l workload) fleetKey(system string) string { return system + string(l.certificate) }

// startSystem starts one system for a load, in a fresh folder.
func (f *fleet) startSystem(name string, l workload) error {
	if l.checked && f.bench.senders == nil {
		if err := f.startSenders(); err != nil {
			return err
		}
	}
	sink, err := f.startSink(load.SinkOptions{NoPipelining: name == unpipelined})
	if err != nil {
		return err
	}
	if name == noServer {
		f.systems[l.fleetKey(name)] = &system{addr: sink.Addr(), sink: sink}
		return nil
	}

	// Folders have numbers, since names of systems hold blanks that Postfix does not take.
	dir := filepath.Join(f.dir, fmt.Sprint(len(f.systems)))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if l.certificate != "" {
		if err := l.certificate.WriteCertificate(dir); err != nil {
			return err
		}
	}
	server, err := f.startServer(name, dir, sink.Port(), l.certificate != "")
	if err != nil {
		return err
	}

	// The server stops before its sink, which is on the list already, so that no delivery fails at
	// the end.
	f.stops = append(f.stops, func() { stopWithin(20*time.Second, server.Process) })
	f.systems[l.fleetKey(name)] = &system{addr: server.Addr(), sink: sink, server: server}
	return nil
}

// startServer starts the server of a system with port as its next hop. secure: dir has
// a certificate for it.
func (f *fleet) startServer(name, dir string, port int, secure bool) (*instance.Server, error) {
	prefix, binary := f.prefix(name), f.bench.binary
	if plain, older := strings.CutSuffix(name, before); older {
		name, binary = plain, f.bench.older
	}

	// One name stands for one configuration. Everything that a table compares differs only here.
	switch name {
	case tarishiRelay:
		return instance.TarishiRelay(f.ctx, binary, dir, domain, port, secure, prefix...)
	case pipelined, unpipelined:
		far, err := f.startProxy(port)
		if err != nil {
			return nil, err
		}
		return instance.TarishiRelay(f.ctx, binary, dir, domain, far, secure, prefix...)
	case tarishiQueue, tarishiMany:
		return f.startQueue(binary, dir, port, prefix)
	case tarishiNoSync:
		return f.startQueue(binary, dir, port, append([]string{"env", "TARISHI_UNSAFE_NOSYNC=1"}, prefix...))
	case oneFile:
		files := filepath.Join(dir, "queue")
		if err := os.Mkdir(files, 0o755); err != nil {
			return nil, err
		}
		argv := append(prefix, f.bench.self, fileServerCommand, files, fmt.Sprintf("127.0.0.1:%d", port))
		return instance.Listening(f.ctx, exec.Command(argv[0], argv[1:]...), dir, 1)
	case harakaRelay:
		return instance.HarakaRelay(f.ctx, f.bench.program, dir, port, secure, prefix...)
	case tarishiChecked, tarishiCheap, harakaChecked:
		return f.startChecked(name, binary, dir, port, prefix)
	case harakaQueue:
		return instance.HarakaQueue(f.ctx, f.bench.program, dir, port, prefix...)
	case postfixDefault, postfixTuned:
		return instance.PostfixRelay(f.ctx, dir, port, name == postfixTuned, secure, prefix...)
	}
	return nil, fmt.Errorf("no system %q", name)
}

// startQueue starts a queue that looks its next hops up: each destination has one
// host, and all hosts lead to the sink.
func (f *fleet) startQueue(binary, dir string, port int, prefix []string) (*instance.Server, error) {
	dns, err := dnstest.Start()
	if err != nil {
		return nil, err
	}
	f.stops = append(f.stops, func() { dns.Close() })
	destinations := []string{domain}
	for i := range 1000 {
		destinations = append(destinations, fmt.Sprintf("d%d.%s", i, domain))
	}

	// Every destination has its own MX host, as on the Internet, so that no two share a connection
	// by chance.
	for _, d := range destinations {
		dns.MX(d, 10, "mx."+d)
		dns.A("mx."+d, "127.0.0.1")
	}
	return instance.TarishiQueue(f.ctx, binary, dir, dns.Addr(), port, prefix...)
}

// startChecked starts a relay with the plugins that check mail.
func (f *fleet) startChecked(name, binary, dir string, port int, prefix []string) (*instance.Server, error) {
	launch := func(dir string, files map[string]string) (*instance.Server, error) {
		return instance.TarishiWith(f.ctx, binary, dir, files, prefix...)
	}
	plugins := checks.All
	switch name {
	case tarishiCheap:
		plugins = checks.Cheap
	case harakaChecked:
		launch = func(dir string, files map[string]string) (*instance.Server, error) {
			return instance.Haraka(f.ctx, f.bench.program, dir, files, prefix...)
		}
	}
	return f.bench.senders.StartRelay(f.ctx, plugins, domain, dir, port, launch)
}

// startSenders starts what the clients of part plugins need, until the fleet ends.
func (f *fleet) startSenders() error {
	s, err := checks.Start()
	if err != nil {
		return err
	}
	f.bench.senders = s
	f.stops = append(f.stops, func() { s.Close(); f.bench.senders = nil })
	if f.bench.missing[harakaChecked] != "" {
		return nil
	}
	redis, err := checks.StartRedis(f.ctx, f.dir)
	if redis != nil {
		f.stops = append(f.stops, func() { stopWithin(20*time.Second, redis) })
	}
	return err
}

// stopWithin ends a process, by force when the time is over.
func stopWithin(d time.Duration, p *instance.Process) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	p.Stop(ctx)
}

// startSink starts a sink.
func (f *fleet) startSink(o load.SinkOptions) (*load.Sink, error) {
	s, err := load.Listen(o)
	if err != nil {
		return nil, err
	}
	f.runUntilStop(s.Run)
	return s, nil
}

// startProxy starts a long line to port and returns the port of its near end.
func (f *fleet) startProxy(port int) (int, error) {
	p, err := load.ListenProxy(fmt.Sprintf("127.0.0.1:%d", port), halfTrip)
	if err != nil {
		return 0, err
	}
	f.runUntilStop(p.Run)
	return p.Port(), nil
}

// runUntilStop runs something that ends after the servers that are started later.
func (f *fleet) runUntilStop(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()

	// Stops run backwards, so whatever was started first ends last.
	f.stops = append(f.stops, func() { cancel(); <-done })
}
