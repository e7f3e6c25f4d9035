package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
)

// TestHealth: the first line says whether messages can be accepted, as the status
// does; the others are notes.
func TestHealth(t *testing.T) {
	full, notes := errors.New("452 4.3.1 no space"), func() []string { return []string{"something is amiss"} }
	for _, c := range []struct {
		sick   error
		notes  func() []string
		status int
		body   string
	}{
		{nil, nil, http.StatusOK, "ok\n"},
		{nil, notes, http.StatusOK, "ok\nsomething is amiss\n"},
		{full, notes, http.StatusServiceUnavailable, "452 4.3.1 no space\nsomething is amiss\n"},
	} {
		w := httptest.NewRecorder()
		Health(func() error { return c.sick }, c.notes).ServeHTTP(w, httptest.NewRequest("GET", "/health", nil))
		if w.Code != c.status || w.Body.String() != c.body || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%v: %d %q", c.sick, w.Code, w.Body)
		}
	}
}
