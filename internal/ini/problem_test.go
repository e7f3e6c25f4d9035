package ini

import (
	"slices"
	"testing"
)

func TestErrors(t *testing.T) {
	p := Problems{{File: "b", Warning: true}, {File: "c"}, {File: "a", Line: 2}, {File: "a", Line: 1}}
	p.Sort()
	var order []string
	for _, one := range p {
		order = append(order, one.File)
	}
	if !slices.Equal(order, []string{"a", "a", "b", "c"}) || p[0].Line != 1 || len(p.Errors()) != 3 {
		t.Error(p)
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listen", "smtps_port", "inactivity_timeout", "host", "port", "enable_tls", "enable_outbound"}
	for name, want := range map[string]string{
		"lisen": "listen", "listne": "listen", "LISTEN": "listen", "listens": "listen", "xlisten": "listen", "inactivty_timout": "inactivity_timeout",
		"hots": "host", "enable_tsl": "enable_tls", "listen": "listen", "nodes": "", "": "", "x": "", "zzzzzz": "", "smtp_port": "smtps_port", "post": "host",
	} {
		if got := Nearest(name, known); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
	if Nearest("x", nil) != "" {
		t.Error("something out of nothing")
	}
}
