package plugin

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"tarishi/internal/hook"
	"tarishi/internal/result"
)

// Recorder records the findings of a plugin: in the results, where other plugins read
// them, in one line of its log, and in its metrics.
type Recorder struct {
	plugin string
	log    *zap.Logger
	format result.Format
	checks Counter
}

// The outcomes that a Recorder counts.
const (
	outcomePass    = "pass"
	outcomeFail    = "fail"
	outcomeSkip    = "skip"
	outcomeError   = "error"
	outcomeRefused = "refused"
)

// NewRecorder returns the recorder of a plugin. Where results.ini says nothing of it,
// its line has the usual format.
func (e *Env) NewRecorder(plugin string, usual result.Format) *Recorder {
	return &Recorder{
		plugin: plugin, log: e.Log, format: e.Results.Or(usual),
		checks: e.Metrics.Counter("checks_total", "Outcomes of the checks of the plugin.", "outcome"),
	}
}

// On returns the record that r keeps in the results of a connection or a transaction.
func (r *Recorder) On(v result.View) Record { return Record{r, v} }

// Record is what a plugin has found out about one connection or transaction.
type Record struct {
	recorder *Recorder
	view     result.View
}

// Pass records a check that was passed.
func (r Record) Pass(text string) {
	r.view.Pass(r.recorder.plugin, text)
	r.recorder.checks.Add(1, outcomePass)
}

// Fail records a check that was failed.
func (r Record) Fail(text string) {
	r.view.Fail(r.recorder.plugin, text)
	r.recorder.checks.Add(1, outcomeFail)
}

// Skip records a check that was left out.
func (r Record) Skip(text string) {
	r.view.Skip(r.recorder.plugin, text)
	r.recorder.checks.Add(1, outcomeSkip)
}

// Err records a check that could not be made.
func (r Record) Err(text string) {
	r.view.Err(r.recorder.plugin, text)
	r.recorder.checks.Add(1, outcomeError)
}

// Msg records a remark.
func (r Record) Msg(text string) { r.view.Msg(r.recorder.plugin, text) }

// Set records a named value.
func (r Record) Set(name string, value any) { r.view.Set(r.recorder.plugin, name, value) }

// Refuse counts a refusal and returns it.
func (r Record) Refuse(v hook.Verdict) hook.Verdict {
	r.recorder.checks.Add(1, outcomeRefused)
	return v
}

// Log writes all that was recorded so far as one line.
func (r Record) Log() {
	// The line is not composed for nobody.
	if !r.recorder.log.Core().Enabled(zapcore.InfoLevel) {
		return
	}
	if line := r.view.Line(r.recorder.plugin, r.recorder.format); line != "" {
		r.recorder.log.Info(line, zap.String("uuid", r.view.ID()))
	}
}
