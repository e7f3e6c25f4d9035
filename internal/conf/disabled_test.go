package conf

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tarishi/internal/ini"
)

func TestFollowDisabled(t *testing.T) {
	dir := instance(t, nil)
	file := filepath.Join(dir, "config", "outbound.ini")
	now := time.Unix(1e9, 0)
	stamp := now
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		stamp = stamp.Add(time.Second)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	write("disabled=true\n")
	c, problems := Load(dir, own())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var told []string
	d := c.FollowDisabled(func() time.Time { return now }, func(p ini.Problem) { told = append(told, p.String()) })
	want := func(on bool, complaints int) {
		t.Helper()
		if got := d.On(); got != on || len(told) != complaints {
			t.Fatalf("%v %v", got, told)
		}
	}
	want(true, 0)
	write("disabled=false\n[example.com]\ndisabled=true\n")
	want(true, 0) // looked at just now
	now = now.Add(lookAgain)
	want(false, 0)
	write("concurrency_max=3\ndisabled=on\n")
	now = now.Add(lookAgain)
	want(true, 0)
	write("disabled=nope\n")
	now = now.Add(lookAgain)
	want(true, 1)
	if told[0] != `config/outbound.ini:1: key disabled: "nope" is neither true nor false` {
		t.Error(told)
	}
	now = now.Add(lookAgain)
	want(true, 1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookAgain)
	want(true, 1)
	write("")
	now = now.Add(lookAgain)
	want(false, 1)
}

// TestFollowDisabledFlatFile follows Haraka's old outbound.disabled: beside
// outbound.ini, through edits of both, and when it is removed.
func TestFollowDisabledFlatFile(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "config")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	stamp := now
	write := func(name, text string) {
		t.Helper()
		file := filepath.Join(folder, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		stamp = stamp.Add(time.Second)
		if err := os.Chtimes(file, stamp, stamp); err != nil {
			t.Fatal(err)
		}
	}
	write("me", "mx.example.com\n")
	write("outbound.ini", "disabled=false\n")
	write("outbound.disabled", "1\n")
	c, problems := Load(dir, own())
	if !c.Outbound.Disabled || len(problems) != 1 || !problems[0].Warning {
		t.Fatal(c.Outbound.Disabled, problems)
	}
	var told []string
	d := c.FollowDisabled(func() time.Time { return now }, func(p ini.Problem) { told = append(told, p.String()) })
	step := 0
	want := func(on bool) {
		t.Helper()
		step++
		now = now.Add(lookAgain)
		if got := d.On(); got != on {
			t.Fatalf("step %d: %v %v", step, got, told)
		}
	}
	want(true)
	write("outbound.ini", "disabled=false\nconcurrency_max=7\n") // an edit of another key
	want(true)
	write("outbound.disabled", "; a comment\n0\n")
	want(false)
	write("outbound.disabled", "true\r\n")
	want(true)
	write("outbound.disabled", "perhaps\n")
	want(true)
	if len(told) != 1 || told[0] != `config/outbound.disabled:1: "perhaps" is neither true nor false` {
		t.Fatal(told)
	}
	if err := os.Remove(filepath.Join(folder, "outbound.disabled")); err != nil {
		t.Fatal(err)
	}
	want(true) // it may be being replaced
	want(false)
	write("outbound.ini", "disabled=true\n")
	want(true)
	write("outbound.disabled", "false\n")
	want(true)
	write("outbound.ini", "concurrency_max=7\n")
	want(false)
	write("outbound.disabled", "yes\n")
	want(true)
	if len(told) != 1 {
		t.Error(told)
	}
}

// TestFollowDisabledBegins has the flat file appear, and one that was there
// before outbound.ini go.
func TestFollowDisabledBegins(t *testing.T) {
	dir := t.TempDir()
	flat := filepath.Join(dir, "config", "outbound.disabled")
	if err := os.Mkdir(filepath.Dir(flat), 0o755); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1e9, 0)
	for range 2 {
		c, _ := Load(dir, own())
		d := c.FollowDisabled(func() time.Time { return now }, func(p ini.Problem) { t.Error(p) })
		if d.On() != c.Outbound.Disabled {
			t.Fatal(c.Outbound.Disabled)
		}
		if err := os.WriteFile(flat, []byte("true\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if now = now.Add(lookAgain); !d.On() {
			t.Fatal("the file is not seen")
		}
	}
}
