package instance

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func TestSyncs(t *testing.T) {
	if !HasStrace() {
		t.Skip("strace is not installed, or may not trace")
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "count")
	argv := append(CountSyncs(file), "sh", "-c", "cat /proc/self/stat >/dev/null; sync .; (sync .; sync -d .)")
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if n, err := Syncs(ctx, file); n != 3 || err != nil {
		t.Errorf("%d syncs, %v, want 3", n, err)
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, err := Syncs(ended, file+"absent"); err == nil {
		t.Error("syncs of a server that was not traced")
	}
}

func TestCountCalls(t *testing.T) {
	for text, want := range map[string]int{
		"    calls syscall\n--- ---\n   5 fsync\n  7 fdatasync\n--- ---\n 12 total\n": 12,
		"    calls syscall\n--- ---\n   5 fsync\n--- ---\n 12 total":                  -1, // still being written
		"": -1,
	} {
		n, ok := countCalls(text)
		if !ok {
			n = -1
		}
		if n != want {
			t.Errorf("%q: %d, want %d", text, n, want)
		}
	}
}
