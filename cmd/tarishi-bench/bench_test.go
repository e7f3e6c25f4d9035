package main

import (
	"bytes"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"tarishi/internal/loadtest"
	"tarishi/internal/loadtest/instance"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		rates []float64
		want  float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 100}, 3}} {
		var rs []result
		for _, r := range c.rates {
			rs = append(rs, result{accepted: r})
		}
		if got := median(rs, result.acceptedRate); got != c.want {
			t.Errorf("median of %v is %v, want %v", c.rates, got, c.want)
		}
	}
}

func TestTable(t *testing.T) {
	sc := scenario{name: "few"}
	server := &instance.Server{}
	systems := []*system{{name: tarishiQueue, server: server}, {name: postfixName, server: server}, {name: noServer}}
	latency := loadtest.Latency{P50: time.Millisecond, P95: 2 * time.Millisecond, P99: 3 * time.Millisecond, Max: 40 * time.Millisecond}
	results := map[cell][]result{
		{"few", tarishiQueue}: {{accepted: 3000, delivered: 2000, messages: 900, connections: 7, cpu: 0.25, memory: 30, latency: latency, drained: true}},
		{"few", postfixName}:  {{accepted: 600, delivered: 500, drained: true}},
	}
	var out bytes.Buffer
	printTable(&out, []scenario{sc}, systems, results)
	want := "| few | Tarishi queue | 3000 | 2000 | 1.0 / 2.0 / 3.0 / 40 | 7 of 900 | 0.25 | 30 | 0 | 0 | 5.0 / 4.0 |\n"
	if !strings.Contains(out.String(), want) || strings.Contains(out.String(), noServer) {
		t.Errorf("table\n%swants\n%s", out.String(), want)
	}
	if err := firstLoss(results); err != nil {
		t.Error(err)
	}
	results[cell{"few", postfixName}][0].tally.Lost = 2
	if err := firstLoss(results); err == nil || !strings.Contains(err.Error(), "2 recipients lost") {
		t.Errorf("a loss gave %v", err)
	}
}

func TestNothingToMeasure(t *testing.T) {
	all := regexp.MustCompile("")
	for _, o := range []options{
		{tarishi: t.TempDir() + "/absent", only: all, runs: 1, total: time.Second},
		{tarishi: "main.go", only: regexp.MustCompile("no such scenario"), runs: 1, total: time.Second},
	} {
		if err := run(t.Context(), o, io.Discard, io.Discard); err == nil {
			t.Errorf("%+v: no error", o)
		}
	}
}
