package main

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/test/load"
	"tarishi/internal/test/load/fileserver"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 100}, 3}} {
		if got := median(slices.Clone(c.values)); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.values, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	l := workload{name: "few", systems: []string{tarishiQueue, harakaQueue, postfixTuned}}
	latency := load.Latency{P50: time.Millisecond, P95: 2 * time.Millisecond, P99: 3 * time.Millisecond, Max: 40 * time.Millisecond}
	r := results{
		{"few", tarishiQueue}: {{accepted: 3000, delivered: 2000, messages: 900, connections: 7, cpu: 0.25, tool: 0.05, memory: 30, latency: latency, drained: true}},
		{"few", postfixTuned}: {{accepted: 600, delivered: 500, err: errors.New("server said 421")}},
	}
	var out bytes.Buffer
	r.printTable(&out, []workload{l})
	for _, want := range []string{
		"| few | Tarishi queue | 3000 | 2000 | 1.0 / 2.0 / 3.0 / 40 | 7 of 900 | 0.25 | 0.05 | 30 | 0 | 0 |\n",
		"| few | Postfix tuned | 600 | 500 | 0.0 / 0.0 / 0.0 / 0 | 0 of 0 | 0.00 | 0.00 | 0 | 0 (not drained) | 0 |\n",
		"\nTrouble: few, Postfix tuned: server said 421\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table\n%swants\n%s", out.String(), want)
		}
	}
	if strings.Contains(out.String(), harakaQueue) {
		t.Errorf("a system that did not run is in the table:\n%s", &out)
	}
}

// A ratio is the median of the rounds', not the ratio of the medians.
func TestRatios(t *testing.T) {
	r := results{
		{"l", "ours"}:   {{delivered: 100}, {delivered: 50}, {delivered: 10}},
		{"l", "theirs"}: {{delivered: 10}, {delivered: 10}, {delivered: 10}},
		{"l", "dead"}:   {{}, {}, {}},
	}
	var out bytes.Buffer
	b := &bench{out: &out, part: "p"}
	b.wantAtLeast(5, r.ratioOf("a", deliveredRate, "l", "ours", "theirs"))
	b.wantAtLeast(5.01, r.ratioOf("b", deliveredRate, "l", "ours", "theirs"))
	b.wantAtLeast(1, r.ratioOf("c", deliveredRate, "l", "ours", "absent"))
	b.wantAtLeast(1, r.ratioOf("d", deliveredRate, "l", "ours", "dead"))
	b.wantAtMost(50, r.medianFigure("e", "l", "ours", deliveredRate))
	b.wantBelow(50, r.medianFigure("f", "l", "ours", deliveredRate))
	b.wantAtMost(0, r.differenceOf("g", deliveredRate, "l", "ours", "theirs"))
	b.printRatios()
	want := "\n### Ratios\n\n- p: a: 5.00 (wanted ≥ 5) ok\n- p: b: 5.00 (wanted ≥ 5.01) MISSED\n- p: c: not measured (wanted ≥ 1)\n" +
		"- p: d: not measured (wanted ≥ 1)\n- p: e: 50 (wanted ≤ 50) ok\n- p: f: 50 (wanted < 50) MISSED\n- p: g: 40 (wanted ≤ 0) MISSED\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestFaults(t *testing.T) {
	for _, c := range []struct {
		system string
		x      result
		want   string // "": none
	}{
		{tarishiQueue, result{messages: 1, drained: true}, ""},
		{tarishiQueue, result{messages: 1, drained: true, err: errors.New("451")}, ""},
		{tarishiQueue, result{messages: 1, drained: true, tally: load.Tally{Lost: 2}}, "2 recipients lost"},
		{tarishiQueue, result{messages: 1, drained: true, tally: load.Tally{Duplicates: 3}}, "3 doubled"},
		{tarishiQueue, result{messages: 1, tally: load.Tally{Lost: 4}}, "4 recipients had not arrived"},
		{postfixTuned, result{messages: 1, tally: load.Tally{Lost: 5}}, ""},
		{postfixTuned, result{messages: 1, drained: true, tally: load.Tally{Lost: 6}}, "6 recipients lost"},
		{harakaRelay, result{drained: true, err: errors.New("refused")}, "no message was accepted: refused"},
	} {
		b := &bench{}
		b.checkResult("part", "load", c.system, c.x)
		err := errors.Join(b.faults...)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %+v: %v, want %q", c.system, c.x, err, c.want)
		}
	}
}

// Whatever is chosen, all of it fits into the time.
func TestDuration(t *testing.T) {
	all := regexp.MustCompile("")
	o := options{only: all, runs: 3, total: 5 * time.Minute, parts: defaultParts()}
	chosen, err := chooseParts(o)
	if err != nil {
		t.Fatal(err)
	}
	each := (&bench{options: o}).duration(chosen)
	if each < 2*time.Second || each > 6*time.Second {
		t.Errorf("%v for each run", each)
	}
	without := &bench{options: o, missing: map[string]string{harakaRelay: "absent", harakaQueue: "absent"}}
	if longer := without.duration(chosen); longer <= each {
		t.Errorf("%v with peers, %v without", each, longer)
	}
	o.parts, o.only = []string{"relay", " rtt"}, regexp.MustCompile("64 KiB")
	if chosen, err = chooseParts(o); err != nil || len(chosen) != 1 || len(chosen[0].loads) != 1 {
		t.Errorf("chosen %+v, %v", chosen, err)
	}
}

func TestNothingToMeasure(t *testing.T) {
	all := regexp.MustCompile("")
	for _, o := range []options{
		{tarishi: t.TempDir() + "/absent", only: all, runs: 1, total: time.Second, parts: []string{"rtt"}},
		{tarishi: "main.go", only: regexp.MustCompile("no such load"), runs: 1, total: time.Second, parts: []string{"rtt"}},
		{tarishi: "main.go", only: all, runs: 1, total: time.Second, parts: []string{"no such part"}},
	} {
		if err := runParts(t.Context(), o, io.Discard, io.Discard); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
	if err := fileserver.Serve(t.Context(), []string{t.TempDir()}); err == nil {
		t.Error("a file server without a next hop")
	}
}

// Every name in the list of parts is one that can be started, and every load
// that a judge looks at is in the list.
func TestParts(t *testing.T) {
	known := []string{
		tarishiRelay, tarishiQueue, tarishiMany, tarishiNoSync, oneFile, harakaRelay, harakaQueue, postfixDefault, postfixTuned,
		pipelined, unpipelined, noServer, tarishiChecked, tarishiCheap, harakaChecked,
	}
	for _, p := range parts {
		r := make(results)
		for _, l := range p.loads {
			for _, s := range l.systems {
				if l.certificate != "" && s != tarishiRelay && s != harakaRelay && s != postfixTuned {
					t.Errorf("%s: %s: %s is not given a certificate", p.name, l.name, s)
				}
				if !slices.Contains(known, s) {
					t.Errorf("%s: %s: no system %q", p.name, l.name, s)
				}
				r[key{l.name, s}] = []result{{accepted: 1, delivered: 1, cpu: 1, latency: load.Latency{P50: 1, P99: 1}}}
			}
		}
		if p.judge == nil {
			continue
		}
		b := &bench{}
		p.judge(b, r)
		for _, x := range b.ratios {
			if x.runs != 1 {
				t.Errorf("%s: %s compares what is not measured", p.name, x.name)
			}
		}
	}
}

// The older binary runs next to the newer one wherever there is one, and is
// compared in rate and CPU.
func TestBaseline(t *testing.T) {
	o := options{only: regexp.MustCompile(hundred), runs: 1, baseline: "older", parts: []string{"relay", "durable"}}
	chosen, err := chooseParts(o)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{tarishiRelay, tarishiRelay + before, harakaRelay, postfixTuned, postfixDefault, noServer}; !slices.Equal(chosen[0].loads[0].systems, want) {
		t.Errorf("systems of relay: %q", chosen[0].loads[0].systems)
	}
	if want := []string{tarishiQueue, tarishiQueue + before, tarishiNoSync, oneFile}; !slices.Equal(chosen[1].loads[0].systems, want) {
		t.Errorf("systems of durable: %q", chosen[1].loads[0].systems)
	}
	var out bytes.Buffer
	b := &bench{out: &out, part: "relay"}
	b.compareBaseline(chosen[0], results{
		{hundred, tarishiRelay}:          {{delivered: 90, cpu: 0.5}, {delivered: 120, cpu: 0.5}, {delivered: 200, cpu: 0.5}},
		{hundred, tarishiRelay + before}: {{delivered: 100, cpu: 1}, {delivered: 100, cpu: 1}, {delivered: 100, cpu: 1}},
	})
	b.printRatios()
	want := "\n### Ratios\n\n- relay: " + hundred + ", Tarishi relay, rate, new : before: 1.20\n- relay: " + hundred + ", Tarishi relay, CPU a message, new : before: 0.50\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
	o.tarishi, o.baseline, o.total = "main.go", t.TempDir()+"/absent", time.Second
	if err := runParts(t.Context(), o, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "-baseline") {
		t.Errorf("an older binary that is absent: %v", err)
	}
}

// The whole way of one part, with no server between load and sink.
func TestCompare(t *testing.T) {
	var out bytes.Buffer
	b := &bench{options: options{runs: 2, dir: t.TempDir()}, each: 30 * time.Millisecond, out: &out, progress: io.Discard, missing: map[string]string{harakaRelay: "it is absent"}}
	p := part{name: "p", loads: []workload{{name: "l", clients: 3, size: 2000, systems: []string{noServer, harakaRelay}}}}
	if err := compare(t.Context(), b, p); err != nil || len(b.faults) > 0 {
		t.Fatal(err, b.faults)
	}
	if !strings.Contains(out.String(), "| l | (no server) | ") || !strings.Contains(out.String(), "\nWithout Haraka relay: it is absent.\n") {
		t.Errorf("printed\n%s", &out)
	}
}
