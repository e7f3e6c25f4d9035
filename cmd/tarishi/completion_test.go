package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tarishi/internal/command"
)

// scripts of tests: each loads the completion of its shell and prints what it offers
// for lines, which end where the cursor is, with a dot behind each.
var completing = map[string]struct{ prepare, each string }{
	"bash": {prepare: "source ./script", each: "COMP_LINE=%[1]s COMP_POINT=%[2]d; _tarishi; printf '%%s\\n' \"${COMPREPLY[@]}\"; echo ."},
	"zsh": {
		prepare: "compdef() { }; _files() { print -r -- folders; }; compset() { }; _describe() { print -rl -- ${${(P)2}//(#b)(([^\\\\:]|\\\\?)#):*/$match[1]}; }\n" +
			"setopt extendedglob; source ./script",
		each: "words=(${(z):-%[1]s} %[3]s); CURRENT=$#words; _tarishi; echo .",
	},
	"fish": {prepare: "source ./script", each: "complete -C %[1]s | string split -f1 \\t; echo ."},
}

// complete returns what a shell offers for each line.
func complete(t *testing.T, shell string, lines []string) [][]string {
	t.Helper()
	program, err := exec.LookPath(shell)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(shell + " is not installed")
	}
	dir := t.TempDir()
	code, script, errs := tarishi(t, "completion", shell)
	if code != exitOK || errs != "" {
		t.Fatal(code, errs)
	}
	steps := completing[shell]
	text := steps.prepare + "\n"
	for _, line := range lines {
		last := ""
		if strings.HasSuffix(line, " ") {
			last = "''"
		}
		text += fmt.Sprintf(steps.each, "'"+line+"'", len(line), last) + "\n"
	}
	for name, text := range map[string]string{"script": script, "test": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "./test")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var all [][]string
	for offered := range strings.SplitSeq(strings.TrimSuffix(string(out), ".\n"), ".\n") {
		all = append(all, strings.Fields(offered))
	}
	return all
}

// TestCompletion: what shells offer behind lines.
func TestCompletion(t *testing.T) {
	const states = "active deferred held ready suspended"
	for _, shell := range command.Shells() {
		t.Run(shell, func(t *testing.T) {
			tests := map[string]string{
				"tarishi ver":                              "version",
				"tarishi queue h":                          "hold",
				"tarishi queue hold --dom":                 "--domain",
				"tarishi queue list --json --state ":       states,
				"tarishi queue list --sender a --state he": "held",
				"tarishi queue list --state=he":            "held",
				"tarishi queue list --sender ":             "",
				"tarishi queue show ":                      "",
				"tarishi init ":                            "folder",
				"tarishi -c ":                              "folder",
				"tarishi queue list -c ":                   "folder",
				"tarishi queue import --dry-run ":          "folder",
				"tarishi completion ":                      "bash fish zsh",
				"tarishi settings connection.ini:uuid":     "connection.ini:uuid:banner_chars connection.ini:uuid:deny_chars",
				"tarishi settings outbound.ini:*:tl":       "outbound.ini:*:tls",
			}
			var lines []string
			for line := range tests {
				lines = append(lines, line)
			}
			for i, offered := range complete(t, shell, lines) {
				line, want := lines[i], tests[lines[i]]
				typed := line[strings.LastIndexByte(line, ' ')+1:]
				flag, _, _ := strings.Cut(typed, "=")
				for k, s := range offered {
					s = strings.ReplaceAll(s, `\:`, ":")
					s = strings.TrimPrefix(s, flag+"=")
					if shell == "bash" { // what is before the last of them stays
						s = typed[:strings.LastIndexByte(typed, ':')+1] + s
					}
					offered[k] = strings.TrimSuffix(strings.Replace(s, "folders", "folder", 1), "/")
				}
				if shell == "zsh" { // it takes those that fit
					_, value, isFlag := strings.Cut(typed, "=")
					if !isFlag {
						value = typed
					}
					offered = slices.DeleteFunc(offered, func(s string) bool { return !strings.HasPrefix(s, value) })
				}
				slices.Sort(offered)
				if got := strings.Join(offered, " "); got != want {
					t.Errorf("%q: %q, want %q", line, got, want)
				}
			}
		})
	}
	expect(t, exitUsage, ``, `tarishi: invalid request: there is no completion for tcsh\n`, "completion", "tcsh")
}

// TestEverythingIsCompleted: each command and each of its flags is offered.
func TestEverythingIsCompleted(t *testing.T) {
	for _, shell := range command.Shells() {
		t.Run(shell, func(t *testing.T) {
			var lines, want []string
			for _, c := range commands().Commands {
				if c.Hidden {
					continue
				}
				name := "tarishi " + c.Name
				last := strings.LastIndexByte(name, ' ')
				lines, want = append(lines, name[:last+1]), append(want, name[last+1:])
				for _, p := range c.Parameters {
					if !p.Positional && p.Preset == "" {
						lines, want = append(lines, name+" --"), append(want, "--"+p.Name)
					}
				}
			}
			for i, offered := range complete(t, shell, lines) {
				if !slices.Contains(offered, want[i]) {
					t.Errorf("%q: no %s in %q", lines[i], want[i], offered)
				}
			}
		})
	}
}
