package dialogue

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tarishi/internal/test/load/instance"
	"tarishi/internal/test/namespace"
)

var program instance.Program

func TestMain(m *testing.M) {
	if file := os.Getenv(orderVariable); file != "" {
		if err := carryOut(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(program.Run(m))
}

// missing skips the test for what the machine lacks; in CI it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// need skips the test when a program is not installed.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, program+" is not installed")
	}
}

// programs returns both servers' programs, by server.
func programs(t *testing.T) map[string]string {
	t.Helper()
	need(t, "node")
	need(t, "npm")
	if err := namespace.Try(); err != nil {
		missing(t, err.Error())
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		missing(t, err.Error())
	}
	var progress bytes.Buffer
	original, err := instance.InstallHaraka(t.Context(), filepath.Join(cache, "tarishi-bench"), &progress)
	if err != nil {
		missing(t, err.Error())
	}
	ours, err := program.Path()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{haraka: original, tarishi: ours}
}

// tally counts replies, those that differ on purpose left out.
type tally struct {
	mu                                             sync.Mutex
	dialogues, replies, sameClass, texts, sameText int
	deliberate                                     int
	findings, sameFindings                         int // of Haraka's plugins
}

// TestDialogues has all dialogues with both servers.
func TestDialogues(t *testing.T) {
	sites := readSites(t)
	bin := programs(t)
	var sum tally
	t.Run("of", func(t *testing.T) {
		for _, s := range sites {
			t.Run(s.Name, func(t *testing.T) {
				for _, program := range s.Needs {
					need(t, program)
				}
				if _, err := os.Stat(namespace.NonlocalBind); err != nil && s.uses6() {
					missing(t, "no IPv6: "+err.Error())
				}
				t.Parallel()
				compare(t, s, bin, &sum)
			})
		}
	})
	percent := func(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }
	t.Logf("%d dialogues, %d replies: the same class %.1f %%; of %d with a text %.1f %% the same; %d differences on purpose",
		sum.dialogues, sum.replies, percent(sum.sameClass, sum.replies), sum.texts, percent(sum.sameText, sum.texts), sum.deliberate)
	t.Logf("%d findings in the log, %.1f %% of them ours, too", sum.findings, percent(sum.sameFindings, sum.findings))
	const least, leastFound = 98, 95
	if percent(sum.sameClass, sum.replies) < least {
		t.Errorf("less than %d %% of the replies are of the same class", least)
	}
	// A single site has too few of them, and its differences may be on purpose.
	if sum.findings > 200 && percent(sum.sameFindings, sum.findings) < leastFound {
		t.Errorf("less than %d %% of the findings are ours, too", leastFound)
	}
}

// compare has the dialogues of one site with both servers at once.
func compare(t *testing.T, s *site, bin map[string]string, sum *tally) {
	reports := map[string]*report{haraka: {}, tarishi: {}}
	var wg sync.WaitGroup
	for server, r := range reports {
		dir := t.TempDir()
		wg.Go(func() {
			if err := runOrder(t.Context(), order{server, bin[server], dir, s}, r); err != nil {
				r.Err = err.Error()
			}
		})
	}
	wg.Wait()
	for server, r := range reports {
		if r.Err != "" || len(r.Outcomes) != len(s.Dialogues) {
			t.Fatalf("%s: %s", server, r.Err)
		}
	}
	for i, d := range s.Dialogues {
		t.Run(d.Name, func(t *testing.T) {
			judge(t, s, d, map[string][]outcome{haraka: reports[haraka].Outcomes[i], tarishi: reports[tarishi].Outcomes[i]}, sum)
		})
	}
	compareFindings(t, s, reports, sum)
	if t.Failed() && testing.Verbose() {
		for server, r := range reports {
			t.Logf("the log of %s:\n%s", server, r.Log)
		}
	}
}

// runOrder runs this program in a namespace.
func runOrder(ctx context.Context, o order, r *report) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	file := filepath.Join(o.Dir, "order")
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 3*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, self)
	namespace.Isolate(cmd)
	cmd.Env = append(os.Environ(), orderVariable+"="+file)
	cmd.WaitDelay = 5 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, stderr.String())
	}
	return json.Unmarshal(stdout.Bytes(), r)
}

// judge compares what both servers have said with the script, and with each other.
func judge(t *testing.T, s *site, d dialogue, said map[string][]outcome, sum *tally) {
	sum.mu.Lock()
	defer sum.mu.Unlock()
	sum.dialogues++
	for i, st := range d.Steps {
		for server, want := range st.Want {
			if got := said[server][i].Reply; !want.agrees(got) {
				t.Errorf("%s.txt:%d: %s says %q, the script %q", s.Name, st.Line, server, got, want)
			}
		}
		for server, want := range st.Holds {
			if got := said[server][i].Header; want != "" && !strings.Contains(got, want) {
				t.Errorf("%s.txt:%d: %s has no %q in the header section:\n%s", s.Name, st.Line, server, want, got)
			}
		}
		for server, outcomes := range said {
			if got := outcomes[i].Header; st.Lacks != "" && (got == "" || strings.Contains(got, st.Lacks)) {
				t.Errorf("%s.txt:%d: %s has %q in the header section, or there is none:\n%s", s.Name, st.Line, server, st.Lacks, got)
			}
		}
		if st.Because != "" {
			sum.deliberate++
		}
		if st.Want == nil || st.Because != "" {
			continue
		}
		theirs, ours := said[haraka][i].Reply, said[tarishi][i].Reply
		sum.replies++
		if theirs.class() == ours.class() {
			sum.sameClass++
		}
		if st.Want[haraka].Text != "" {
			sum.texts++
			if theirs.Text == ours.Text {
				sum.sameText++
			}
		}
	}
}
