package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// The kernel is the witness: the bytes of a message are written to a file of
// the queue and that file is synced before 250 is written to the client.
func TestSyncedBefore250(t *testing.T) {
	t.Parallel()
	need(t, "strace")
	if out, err := exec.Command("strace", "-f", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v %s", err, out)
	}
	s := sink(t, load.SinkOptions{})
	for _, c := range []struct{ name, content string }{
		{"small", oneMessage},
		{"large", oneMessage + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 50_000)}, // in a file of its own
	} {
		t.Run(c.name, func(t *testing.T) {
			trace := t.TempDir() + "/trace"
			d := startIn(t, folder(t, queueTo(t, s.Port(), "")), "strace", "-D", "-f", "-q", "-y", "-s", "4000", "-o", trace,
				"-e", "trace=fsync,fdatasync,write,writev,pwrite64,pwritev,sendto,sendmsg")
			conn := dial(t, d.Addr())
			if reply := conn.mail("from@client.test", "to@sink.test", c.content); !strings.HasPrefix(reply, "250") {
				t.Fatalf("reply %q", reply)
			}
			d.Stop()
			lines := readTrace(t, trace)
			goAhead := find(t, lines, 0, `(write|sendto|sendmsg|writev)\(\d+<(socket|TCP).*"354`)
			answered := find(t, lines, goAhead, `(write|sendto|sendmsg|writev)\(\d+<(socket|TCP).*"250 2`)
			before := lines[goAhead:answered]
			if !synced(before, lines[answered].begins, `X-Marker: here it is`) {
				t.Errorf("no file that has the content was synced before 250:\n%s", show(before))
			}
			if !synced(before, lines[answered].begins, regexp.QuoteMeta("to@sink.test")) {
				t.Errorf("no file that has the envelope was synced before 250:\n%s", show(before))
			}
			// A file that is new is found after a crash only if its folder is synced.
			find(t, before, 0, `fsync\(\d+<[^>]*/queue/journal>\) *= 0$`)
		})
	}
}

// synced reports whether a file of the queue, into which one of the calls wrote
// what pattern matches, was synced by a later one that ended before line.
func synced(calls []traced, line int, pattern string) bool {
	written := regexp.MustCompile(`^(?:write|writev|pwrite64|pwritev)\(\d+<([^>]*/queue/[^>]*)>.*` + pattern)
	for i, c := range calls {
		m := written.FindStringSubmatch(c.call)
		if m == nil {
			continue
		}
		done := regexp.MustCompile(`^f(data)?sync\(\d+<` + regexp.QuoteMeta(m[1]) + `>\) *= 0$`)
		for _, later := range calls[i+1:] {
			if done.MatchString(later.call) && later.begins > c.ends && later.ends < line {
				return true
			}
		}
	}
	return false
}

func show(calls []traced) string {
	var all strings.Builder
	for _, c := range calls {
		all.WriteString(c.call[:min(len(c.call), 200)] + "\n")
	}
	return all.String()
}

// traced is a system call and the trace's lines at which it began and ended.
type traced struct {
	call         string
	begins, ends int
}

// readTrace reads what strace wrote and joins calls that were interrupted by
// those of other threads.
func readTrace(t *testing.T, path string) []traced {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var calls []traced
	open := make(map[string]int) // thread → index in calls
	resumed := regexp.MustCompile(`^<\.\.\. \w+ resumed>`)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		thread, call, _ := strings.Cut(strings.TrimSpace(line), " ")
		call = strings.TrimSpace(call)
		if rest, cut := strings.CutSuffix(call, "<unfinished ...>"); cut {
			open[thread] = len(calls)
			calls = append(calls, traced{strings.TrimRight(rest, " "), n, n})
		} else if head := resumed.FindString(call); head != "" {
			if i, ok := open[thread]; ok {
				calls[i].call += call[len(head):]
				calls[i].ends = n
			}
		} else {
			calls = append(calls, traced{call, n, n})
		}
	}
	return calls
}

// find returns the index of the first call from the given one on that matches.
func find(t *testing.T, calls []traced, from int, pattern string) int {
	t.Helper()
	re := regexp.MustCompile(pattern)
	for i := from; i < len(calls); i++ {
		if re.MatchString(calls[i].call) {
			return i
		}
	}
	t.Fatalf("no call %s from number %d on, in\n%s", pattern, from, show(calls))
	return -1
}
