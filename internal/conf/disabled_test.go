package conf

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFollowDisabled(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config", "outbound.ini")
	if err := os.Mkdir(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
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
	c, problems := Load(dir)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var told []string
	d := c.FollowDisabled(func() time.Time { return now }, func(p Problem) { told = append(told, p.String()) })
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
