package main

import (
	"slices"
	"strings"
	"testing"
)

// TestFindInstance: -c, the variable, the current folder, the system's, in this
// order; what is named and is none is an error.
func TestFindInstance(t *testing.T) {
	for _, tt := range []struct {
		flag, variable string
		instances      string
		want           string // the folder, or part of the error
	}{
		{"a", "b", "a b . /etc/tarishi", "a"},
		{"a", "b", "b . /etc/tarishi", "a is no instance"},
		{"", "b", "b . /etc/tarishi", "b"},
		{"", "b", ". /etc/tarishi", "b, which TARISHI_DIR names, is no instance"},
		{"", "", ". /etc/tarishi", "."},
		{"", "", "/etc/tarishi", "/etc/tarishi"},
		{"", "", "", "there is no -c DIR, TARISHI_DIR is not set, the current folder has no config/, and neither has /etc/tarishi"},
	} {
		got, err := instance{tt.flag}.find(tt.variable, func(dir string) bool { return slices.Contains(strings.Fields(tt.instances), dir) })
		if err != nil {
			got = err.Error()
		}
		if err == nil && got != tt.want || !strings.Contains(got, tt.want) {
			t.Errorf("-c %q, TARISHI_DIR=%q, %s: %s", tt.flag, tt.variable, tt.instances, got)
		}
	}
}

// TestNoInstance: a command in an empty folder says where it has looked, and the
// daemon does not start with the shipped configuration.
func TestNoInstance(t *testing.T) {
	if hasConfig(systemInstance) {
		t.Skip("this host has an instance in " + systemInstance)
	}
	t.Chdir(t.TempDir())
	t.Setenv(instanceVariable, "")
	for _, args := range [][]string{{"serve"}, {"check"}, {"plugins"}, {"metrics"}, {"queue", "list"}, {"queue", "flush"}, {"--qlist"}} {
		code, out, errs := tarishi(t, args...)
		if code != exitFailure || out != "" {
			t.Errorf("%q: exit %d, %s", args, code, out)
		}
		for _, place := range []string{"-c DIR", "TARISHI_DIR", "current folder", "/etc/tarishi"} {
			if !strings.Contains(errs, place) {
				t.Errorf("%q does not name %s: %s", args, place, errs)
			}
		}
	}
	dir := folder(t, map[string]string{"plugins": ""})
	t.Setenv(instanceVariable, dir)
	if code, _, errs := tarishi(t, "check"); code != exitOK {
		t.Errorf("exit %d, %s", code, errs)
	}
	t.Setenv(instanceVariable, "")
	t.Chdir(dir)
	if code, _, errs := tarishi(t, "check"); code != exitOK {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// TestCheckOrder: errors stand last, behind them how many of each there are.
func TestCheckOrder(t *testing.T) {
	dir := folder(t, map[string]string{
		"smtp.ini": "lisen=1\nnodes=4\n", "connection.ini": "[haproxy]\nhosts[]=one\n", "tls.ini": "dhparam=dhparams.pem\n",
		"plugins": "nothing/like/this\nnor/this\n", "me": "mx.example.com\n",
	})
	code, _, errs := tarishi(t, "check", "-c", dir)
	lines := strings.Split(strings.TrimSuffix(errs, "\n"), "\n")
	if code != exitFailure || lines[len(lines)-1] != "4 errors, 2 warnings" || len(lines) != 7 {
		t.Fatalf("exit %d\n%s", code, errs)
	}
	for i, line := range lines[:6] {
		if strings.Contains(line, ": warning: ") != (i < 2) {
			t.Errorf("line %d: %s", i+1, line)
		}
	}
	one := folder(t, map[string]string{"smtp.ini": "nodes=4\n", "me": "mx.example.com\n"})
	if code, _, errs := tarishi(t, "check", "-c", one); code != exitOK || !strings.HasSuffix(errs, "\n0 errors, 1 warning: the configuration is good\n") {
		t.Errorf("exit %d\n%s", code, errs)
	}
}
