package instance

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// HasStrace reports whether strace is installed and may trace.
func HasStrace() bool {
	return exec.Command("strace", "-o", "/dev/null", "true").Run() == nil
}

// CountSyncs is a prefix for a server that makes strace count, in file, the
// system calls that put files on stable storage, of all its processes. Only
// those calls are slowed down.
func CountSyncs(file string) (prefix []string) {
	return []string{
		"strace", "-D", "-f", "--seccomp-bpf", "-q", "-c", "-U", "calls,name", "-o", file,
		"-e", "trace=fsync,fdatasync,sync,syncfs,sync_file_range,msync",
	}
}

// Syncs waits for strace, which ends soon after the server that CountSyncs was
// the prefix of, and returns how many calls there were.
func Syncs(ctx context.Context, file string) (int, error) {
	for {
		text, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return 0, err
		}
		if n, ok := countCalls(string(text)); ok {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s: strace did not end: %w", file, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// countCalls reads the last line of strace's summary: the number of all calls.
func countCalls(summary string) (int, bool) {
	for line := range strings.Lines(summary) {
		if f := strings.Fields(line); len(f) == 2 && f[1] == "total" && strings.HasSuffix(line, "\n") {
			n, err := strconv.Atoi(f[0])
			return n, err == nil
		}
	}
	return 0, false
}
