package conf

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"tarishi/internal/plugin/inhostlist"
)

// follower is a daemon that follows its files. It is an Owner.
type follower struct {
	t    *testing.T
	dir  string
	live *Live
	logs *observer.ObservedLogs
	stop func()

	mu      sync.Mutex
	applied []*Config
	refuse  error
	renewed bool
	fixed   []string
	news    chan struct{} // has room for a token for each Apply
}

// Apply implements Owner.
func (f *follower) Apply(_ context.Context, c *Config) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refuse != nil {
		return nil, f.refuse
	}
	f.applied = append(f.applied, c)
	select {
	case f.news <- struct{}{}:
	default:
	}
	return f.fixed, nil
}

// Renewed implements Owner.
func (f *follower) Renewed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.renewed
}

func (f *follower) set(refuse error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = refuse
}

// startFollower runs a Live on a new instance until the test ends.
func startFollower(t *testing.T, some files, o LiveOptions) *follower {
	t.Helper()
	f := &follower{t: t, dir: instance(t, some), news: make(chan struct{}, 1000)}
	c, problems := Load(f.dir, own())
	if errs := problems.Errors(); len(errs) > 0 {
		t.Fatal(errs)
	}
	var core zapcore.Core
	core, f.logs = observer.New(zapcore.DebugLevel)
	o.Config, o.Own, o.Owner, o.Log = c, own, f, zap.New(core)
	f.live = NewLive(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.live.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(f.stop)
	return f
}

// expect compares the number of the generation, how often a reload was refused and the
// domains of host_list that are in force.
func (f *follower) expect(generation, failures int64, hosts string) {
	f.t.Helper()
	s := f.live.Status()
	f.mu.Lock()
	defer f.mu.Unlock()
	var domains []string
	if n := len(f.applied); n > 0 {
		domains = slices.Sorted(slices.Values(hostsOf(f.applied[n-1])))
	}
	if s.Generation != generation || s.Failures != failures || strings.Join(domains, " ") != hosts || int64(len(f.applied)) != generation-1 {
		f.t.Errorf("generation %d after %d applied and %d failures with %q, want %d, %d, %q; %q", s.Generation, len(f.applied), s.Failures, domains, generation, failures, hosts, s.Problems)
	}
}

// hostsOf are the domains of host_list.
func hostsOf(c *Config) []string {
	var b strings.Builder
	c.Print(&b)
	_, text, _ := strings.Cut(b.String(), "; config/host_list\n")
	text, _, _ = strings.Cut(text, "\n;")
	return strings.Fields(text)
}

// errorLines are the ERROR lines so far.
func (f *follower) errorLines() []string {
	var all []string
	for _, e := range f.logs.FilterLevelExact(zapcore.ErrorLevel).All() {
		all = append(all, fmt.Sprint(e.ContextMap()["problem"]))
	}
	return all
}

// soon is long enough for a look, the same again, and what follows.
const soon = 10 * time.Second

// polled runs a test in which only looks find changes, on the clock of a bubble.
func polled(t *testing.T, some files, test func(t *testing.T, f *follower)) {
	synctest.Test(t, func(t *testing.T) {
		f := startFollower(t, some, LiveOptions{PollOnly: true})
		defer f.stop()
		time.Sleep(soon)
		f.expect(1, 0, "")
		test(t, f)
	})
}

// TestLivePolled: what was changed is in force soon, as a whole, and once.
func TestLivePolled(t *testing.T) {
	polled(t, files{"host_list": "a.test\n", "plugins": inhostlist.Name + "\n"}, func(t *testing.T, f *follower) {
		write(t, f.dir, "host_list", "a.test\nb.test\n")
		write(t, f.dir, "smtp.ini", "listen=127.0.0.1:2626\n")
		time.Sleep(soon)
		f.expect(2, 0, "a.test b.test")
		if addrs := f.applied[0].Listener.Addrs; len(addrs) != 1 || addrs[0] != "127.0.0.1:2626" {
			t.Errorf("%v", addrs)
		}
		since := f.live.Status().Since
		if age := time.Since(since); age <= 0 || age > soon {
			t.Errorf("in force for %v", age)
		}

		// The same text again, an editor's backup and a file that nobody reads are no news.
		write(t, f.dir, "host_list", "a.test\nb.test\n")
		write(t, f.dir, "host_list~", "c.test\n")
		write(t, f.dir, ".host_list.swp", "c.test\n")
		write(t, f.dir, "notes.md", "c.test\n")
		time.Sleep(soon)
		f.expect(2, 0, "a.test b.test")
		if f.live.Status().Since != since {
			t.Error("it is in force anew")
		}
	})
}

// TestLiveHalfWritten: a file that is still being written is not read.
func TestLiveHalfWritten(t *testing.T) {
	polled(t, nil, func(t *testing.T, f *follower) {
		for i := range 100 {
			write(t, f.dir, "host_list", strings.Repeat("x.test\n", i)+"half.te")
			time.Sleep(900 * time.Millisecond)
		}
		f.expect(1, 0, "")
		write(t, f.dir, "host_list", "whole.test\n")
		time.Sleep(soon)
		f.expect(2, 0, "whole.test")
	})
}

// TestLiveBad: an error anywhere keeps the whole configuration before. It is logged once
// with file and line, however often the files are looked at, and once more on request.
func TestLiveBad(t *testing.T) {
	polled(t, files{"host_list": "a.test\n"}, func(t *testing.T, f *follower) {
		write(t, f.dir, "host_list", "b.test\n")
		write(t, f.dir, "smtp.ini", "[main]\nlisten=127.0.0.1:2626\nlisen=1\nuserr=x\n")
		time.Sleep(time.Hour)
		f.expect(1, 1, "")
		want := []string{"config/smtp.ini:3: key lisen: unknown, did you mean listen?"}
		lines := f.errorLines()
		if len(lines) != 2 || lines[0] != want[0] || !slices.Equal(f.live.Status().Problems, lines) {
			t.Errorf("%q, %q", lines, f.live.Status().Problems)
		}

		// Another file with the same errors there is no news either.
		write(t, f.dir, "host_list", "c.test\n")
		time.Sleep(soon)
		f.expect(1, 1, "")
		r, err := f.live.Reload(t.Context())
		if err != nil || r.Changed || r.Generation != 1 || !slices.Equal(r.Problems, lines) || len(f.errorLines()) != 4 {
			t.Errorf("%+v, %v, %q", r, err, f.errorLines())
		}
		f.expect(1, 2, "")

		write(t, f.dir, "smtp.ini", "listen=127.0.0.1:2626\n")
		time.Sleep(soon)
		f.expect(2, 2, "c.test")
		if s := f.live.Status(); len(s.Problems) > 0 {
			t.Errorf("%q", s.Problems)
		}

		// Bad again, and then what is in force already.
		write(t, f.dir, "host_list", "a b\n")
		time.Sleep(soon)
		f.expect(2, 3, "c.test")
		write(t, f.dir, "host_list", "c.test\n")
		time.Sleep(soon)
		f.expect(2, 3, "c.test")
		if s := f.live.Status(); len(s.Problems) > 0 {
			t.Errorf("%q", s.Problems)
		}
	})
}

// TestLiveRefused: what the daemon cannot do keeps the configuration before, too. It is
// tried again on request, and when something has changed.
func TestLiveRefused(t *testing.T) {
	polled(t, nil, func(t *testing.T, f *follower) {
		f.set(errors.Join(errors.New("config/smtp.ini: key listen: in use"), errors.New("config/plugins:1: plugin x: no")))
		write(t, f.dir, "host_list", "b.test\n")
		time.Sleep(time.Hour)
		f.expect(1, 1, "")
		if lines := f.errorLines(); len(lines) != 2 || lines[1] != "config/plugins:1: plugin x: no" {
			t.Errorf("%q", lines)
		}
		f.set(nil)
		time.Sleep(time.Hour)
		f.expect(1, 1, "")
		if r, err := f.live.Reload(t.Context()); err != nil || !r.Changed || r.Generation != 2 || len(r.Problems) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		f.expect(2, 1, "b.test")
	})
}

// TestLiveFixed: what only a start can change is a warning of this reload, and of the next
// one on request.
func TestLiveFixed(t *testing.T) {
	polled(t, nil, func(t *testing.T, f *follower) {
		f.fixed = []string{"config/queue_dir: a change needs a restart"}
		write(t, f.dir, "queue_dir", "other\n")
		for _, changed := range []bool{true, false} {
			r, err := f.live.Reload(t.Context())
			if err != nil || r.Changed != changed || r.Generation != 2 || !slices.Contains(r.Warnings, f.fixed[0]) || len(r.Problems) > 0 {
				t.Errorf("%+v, %v", r, err)
			}
		}
		if n := f.logs.FilterMessage("needs a restart").Len(); n != 1 {
			t.Errorf("%d lines", n)
		}
	})
}

// TestLiveNamedFiles: a certificate that was missing is waited for, wherever it is; one
// that is in use is no concern of a reload.
func TestLiveNamedFiles(t *testing.T) {
	polled(t, nil, func(t *testing.T, f *follower) {
		away := t.TempDir()
		pair := func(text string) {
			t.Helper()
			for _, name := range []string{"key.pem", "cert.pem"} {
				if err := os.WriteFile(filepath.Join(away, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		write(t, f.dir, "tls.ini", "key="+away+"/key.pem\ncert="+away+"/cert.pem\n")
		time.Sleep(time.Hour)
		f.expect(1, 1, "")
		pair("one")
		time.Sleep(soon)
		f.expect(2, 1, "")
		pair("another")
		time.Sleep(soon)
		f.expect(2, 1, "")

		// On request it is taken now, or refused.
		f.renewed = true
		if r, err := f.live.Reload(t.Context()); err != nil || !r.Changed || r.Generation != 3 {
			t.Errorf("%+v, %v", r, err)
		}
		f.set(errors.New("no pair"))
		if r, err := f.live.Reload(t.Context()); err != nil || r.Changed || len(r.Problems) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		time.Sleep(time.Hour)
		f.expect(3, 2, "")
	})
}

// TestLiveVanished: a file that is gone is pointed out, and that of the plugins is missed;
// so is one behind a link that leads nowhere, and one that is no file.
func TestLiveVanished(t *testing.T) {
	polled(t, files{"plugins": "relay\n", "relay_acl_allow": "192.0.2.0/24\n", "host_list": "a.example\n", "relay.timeout": "5\n"}, func(t *testing.T, f *follower) {
		at := func(name string) string { return filepath.Join(f.dir, "config", name) }
		reload := func(generation int64, text string) {
			t.Helper()
			r, err := f.live.Reload(t.Context())
			if all := strings.Join(append(r.Problems, r.Warnings...), "\n"); err != nil || r.Generation != generation || !strings.Contains(all, text) {
				t.Errorf("%+v, %v, want generation %d and %q", r, err, generation, text)
			}
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		must(os.Remove(at("plugins")))
		reload(1, "config/plugins: is not there any more")
		must(os.WriteFile(at("plugins"), []byte("# none\n"), 0o600))
		must(os.Remove(at("relay.timeout"))) // which nobody looks for now
		reload(2, "config/relay.timeout: warning: is not there any more")
		must(os.Remove(at("relay_acl_allow")))
		reload(3, "config/relay_acl_allow: warning: is not there any more")

		// What was meant to be there.
		must(os.Remove(at("host_list")))
		must(os.Symlink(at("nothing"), at("host_list")))
		reload(3, "config/host_list: cannot be read: it is a link to a file that does not exist")
		must(os.Remove(at("host_list")))
		must(syscall.Mkfifo(at("host_list"), 0o600))
		reload(3, "config/host_list: cannot be read: it is no regular file")
		must(os.Remove(at("host_list")))
		must(syscall.Mkfifo(at("pipe"), 0o600)) // nothing opens it
		reload(4, "config/pipe: warning: is not read")
	})
}

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

// TestLiveManyProblems: of a file without one good line the first lines are enough.
func TestLiveManyProblems(t *testing.T) {
	polled(t, files{"host_list": ""}, func(t *testing.T, f *follower) {
		write(t, f.dir, "host_list", strings.Repeat("no domain\n", maxProblems+7))
		time.Sleep(soon)
		all := f.live.Status().Problems
		if n := len(all); n != maxProblems+1 || !strings.HasPrefix(all[n-1], "7 more") || len(f.errorLines()) != n {
			t.Errorf("%d problems, %d lines, %q", n, len(f.errorLines()), all[n-1])
		}
	})
}

// TestLiveRestless: a file that never rests keeps the others from being read, which is said.
func TestLiveRestless(t *testing.T) {
	polled(t, files{"host_list": ""}, func(t *testing.T, f *follower) {
		said := func() int { return f.logs.FilterMessageSnippet("change all the time").Len() }
		for i := range 140 {
			write(t, f.dir, "some.log", strings.Repeat("line\n", i))
			time.Sleep(900 * time.Millisecond)
		}
		if f.expect(1, 0, ""); said() != 2 {
			t.Errorf("said %d times", said())
		}
		time.Sleep(soon)
		if said() != 2 {
			t.Error("said at rest")
		}
	})
}

// TestLookCircle: links to folders above are not followed, however many there are.
func TestLookCircle(t *testing.T) {
	dir := instance(t, files{"auth/file": ""})
	config := filepath.Join(dir, "config")
	for i := range 4 {
		for _, at := range []string{"", "auth"} {
			if err := os.Symlink(config, filepath.Join(config, at, fmt.Sprint("link", i))); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, folders := lookAt(config); len(folders) != 2 {
		t.Errorf("%d folders", len(folders))
	}
}

// TestLiveFolder: a folder that is gone changes nothing, and what stands in its place
// counts.
func TestLiveFolder(t *testing.T) {
	polled(t, files{"host_list": "a.test\n"}, func(t *testing.T, f *follower) { replaceFolder(t, f, func() { time.Sleep(soon) }) })
}

func replaceFolder(t *testing.T, f *follower, wait func()) {
	t.Helper()
	config := filepath.Join(f.dir, "config")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(config, config+".old")
	wait()
	f.expect(1, 1, "")
	move(config+".old", config)
	wait()
	f.expect(1, 1, "")
	if s := f.live.Status(); len(s.Problems) > 0 {
		t.Errorf("%q", s.Problems)
	}

	// Another folder in its place, and changes in that.
	next := instance(t, files{"host_list": "b.test\n"})
	move(config, config+".old")
	move(filepath.Join(next, "config"), config)
	wait()
	f.expect(2, 1, "b.test")
	write(t, f.dir, "host_list", "c.test\n")
	wait()
	f.expect(3, 1, "c.test")
}

// TestLiveRenamed: a file that takes the place of one with its size and time is noticed.
func TestLiveRenamed(t *testing.T) {
	polled(t, files{"host_list": "a.test\n"}, func(t *testing.T, f *follower) {
		renameOver(t, f, "b.test")
		time.Sleep(soon)
		f.expect(2, 0, "b.test")
	})
}

func renameOver(t *testing.T, f *follower, host string) {
	t.Helper()
	path := filepath.Join(f.dir, "config", "host_list")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(f.dir, "config", ".new")
	if err := os.WriteFile(beside, []byte(host+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(beside, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(beside, path); err != nil {
		t.Fatal(err)
	}
}

// project writes a ConfigMap as Kubernetes does: a dated folder, and a link ..data to it
// that is swapped.
func project(t *testing.T, dir, date string, some files) {
	t.Helper()
	at := func(name string) string { return filepath.Join(dir, "config", name) }
	if err := os.Mkdir(at(date), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range some {
		write(t, dir, filepath.Join(date, name), text)
		_ = os.Symlink(filepath.Join("..data", name), at(name)) // from the second time on it is there
	}
	if err := os.Symlink(date, at("..data_tmp")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(at("..data_tmp"), at("..data")); err != nil {
		t.Fatal(err)
	}
}

// TestLiveConfigMap: all files of a ConfigMap change at once.
func TestLiveConfigMap(t *testing.T) {
	polled(t, nil, func(t *testing.T, f *follower) {
		project(t, f.dir, "..2026_01", files{"host_list": "a.test\n", "smtp.ini": "listen=127.0.0.1:2626\n"})
		time.Sleep(soon)
		f.expect(2, 0, "a.test")
		project(t, f.dir, "..2026_02", files{"host_list": "b.test\n", "smtp.ini": "listen=127.0.0.1:2627\n"})
		time.Sleep(soon)
		f.expect(3, 0, "b.test")
		if addrs := f.applied[1].Listener.Addrs; addrs[0] != "127.0.0.1:2627" {
			t.Errorf("%v", addrs)
		}
	})
}

// TestLiveForced: a reload on request needs no wait, says so if nothing has changed, and
// ends with Run.
func TestLiveForced(t *testing.T) {
	polled(t, files{"host_list": "a.test\n"}, func(t *testing.T, f *follower) {
		began := time.Now()
		if r, err := f.live.Reload(t.Context()); err != nil || r.Changed || r.Generation != 1 || len(r.Problems) > 0 {
			t.Errorf("%+v, %v", r, err)
		}
		write(t, f.dir, "host_list", "b.test\n")
		if r, err := f.live.Reload(t.Context()); err != nil || !r.Changed || r.Generation != 2 {
			t.Errorf("%+v, %v", r, err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("that took %v", took)
		}
		time.Sleep(soon)
		f.expect(2, 0, "b.test")
		f.stop()
		if _, err := f.live.Reload(t.Context()); !errors.Is(err, ErrEnded) {
			t.Errorf("%v", err)
		}
		f.live = NewLive(f.live.o) // one that does not run
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.live.Reload(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
	})
}

// TestLiveSinceLoad: what was changed between the start and Run is in force soon.
func TestLiveSinceLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := instance(t, files{"host_list": "a.test\n"})
		c, _ := Load(dir, own())
		write(t, dir, "host_list", "b.test\n")
		f := &follower{t: t, news: make(chan struct{}, 1)}
		f.live = NewLive(LiveOptions{Config: c, Own: own, Owner: f, PollOnly: true})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = f.live.Run(ctx) })
		time.Sleep(soon)
		f.expect(2, 0, "b.test")
		cancel()
		running.Wait()
	})
}

// TestLiveNotified: the file system says what has changed: no look is due for an hour.
func TestLiveNotified(t *testing.T) {
	f := startFollower(t, files{"host_list": "a.test\n"}, LiveOptions{Poll: time.Hour, Settle: 50 * time.Millisecond})
	if _, err := f.live.Reload(t.Context()); err != nil { // then it watches
		t.Fatal(err)
	}

	// On a slow machine what is between two writes may be a generation of its own.
	inForce := func(what string, is func(c *Config) bool) {
		t.Helper()
		for end := time.After(time.Minute); ; {
			select {
			case <-f.news:
			case <-end:
				t.Fatalf("%s is not noticed", what)
			}
			f.mu.Lock()
			last := f.applied[len(f.applied)-1]
			f.mu.Unlock()
			if is(last) {
				return
			}
		}
	}
	changed := func(host string) {
		t.Helper()
		inForce(host, func(c *Config) bool { return slices.Equal(hostsOf(c), []string{host}) })
	}
	write(t, f.dir, "host_list", "b.test\n")
	changed("b.test")
	renameOver(t, f, "c.test")
	changed("c.test")

	// A new folder, and then a change in it.
	write(t, f.dir, "auth/flat_file.timeout", "7\n")
	write(t, f.dir, "plugins", "auth/flat_file\n")
	write(t, f.dir, "host_list", "d.test\n")
	changed("d.test")
	write(t, f.dir, "auth/flat_file.timeout", "8\n")
	inForce("the timeout", func(c *Config) bool { return c.Plugins.Timeouts["auth/flat_file"] == 8*time.Second })

	// A link that is swapped, and a folder that is replaced.
	if err := os.Remove(filepath.Join(f.dir, "config", "host_list")); err != nil {
		t.Fatal(err)
	}
	project(t, f.dir, "..2026_01", files{"host_list": "e.test\n"})
	changed("e.test")
	project(t, f.dir, "..2026_02", files{"host_list": "f.test\n"})
	changed("f.test")
	config := filepath.Join(f.dir, "config")
	other := instance(t, files{"host_list": "g.test\n", "plugins": "# none\n"})
	if err := os.Rename(config, config+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(other, "config"), config); err != nil {
		t.Fatal(err)
	}
	changed("g.test")
	write(t, f.dir, "host_list", "h.test\n")
	changed("h.test")
}

// TestLiveStart: what the start could read and nobody changed is not read again; the
// daemon may not be able to any more.
func TestLiveStart(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root reads everything")
	}
	synctest.Test(t, func(t *testing.T) {
		dir := instance(t, files{"host_list": "a.test\n"})
		c, _ := Load(dir, own())
		if err := os.Chmod(filepath.Join(dir, "config", "host_list"), 0); err != nil {
			t.Fatal(err)
		}
		c.look, _ = lookAt(c.ConfigDir) // as if it had been so for root
		f := &follower{t: t, news: make(chan struct{}, 1)}
		f.live = NewLive(LiveOptions{Config: c, Own: own, Owner: f, PollOnly: true})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { _ = f.live.Run(ctx) })
		time.Sleep(soon)
		f.expect(1, 0, "")
		write(t, dir, "me", "other.test\n")
		time.Sleep(soon)
		f.expect(1, 1, "")
		cancel()
		running.Wait()
	})
}
