package metrics

import (
	"net/http/httptest"
	"strings"
	"testing"
)

// TestPlugin: the figures of a plugin bear its name, and a new instance of it goes on
// with them.
func TestPlugin(t *testing.T) {
	m := New("1")
	for n := range 2 {
		p := m.Plugin("queue/some.thing")
		p.Counter("seen_total", "What was seen.", "kind").Add(2, "new")
		p.Gauge("open", "What is open.", func() float64 { return float64(10 + n) })
	}
	m.Plugin("other").Counter("seen_total", "What was seen.").Add(1)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`tarishi_plugin_queue_some_thing_seen_total{kind="new"} 4`, "tarishi_plugin_queue_some_thing_open 11", "tarishi_plugin_other_seen_total 1",
	} {
		if !strings.Contains(w.Body.String(), "\n"+want+"\n") {
			t.Errorf("no %s", want)
		}
	}
}
