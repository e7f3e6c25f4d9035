package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"tarishi/internal/test/load/checks"
	"tarishi/internal/test/load/instance"
)

// Systems, by the names that they have in tables.
const (
	tarishiRelay   = "Tarishi relay"
	tarishiQueue   = "Tarishi queue"
	tarishiNoSync  = "Tarishi queue, fsync off"
	tarishiMany    = "Tarishi queue, second daemon" // so that kept connections are counted where they belong
	oneFile        = "one file and one fsync a message"
	harakaRelay    = "Haraka relay"
	harakaQueue    = "Haraka queue"
	tarishiChecked = "Tarishi relay, ten plugins"
	tarishiCheap   = "Tarishi relay, without spf and dkim"
	harakaChecked  = "Haraka relay, ten plugins"
	postfixDefault = "Postfix"
	postfixTuned   = "Postfix tuned"
	pipelined      = "Tarishi relay, next hop offers PIPELINING"
	unpipelined    = "Tarishi relay, next hop does not"
	noServer       = "(no server)"
)

// before is behind the name of a system that runs the binary of -baseline.
const before = ", before"

// isTarishi reports whether a system is a Tarishi that both binaries can be.
func isTarishi(system string) bool {
	switch system {
	case tarishiRelay, tarishiQueue, tarishiMany, tarishiChecked, tarishiCheap:
		return true
	}
	return false
}

// withBaseline puts the older Tarishi next to each newer one.
func withBaseline(systems []string) []string {
	var all []string
	for _, s := range systems {
		if all = append(all, s); isTarishi(s) {
			all = append(all, s+before)
		}
	}
	return all
}

// workload is what the generator sends to each of some systems.
type workload struct {
	name         string
	systems      []string
	clients      int
	size         int
	recipients   int
	destinations int              // 0: one
	messages     int              // 0: as many as fit into a run
	slow         bool             // some of the systems deliver later than they accept
	perSession   int              // messages; 0: sessions stay open
	certificate  instance.KeyKind // of the servers; with one, clients use STARTTLS
	checked      bool             // clients have addresses and names of the world, and sign
}

// weight is how many runs' time one run with this load takes, on average.
func (l workload) weight() float64 {
	if l.slow {
		return 1.6
	}
	return 1.1
}

// part is a group of loads that is measured together.
type part struct {
	name  string
	about string
	loads []workload
	fixed time.Duration // beyond its runs, for starts and stops
	once  bool          // one round whatever the options say
	extra bool          // only if it is asked for
	world bool          // in a network where every address is a local one
	// measure runs the part; compare measures and adds what judge finds.
	measure func(ctx context.Context, b *bench, p part) error
	judge   func(b *bench, r results)
}

const (
	small   = 4 << 10
	large   = 64 << 10
	hundred = "100 clients, 4 KiB"
	few     = "20 clients, 64 KiB"
	many    = "100 clients, 4 KiB, 1,000 destinations"
	counted = "10,000 messages, 100 clients, 4 KiB"
	distant = "1 client, 4 KiB, 50 ms"
)

var parts = []part{
	{
		name: "durable", fixed: 3 * time.Second, measure: compare,
		about: "Accepting into the queue. All three deliver to a sink while they accept.",
		loads: []workload{{name: hundred, clients: 100, size: small, systems: []string{tarishiQueue, tarishiNoSync, oneFile}, slow: true}},
		judge: func(b *bench, r results) {
			wanted := 1.3
			if b.disk.HasOption("discard") {
				wanted = 4
			}
			b.wantAtLeast(0.70, r.ratioOf("accepted with fsync : without", acceptedRate, hundred, tarishiQueue, tarishiNoSync))
			b.wantAtLeast(wanted, r.ratioOf("accepted with one log : one file a message", acceptedRate, hundred, tarishiQueue, oneFile))
			b.wantBelow(4, r.medianFigure("acknowledgement p99 : p50", hundred, tarishiQueue, func(x result) float64 {
				return float64(x.latency.P99) / float64(x.latency.P50)
			}))
		},
	},
	{
		name: "relay", fixed: 6 * time.Second, measure: compare,
		about: "Passing on to a sink while the client waits (Postfix queues first: it has no other way).",
		loads: []workload{
			{name: hundred, clients: 100, size: small, systems: []string{tarishiRelay, harakaRelay, postfixTuned, postfixDefault, noServer}},
			{name: few, clients: 20, size: large, systems: []string{tarishiRelay, harakaRelay, postfixTuned}},
			{name: counted, clients: 100, size: small, messages: 10_000, systems: []string{tarishiRelay}},
		},
		judge: func(b *bench, r results) {
			b.wantAtLeast(8, r.ratioOf("4 KiB, 100 clients, Tarishi : Haraka", deliveredRate, hundred, tarishiRelay, harakaRelay))
			b.wantAtLeast(3, r.ratioOf("64 KiB, 20 clients, Tarishi : Haraka", deliveredRate, few, tarishiRelay, harakaRelay))
			b.wantAtMost(200, r.medianFigure("connections of 10,000 messages", counted, tarishiRelay, func(x result) float64 { return float64(x.connections) }))
		},
	},
	{
		name: "rtt", fixed: time.Second, measure: compare,
		about: "One connection to a next hop with a round trip of 50 ms, the same sink behind it with and without PIPELINING.",
		loads: []workload{{name: distant, clients: 1, size: small, systems: []string{pipelined, unpipelined}}},
		judge: func(b *bench, r results) {
			b.wantAtLeast(1.8, r.ratioOf("one connection, pipelined : not", deliveredRate, distant, pipelined, unpipelined))
		},
	},
	{
		name: "outbound", fixed: 6 * time.Second, measure: compare,
		about: "From the client through the queue, durably, to the sink. Rates count until the sink has everything.",
		loads: []workload{
			{name: hundred, clients: 100, size: small, systems: []string{tarishiQueue, harakaQueue, postfixTuned, postfixDefault}, slow: true},
			{name: many, clients: 100, size: small, destinations: 1000, systems: []string{tarishiMany}, slow: true},
		},
		judge: func(b *bench, r results) {
			b.wantAtLeast(6, r.ratioOf("one destination, Tarishi : Postfix tuned", deliveredRate, hundred, tarishiQueue, postfixTuned))
			b.wantAtLeast(8, r.ratioOf("one destination, Tarishi : Haraka", deliveredRate, hundred, tarishiQueue, harakaQueue))
			b.wantAtLeast(0.5, r.ratioBetween("Tarishi, 1,000 destinations : one", deliveredRate, key{many, tarishiMany}, key{hundred, tarishiQueue}))
		},
	},
	{
		name: "syncs", fixed: 10 * time.Second, once: true, measure: countSyncs,
		about: "Calls of fsync and its kin under strace, with those of start and stop, and the messages accepted meanwhile.",
		loads: []workload{{name: hundred, clients: 100, size: small, systems: []string{tarishiQueue, oneFile, harakaQueue, postfixTuned}, slow: true}},
	},
	{
		name: "memory", fixed: 25 * time.Second, measure: measureMemory,
		about: "20 messages of 50 MB at once, through the queue to the sink.",
		loads: []workload{{name: "20 clients, 50 MB", clients: 20, size: 50_000_000, messages: 20, systems: []string{tarishiQueue}}},
	},
	{
		name: "shapes", fixed: 8 * time.Second, extra: true, measure: compare,
		about: "Other loads.",
		loads: []workload{
			shapeLoad("1 client, 4 KiB", 1, 1), shapeLoad("20 clients, 4 KiB", 20, 1), shapeLoad("20 clients, 4 KiB, 10 recipients", 20, 10),
		},
	},
	{
		name: "starttls", fixed: 20 * time.Second, extra: true, measure: compare,
		about: "One message a connection, in clear and behind STARTTLS. No handshake is shortened by an earlier one.",
		loads: []workload{singleLoad(inClear, ""), singleLoad(withECDSA, instance.ECDSAKey), singleLoad(withRSA, instance.RSAKey)},
		judge: judgeStartTLS,
	},
	{
		name: "plugins", fixed: 25 * time.Second, extra: true, world: true, measure: compare,
		about: "With headers, mail_from.is_resolvable, helo.checks, dns-list (two lists), limit, access, relay, fcrdns, spf and dkim, which verifies " +
			"a signature of RSA-2048. 20 clients with addresses and names in a DNS that answers at once.",
		loads: []workload{checkedLoad(singly, 1), checkedLoad(kept, 0)},
		judge: judgePlugins,
	},
	{
		name: "idle", fixed: 4 * time.Minute, once: true, extra: true, measure: measureIdle,
		about: "Memory of sessions that have said EHLO and wait, in a server of its own each time.",
		loads: []workload{
			{name: "5,000 sessions", clients: 5000, systems: []string{tarishiRelay, harakaRelay}},
			{name: "1,000 sessions, STARTTLS", clients: 1000, systems: []string{tarishiRelay, harakaRelay}, certificate: instance.ECDSAKey},
		},
	},
}

// singleLoad is a load of 20 clients that connect for each message.
func singleLoad(kind string, certificate instance.KeyKind) workload {
	return workload{
		name: singleName(kind), clients: 20, size: small, perSession: 1, certificate: certificate,
		systems: []string{tarishiRelay, harakaRelay, postfixTuned},
	}
}

// The loads of part plugins.
const (
	singly = "20 clients, 4 KiB, one message a connection"
	kept   = "20 clients, 4 KiB, kept connections"
)

func checkedLoad(name string, perSession int) workload {
	return workload{
		name: name, clients: checks.Clients, size: small, perSession: perSession, checked: true,
		systems: []string{tarishiChecked, tarishiCheap, tarishiRelay, harakaChecked, noServer},
	}
}

// judgePlugins compares the checks with Haraka's and shows what they cost.
func judgePlugins(b *bench, r results) {
	b.wantAtLeast(8, r.ratioOf("one message a connection, Tarishi : Haraka", acceptedRate, singly, tarishiChecked, harakaChecked))
	b.addRatio(r.ratioOf("kept connections, Tarishi : Haraka", acceptedRate, kept, tarishiChecked, harakaChecked))
	b.wantAtMost(0.15, r.differenceOf("one message a connection, CPU of the checks without spf and dkim, ms a message", cpuTime, singly, tarishiCheap, tarishiRelay))
	b.wantAtMost(0.15, r.differenceOf("kept connections, CPU of the checks without spf and dkim, ms a message", cpuTime, kept, tarishiCheap, tarishiRelay))
	for _, load := range []string{singly, kept} {
		b.addRatio(r.differenceOf(load+", CPU of all checks, ms a message", cpuTime, load, tarishiChecked, tarishiRelay))
		b.addRatio(r.ratioOf(load+", CPU a message, Haraka : Tarishi", cpuTime, load, harakaChecked, tarishiChecked))
		for _, system := range []string{tarishiChecked, harakaChecked} {
			b.addRatio(r.medianFigure(load+", "+system+", questions to the DNS a message", load, system, func(x result) float64 { return x.questions }))
		}
	}
}

// The kinds of loads of part starttls.
const (
	inClear   = "in clear"
	withECDSA = "STARTTLS, ECDSA P-256"
	withRSA   = "STARTTLS, RSA 2048"
)

// judgeStartTLS compares what a connection with one message costs. The rates stand for the
// machine's cores too, which servers of several processes use better: the CPU decides.
func judgeStartTLS(b *bench, r results) {
	for _, kind := range []string{inClear, withECDSA, withRSA} {
		for _, peer := range []string{postfixTuned, harakaRelay} {
			b.addRatio(r.ratioOf("one message a connection, "+kind+", Tarishi : "+peer, acceptedRate, singleName(kind), tarishiRelay, peer))
			cost := r.ratioOf("one message a connection, "+kind+", CPU a message, "+peer+" : Tarishi", cpuTime, singleName(kind), peer, tarishiRelay)
			if kind == withECDSA && peer == postfixTuned {
				b.wantAtLeast(3, cost)
			} else {
				b.addRatio(cost)
			}
		}
	}
}

func singleName(kind string) string { return "20 clients, 4 KiB, one message a connection, " + kind }

func shapeLoad(name string, clients, recipients int) workload {
	return workload{
		name: name, clients: clients, size: small, recipients: recipients, slow: true,
		systems: []string{tarishiRelay, tarishiQueue, harakaRelay, harakaQueue, postfixTuned},
	}
}

// partNames are the names of the parts, of those that only run when somebody
// asks for them too.
func partNames() []string { return namesOf(func(part) bool { return true }) }

// defaultParts are the parts that run when nobody asks for some.
func defaultParts() []string { return namesOf(func(p part) bool { return !p.extra }) }

func namesOf(wanted func(part) bool) []string {
	var names []string
	for _, p := range parts {
		if wanted(p) {
			names = append(names, p.name)
		}
	}
	return names
}

// compare runs the loads of p with their systems, interleaved, and prints a
// table.
func compare(ctx context.Context, b *bench, p part) error {
	f, err := b.startSystems(ctx, p, nil)
	defer f.stopAll()
	if err != nil {
		return err
	}
	for _, l := range p.loads {
		for _, name := range l.systems {
			if sys := f.systems[l.fleetKey(name)]; sys != nil && !sys.warm {
				sys.warm = true
				b.runLoad(ctx, sys, l, b.each/3) // does not count: code is compiled, connections are made
			}
		}
	}

	// Rounds go through all systems before the next one begins. A slow minute of the machine then
	// hits all of them.
	r := make(results)
	rounds := b.rounds(p)
	for k := range rounds {
		for _, l := range p.loads {
			for i := range l.systems {
				name := l.systems[(i+k)%len(l.systems)] // nobody is always first
				sys := f.systems[l.fleetKey(name)]
				if sys == nil || ctx.Err() != nil {
					continue
				}
				x := b.runLoad(ctx, sys, l, b.each)
				fmt.Fprintf(b.progress, "%s, round %d of %d: %s, %s: %s\n", p.name, k+1, rounds, l.name, name, x)
				r[key{l.name, name}] = append(r[key{l.name, name}], x)
				b.checkResult(p.name, l.name, name, x)
			}
		}
	}

	// What was measured is printed first and judged afterwards, so that a missed bound hides no
	// figure.
	r.printTable(b.out, p.loads)
	b.printMissing(p)
	if p.judge != nil {
		p.judge(b, r)
	}
	b.compareBaseline(p, r)
	return nil
}

// compareBaseline notes how the newer binary does beside the older one.
func (b *bench) compareBaseline(p part, r results) {
	for _, l := range p.loads {
		for _, s := range l.systems {
			if len(r[key{l.name, s + before}]) == 0 {
				continue
			}
			b.addRatio(r.ratioOf(l.name+", "+s+", rate, new : before", deliveredRate, l.name, s, s+before))
			b.addRatio(r.ratioOf(l.name+", "+s+", CPU a message, new : before", cpuTime, l.name, s, s+before))
		}
	}
}

// checkResult notes mail that was lost or doubled. That another server is too slow
// to be waited for is no fault.
func (b *bench) checkResult(part, load, system string, x result) {
	if isTarishi(strings.TrimSuffix(system, before)) && !x.drained {
		b.faults = append(b.faults, fmt.Errorf("%s, %s, %s: %d recipients had not arrived when the waiting ended", part, load, system, x.tally.Lost))
	}

	// A queue that was stopped early has not lost its mail. One that was drained must have
	// delivered everything once.
	if lost := x.tally.Lost; x.drained && lost+x.tally.Duplicates > 0 {
		b.faults = append(b.faults, fmt.Errorf("%s, %s, %s: %d recipients lost, %d doubled", part, load, system, lost, x.tally.Duplicates))
	}
	if x.messages == 0 {
		b.faults = append(b.faults, fmt.Errorf("%s, %s, %s: no message was accepted: %v", part, load, system, x.err))
	}
}
