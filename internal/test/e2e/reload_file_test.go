package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// token is a connection.ini by which a session shows which configuration it has. Wrong
// passwords are not held against anybody.
func token(n int) string {
	return fmt.Sprintf("[max]\nauth_failures=0\n[message]\nhelo=Token %d.\n", n)
}

// awaitToken waits until a new session shows token n: nobody has asked the daemon to
// look.
func (s *site) awaitToken(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("token %d", n), func() bool {
		time.Sleep(seldom)
		c := connect(s.t, local(s.port))
		defer c.Close()
		c.expect("220")
		return strings.Contains(c.say("EHLO client.test", "250"), fmt.Sprintf("Token %d.", n))
	})
}

// seldom is how long lies between two sessions that look for what takes a second.
const seldom = 50 * time.Millisecond

// However files are changed, the daemon finds it by itself.
func TestReloadWatchesFiles(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "connection.ini", token(0))
	s.startFlows()
	c := s.configs
	elsewhere := configFolder{t, t.TempDir()}
	c.write("auth_flat_file.ini", "[users]\none=secret\n")
	s.awaitAnswer("235", func(d *dialog) string { return login(d, "one") })

	// Several ways at once, each of a file of its own.
	c.write("connection.ini", token(1))
	c.replace("me", "renamed.test\n")
	c.remove("host_list")
	c.write("host_list", "probe.test\nother.test\n")
	if err := os.Rename(c.path("relay_acl_allow"), c.path("relay_acl_allow~")); err != nil { // as editors do
		t.Fatal(err)
	}
	c.write("relay_acl_allow", trusted+"\n"+stranger+"\n")
	elsewhere.write("users", "[users]\ntwo=secret\n")
	c.remove("auth_flat_file.ini")
	if err := os.Symlink(elsewhere.path("users"), c.path("auth_flat_file.ini")); err != nil {
		t.Fatal(err)
	}
	s.awaitToken(1)
	s.awaitAnswer("renamed.test", func(d *dialog) string { return d.say("EHLO client.test", "250")[4:16] })
	s.awaitAnswer("250", func(d *dialog) string { return rcpt(d, "other.test") })
	s.awaitAnswer("250", func(d *dialog) string { return rcpt(d, "sink.test") })
	s.awaitAnswer("235", func(d *dialog) string { return login(d, "two") })

	// What a link points to, of which no notification comes.
	elsewhere.replace("users", "[users]\ntwo=other\n")
	s.awaitAnswer("535", func(d *dialog) string { return login(d, "two") })

	// A new file with the time and the length of the old one, as a copy that keeps
	// times may be.
	info, err := os.Stat(c.path("connection.ini"))
	if err != nil {
		t.Fatal(err)
	}
	next := c.path(".next")
	writeFile(t, next, token(2))
	if err := os.Chtimes(next, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, c.path("connection.ini")); err != nil {
		t.Fatal(err)
	}
	s.awaitToken(2)
	if n := s.failures(); n > 0 {
		t.Errorf("%d reloads were refused", n)
	}
	s.endFlows()
}

// awaitAnswer waits until look has an answer in new sessions of a stranger's.
func (s *site) awaitAnswer(want string, look func(*dialog) string) {
	s.t.Helper()
	got := ""
	eventually(s.t, want, func() bool {
		time.Sleep(seldom)
		d := s.visit()
		defer d.Close()
		got = look(d)
		return got == want
	})
}

// A file that is written in two pieces is used when it is whole.
func TestReloadHalfWritten(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlows()
	whole := s.configs.read("smtp_forward.ini")
	routes := strings.Index(whole, "[probe.test]")
	longest := time.Duration(0)
	for i, half := range []int{
		0,                                  // truncated: no routes at all
		routes,                             // a file that lacks the routes of the probes
		routes + len("[probe.te"),          // half a section's name
		strings.Index(whole, "enable") + 3, // a key that does not exist
		strings.Index(whole, "=false") + 3, // a value that does not exist
	} {
		began := time.Now()
		file, err := os.OpenFile(s.configs.path("smtp_forward.ini"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []string{whole[:half], whole[half:] + fmt.Sprintf("; written whole %d\n", i)} {
			if _, err := file.WriteString(piece); err != nil {
				t.Fatal(err)
			}
			longest = max(longest, time.Since(began))
			time.Sleep(150 * time.Millisecond) // a writer that takes its time
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.configs.replace("connection.ini", token(1))
	s.awaitToken(1)

	// Between the two looks at what is read there is more time than half a file stood
	// there.
	if n := s.failures(); n > 0 && longest < shortestWait {
		t.Errorf("files that were half written for %s at most were read: %d reloads were refused", longest, n)
	}
	s.flowOn(5)
	if got := s.fate(s.visit(), "in the end"); got != "relayed" {
		t.Error(got)
	}
	s.endFlows()
}

// shortestWait is less than what lies between the two looks at a file that changed.
const shortestWait = 900 * time.Millisecond

// A ConfigMap of Kubernetes: every file is a link through ..data, a link to a folder
// that is changed as a whole.
func TestReloadConfigMap(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	dir := t.TempDir()
	s.configs = configFolder{t, filepath.Join(dir, "config")}
	files := s.siteFiles()
	s.mount("..2026_01", with(files, "connection.ini", token(0)))
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), s.configs.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	s.startIn(dir)
	s.startFlows()
	before := s.visit()
	generation := s.generation()
	for i := range 2 {
		folder := fmt.Sprintf("..2026_%02d", i+2)
		s.mount(folder, with(files, "connection.ini", token(i+1), "plugins", []string{basePlugins, "record_envelope_addresses\n" + basePlugins}[i%2]))
		if err := os.RemoveAll(s.configs.path(fmt.Sprintf("..2026_%02d", i+1))); err != nil {
			t.Fatal(err)
		}
		s.awaitToken(i + 1)
		want := []string{"relayed", "marked"}[i%2]
		if got := s.fate(s.visit(), fmt.Sprint("swap ", i)); got != want {
			t.Errorf("after swap %d: %s, want %s", i, got, want)
		}
		if generation++; s.generation() != generation {
			t.Errorf("generation %d after %d swaps, want %d: a swap is one change", s.generation(), i+1, generation)
		}
		s.flowOn(5)
	}
	if got := s.fate(before, "before"); got != "relayed" {
		t.Error(got)
	}
	if n := s.failures(); n > 0 {
		t.Errorf("%d reloads were refused", n)
	}
	if strings.Contains(s.Log(), "..data") || strings.Contains(s.Log(), "..2026") {
		t.Error("the log speaks of folders that only the links are for")
	}
	s.endFlows()
}

// mount puts files into a new folder of config/, and ..data in its direction at once.
func (s *site) mount(folder string, files map[string]string) {
	s.t.Helper()
	if err := os.MkdirAll(s.configs.path(folder), 0o755); err != nil {
		s.t.Fatal(err)
	}
	for name, text := range files {
		s.configs.write(filepath.Join(folder, name), text)
	}
	if err := os.Symlink(folder, s.configs.path("..data_tmp")); err != nil {
		s.t.Fatal(err)
	}
	if err := os.Rename(s.configs.path("..data_tmp"), s.configs.path("..data")); err != nil {
		s.t.Fatal(err)
	}
}

// The folder itself is replaced: by another one, or as a link that points elsewhere.
func TestReloadFolderReplaced(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "connection.ini", token(0))
	s.startFlows()
	files := s.siteFiles()
	for i, link := range []bool{false, true, true} {
		next := filepath.Join(s.Dir, fmt.Sprintf("next-%d", i))
		if err := os.Mkdir(next, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range with(files, "connection.ini", token(i+1)) {
			configFolder{t, next}.write(name, text)
		}
		if link {
			if err := os.Symlink(next, next+".link"); err != nil {
				t.Fatal(err)
			}
			next += ".link"
		}

		// A link replaces a link at once; a folder has to be moved away before.
		err := os.Rename(next, s.configs.dir)
		if err != nil {
			if err = os.Rename(s.configs.dir, fmt.Sprintf("%s/old-%d", s.Dir, i)); err == nil {
				err = os.Rename(next, s.configs.dir)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		s.awaitToken(i + 1)
		s.flowOn(5)
	}

	// And the last one is watched.
	s.configs.replace("connection.ini", token(99))
	s.awaitToken(99)
	s.endFlows()
}
