package metrics

import (
	"fmt"
	"net/http"
	"strings"
)

// Health answers 200 "ok" while healthy returns nil, and else 503 with the
// reason. The lines after the first are notes: troubles that keep no message from
// being accepted. notes may be nil.
func Health(healthy func() error, notes func() []string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		// Probes read the status and the first line, people the rest.
		lines := []string{"ok"}
		err := healthy()
		if err != nil {
			lines[0] = err.Error()
		}
		if notes != nil {
			lines = append(lines, notes()...)
		}
		text := strings.Join(lines, "\n")
		if err != nil {
			http.Error(w, text, http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintln(w, text)
	})
}
