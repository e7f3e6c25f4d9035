package conf

import (
	"slices"
	"strings"
	"testing"

	"tarishi/internal/ini"
)

// TestLiveEmptied: a file that is empty of a sudden may have been cut short, and what it
// said stays in force.
func TestLiveEmptied(t *testing.T) {
	polled(t, files{
		"plugins": "relay\naliases\n", "relay_acl_allow": "192.0.2.0/24\n", "host_list": "# none\n", "aliases.json": `{"a":{"action":"drop"}}`, "access.ini": "[check]\nmail=false\n",
	}, func(t *testing.T, f *follower) {
		generation := int64(1)
		for _, test := range []struct{ name, text, want string }{
			{"relay_acl_allow", "", "config/relay_acl_allow: is empty all of a sudden: a comment (#) in it says that this is meant"},
			{"relay_acl_allow", "\n", "config/relay_acl_allow: is empty all of a sudden: a comment (#) in it says that this is meant"},
			{"relay_acl_allow", "# nobody\n", ""},
			{"relay_acl_allow", "", ""}, // which says as little
			{"access.ini", "", ""},
			{"aliases.json", "", "config/aliases.json: is empty all of a sudden: {} says that this is meant"},
			{"aliases.json", "{}", ""},
			{"host_list", "", ""},
		} {
			write(t, f.dir, test.name, test.text)
			if test.want == "" {
				generation++
			}
			r, err := f.live.Reload(t.Context())
			if warned := slices.Contains(r.Warnings, "config/access.ini: warning: is empty all of a sudden: its settings are at their defaults"); warned != (test.name == "access.ini") {
				t.Errorf("%s: %q", test.name, r.Warnings)
			}
			if got := strings.Join(r.Problems, "\n"); err != nil || r.Generation != generation || got != test.want {
				t.Errorf("%s %q: %+v, %v, want generation %d and %q", test.name, test.text, r, err, generation, test.want)
			}
		}
	})
}

// TestLiveManyWarnings: a list with a warning in each line is no flood in the log.
func TestLiveManyWarnings(t *testing.T) {
	polled(t, files{"plugins": "access\n"}, func(t *testing.T, f *follower) {
		write(t, f.dir, "access.domains", strings.Repeat("nowhere.example\n", 1000))
		if r, err := f.live.Reload(t.Context()); err != nil || r.Generation != 2 || len(r.Warnings) > ini.MaxWarnings {
			t.Errorf("%d warnings, generation %d, %v", len(r.Warnings), r.Generation, err)
		}
	})
}
