package plugin_test

import (
	"maps"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/plugin/plugintest"
	"tarishi/internal/result"
)

// figures are metrics that a test can read.
type figures map[string]float64

func (f figures) Counter(name, _ string, labels ...string) plugin.Counter {
	return counter{f, name + " " + labels[0] + "="}
}
func (f figures) Gauge(string, string, func() float64) {}

type counter struct {
	figures
	name string
}

func (c counter) Add(n float64, values ...string) { c.figures[c.name+values[0]] += n }

// What a plugin records is in the results, in one line of its log and in its figures.
func TestRecorder(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	counted := figures{}
	env := plugin.Env{Log: zap.New(core), Metrics: counted, Results: result.Format{Hide: []string{"pass"}}}
	recorder := env.NewRecorder("some", result.Format{Order: []string{"fail", "pass", "skip"}, Hide: []string{"number"}})

	c, tx := plugintest.Session(t, "a@b.c")
	r := recorder.On(tx.View().Results())
	r.Log() // nothing was found
	r.Pass("one")
	r.Fail("two")
	r.Fail("three")
	r.Skip("four")
	r.Err("five")
	r.Msg("six")
	r.Set("number", 7)
	if v := r.Refuse(hook.Answer(hook.Deny, "no")); v.Code != hook.Deny || v.Text != "no" {
		t.Errorf("%+v", v)
	}
	r.Log()

	// What results.ini says counts, and where it says nothing the plugin's own format.
	lines := logs.All()
	if len(lines) != 1 || lines[0].Message != "number: 7, fail:two, three, skip:four" || lines[0].ContextMap()["uuid"] != "C.1" {
		t.Errorf("%+v", lines)
	}
	want := figures{
		"checks_total outcome=pass": 1, "checks_total outcome=fail": 2, "checks_total outcome=skip": 1, "checks_total outcome=error": 1, "checks_total outcome=refused": 1,
	}
	if !maps.Equal(counted, want) {
		t.Errorf("%v", counted)
	}
	if found := tx.Results.Of("some"); len(found.Fail) != 2 || found.Err[0] != "five" || found.Msg[0] != "six" || c.Results.Of("some") != nil {
		t.Errorf("%+v", found)
	}
}
