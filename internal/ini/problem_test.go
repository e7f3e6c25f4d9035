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

// A list with a warning for each line fills no log, and hides no other warning and no
// error.
func TestLogged(t *testing.T) {
	var p Problems
	for i := range 3 * MaxWarnings {
		p = append(p, Problem{File: "a", Line: i + 1, Text: "x", Warning: i != 2*MaxWarnings})
	}
	p = append(p, Problem{File: "b", Text: "y", Warning: true})
	logged := p.Logged()
	n := len(logged)
	if n != MaxWarnings+2 || len(logged.Errors()) != 1 || logged[n-1].Text != "y" {
		t.Fatalf("%d problems, %d errors, last %v", n, len(logged.Errors()), logged[n-1])
	}
	if got := logged[MaxWarnings-1].String(); got != "a: warning: 200 more warnings: tarishi check reports all" {
		t.Error(got)
	}
	if got := p[:MaxWarnings].Logged(); len(got) != MaxWarnings || got[MaxWarnings-1].Text != "x" {
		t.Errorf("%v", got[MaxWarnings-1])
	}
}
