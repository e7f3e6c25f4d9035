package main

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
)

// TestCommandLine: what lines mean, and what is wrong with others.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		line string
		name string
		want control.Arguments
		err  string // or what is wrong
	}{
		{"-c DIR", "serve", control.Arguments{"configs": {"DIR"}}, ""},
		{"serve -cDIR", "serve", control.Arguments{"configs": {"DIR"}}, ""},
		{"serve --configs=DIR", "serve", control.Arguments{"configs": {"DIR"}}, ""},
		{"serve --configs DIR", "serve", control.Arguments{"configs": {"DIR"}}, ""},
		{"init DIR", "init", control.Arguments{"dir": {"DIR"}}, ""},
		{"queue list", "queue list", control.Arguments{}, ""},
		{"queue list --json -c DIR --limit=3", "queue list", control.Arguments{"configs": {"DIR"}, "json": {"true"}, "limit": {"3"}}, ""},
		{"queue list --json=false --limit -3", "queue list", control.Arguments{"json": {"false"}, "limit": {"-3"}}, ""},
		{"queue list --id A.1 --id B.1", "queue list", control.Arguments{"id": {"A.1", "B.1"}}, ""},
		{"queue list --sender=", "queue list", control.Arguments{"sender": {""}}, ""},
		{"queue hold A.1 -c DIR B.1 --older 2d", "queue hold", control.Arguments{"id": {"A.1", "B.1"}, "configs": {"DIR"}, "older": {"2d"}}, ""},
		{"queue remove -- -1.1", "queue remove", control.Arguments{"id": {"-1.1"}}, ""},
		{"queue flush", "queue flush", control.Arguments{}, ""},
		{"queue flush x.test", "queue flush", control.Arguments{"which": {"x.test"}}, ""},
		{"queue import DIR --dry-run --hold", "queue import", control.Arguments{"dir": {"DIR"}, "dry-run": {"true"}, "hold": {"true"}}, ""},
		{"queue export --haraka OUT", "queue export", control.Arguments{"haraka": {"OUT"}}, ""},

		{"nothing", "", nil, "unexpected argument nothing"},
		{"serve now", "", nil, "unexpected argument now"},
		{"queue", "", nil, "expected one of list, stat, show, "},
		{"queue -c DIR", "", nil, "expected one of list, stat"},
		{"queue delete", "", nil, "unexpected argument delete"},
		{"queue show", "", nil, "missing argument <id>"},
		{"queue show A.1 B.1", "", nil, "unexpected argument B.1"},
		{"queue list --no-such=1", "", nil, "unknown flag --no-such"},
		{"queue list -x", "", nil, "unknown flag -x"},
		{"queue stat --destinations 3", "", nil, "unknown flag --destinations"}, // is given anyway
		{"queue hold --id A.1", "", nil, "unknown flag --id"},                   // is an argument
		{"queue list --limit", "", nil, "--limit needs a value, N"},
		{"queue list --sender --json", "", nil, "--sender needs a value, ADDR"},
		{"queue list --limit 1 --limit 2", "", nil, "--limit is given more than once"},
		{"queue list --json=maybe", "", nil, `--json: "maybe" is neither true nor false`},
		{"queue export", "", nil, "missing flag --haraka=DIR"},
		{"init", "", nil, "missing argument <dir>"},
	} {
		all := commands()
		row, rest, _, err := all.Find(strings.Fields(c.line))
		var got control.Arguments
		name := ""
		if err == nil {
			if got, err = all.Parse(row, rest); err == nil {
				name = row.Name
			}
		}
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: %v", c.line, err)
			}
			continue
		}
		if err != nil || name != c.name || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %s %v, %v", c.line, name, got, err)
		}
	}
}

// TestMisused: a line that is no command ends with exit code 2 and a hint.
func TestMisused(t *testing.T) {
	expect(t, exitUsage, ``, `tarishi: unknown flag --jsn\nTry 'tarishi --help'\.\n`, "queue", "list", "--jsn")
	expect(t, exitUsage, ``, `tarishi: unexpected argument quque\nTry .*\n`, "quque")
}

// TestHelp: every command and every flag is in the help, and nothing of it is
// wider than a terminal is likely to be.
func TestHelp(t *testing.T) {
	help := func(line ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		if code := run(line, command.Streams{Out: &out, Err: &errs}); code != exitOK || errs.Len() > 0 {
			t.Fatalf("%q: exit %d, %s", line, code, &errs)
		}
		for l := range strings.Lines(out.String()) {
			if len(l) > 120 {
				t.Errorf("%q: a long line: %s", line, l)
			}
		}
		return out.String()
	}
	all := help("--help")
	for _, c := range commands().Commands {
		text := help(append(strings.Fields(c.Name), "--help")...)
		if !strings.Contains(text, "tarishi "+c.Name) {
			t.Errorf("%s: %s", c.Name, text)
		}
		for _, p := range c.Parameters {
			if !p.Positional && p.Preset == "" && !strings.Contains(text, "--"+p.Name) {
				t.Errorf("%s: --%s is not in its help", c.Name, p.Name)
			}
		}
		group, name, nested := strings.Cut(c.Name, " ")
		if !nested {
			name = c.Name
		}
		if !c.Hidden && (nested && !strings.Contains(help(group, "-h"), c.Name) || !strings.Contains(all, name)) {
			t.Errorf("%s is in no list", c.Name)
		}
	}
}

// TestEveryOperation: each row of control's table is a command.
func TestEveryOperation(t *testing.T) {
	all := commands()
	for _, op := range mailq.Rows() {
		if !slices.ContainsFunc(all.Commands, func(c command.Command) bool { return c.Name == op.Name && c.Text == op.Text }) {
			t.Errorf("%s is no command", op.Name)
		}
	}
}

// TestFilteredCommands: the filter's conditions are flags of the actions.
func TestFilteredCommands(t *testing.T) {
	dir := folder(t, nil)
	fill(t, dir)
	expect(t, 2, ``, `tarishi: invalid request: no message is named, .*\n`, "queue", "remove", "-c", dir)
	expect(t, 2, ``, `tarishi: invalid request: --older: "2": a number .*\n`, "queue", "hold", "-c", dir, "--older", "2")
	expect(t, 2, ``, `tarishi: invalid request: --state: "dead" is none of ready, .*\n`, "queue", "hold", "-c", dir, "--state", "dead")
	expect(t, 2, ``, `tarishi: invalid request: --reason: error parsing .*\n`, "queue", "hold", "-c", dir, "--reason", "(")
	expect(t, 0, `held `+first+`\n`, ``, "queue", "hold", "-c", dir, "--reason", "owned", "--attempts", "2")
	expect(t, 0, `no message\n`, ``, "queue", "hold", "-c", dir, "--sender", "*@nowhere.test")
	expect(t, 0, `\{"id":"`+second+`","held":true\}\n`, ``, "queue", "hold", "-c", dir, "--json", "--sender", "<>")
	expect(t, 0, `1 delivery is due now\n`, ``, "queue", "flush", "-c", dir, "--older", "1h")
	expect(t, 0, `removed `+first+`\n`, ``, "queue", "remove", "-c", dir, "--domain", "x.*")
	expect(t, 0, `removed `+second+`\n`, ``, "queue", "remove", "-c", dir, "--recipient", "d@y.test")
	expect(t, 0, `no message\n`, ``, "queue", "list", "-c", dir)
}
