package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// token is a connection.ini by which a session shows which configuration it has.
func token(n int) string { return fmt.Sprintf("[message]\nhelo=Token %d.\n", n) }

// awaitToken waits until a new session shows token n: nobody has asked the daemon to
// look.
func (s *site) awaitToken(n int) {
	s.t.Helper()
	eventually(s.t, fmt.Sprintf("token %d", n), func() bool {
		c := connect(s.t, local(s.port))
		defer c.Close()
		c.expect("220")
		return strings.Contains(c.say("EHLO client.test", "250"), fmt.Sprintf("Token %d.", n))
	})
}

// However a file is changed, the daemon finds it by itself.
func TestReloadWatchesFiles(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "connection.ini", token(0))
	s.startFlows()
	c := s.configs
	elsewhere := t.TempDir()
	for i, change := range []struct {
		name string
		do   func(name, text string)
	}{
		{"written in place", c.write},
		{"renamed over", c.replace},
		{"removed, and there again", func(name, text string) {
			c.remove(name)
			c.write(name, text)
		}},
		{"the old one kept under another name, as editors do", func(name, text string) {
			if err := os.Rename(c.path(name), c.path(name+"~")); err != nil {
				t.Error(err)
			}
			c.write(name, text)
		}},
		{"a link in its place", func(name, text string) {
			writeFile(t, filepath.Join(elsewhere, "connection.ini"), text)
			c.remove(name)
			if err := os.Symlink(filepath.Join(elsewhere, "connection.ini"), c.path(name)); err != nil {
				t.Error(err)
			}
		}},
		{"what the link points to, written in place", func(_, text string) {
			writeFile(t, filepath.Join(elsewhere, "connection.ini"), text)
		}},
		{"what the link points to, renamed over", func(_, text string) {
			configFolder{t, elsewhere}.replace("connection.ini", text)
		}},
	} {
		failed := s.failures()
		change.do("connection.ini", token(i+1))
		s.awaitToken(i + 1)
		if now := s.failures(); now != failed {
			t.Errorf("%s: %d reloads were refused", change.name, now-failed)
		}
		s.flowOn(3)
	}

	// A new file with the time and the length of the old one, as a copy that keeps
	// times may be.
	c.remove("connection.ini")
	c.write("connection.ini", token(90))
	s.awaitToken(90)
	info, err := os.Stat(c.path("connection.ini"))
	if err != nil {
		t.Fatal(err)
	}
	next := c.path(".next")
	writeFile(t, next, token(91))
	if err := os.Chtimes(next, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, c.path("connection.ini")); err != nil {
		t.Fatal(err)
	}
	s.awaitToken(91)
	s.endFlows()
}

// A file that is written in two pieces is used when it is whole.
func TestReloadHalfWritten(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlows()
	whole := s.configs.read("smtp_forward.ini")
	routes := strings.Index(whole, "[probe.test]")
	for i, half := range []int{
		0,                                    // truncated: no routes at all, and main's are for the queue
		routes,                               // a valid file that lacks the routes of the probes
		routes + len("[probe.te"),            // no valid file
		strings.Index(whole, "enable") + 3,   // a key that does not exist
		strings.Index(whole, "=false") + 3,   // a value that does not exist
		len(whole) - len("27.0.0.1:12345\n"), // nearly whole
	} {
		failed, began := s.failures(), time.Now()
		file, err := os.OpenFile(s.configs.path("smtp_forward.ini"), os.O_WRONLY|os.O_TRUNC, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, piece := range []string{whole[:half], whole[half:], fmt.Sprintf("; written whole %d\n", i)} {
			if _, err := file.WriteString(piece); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Millisecond) // a writer that takes its time
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		took := time.Since(began)
		generation := s.generation()
		s.configs.replace("connection.ini", token(i))
		s.awaitToken(i)
		if now := s.generation(); now <= generation {
			t.Errorf("generation %d after %d", now, generation)
		}

		// Between two looks there is more time than this took: no look fell into it,
		// or the next one saw something else.
		if now := s.failures(); now != failed && took < shortestWait {
			t.Errorf("a file that was half written for %s was read", took)
		}
		s.flowOn(5)
	}
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
	for i := range 4 {
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

		// And the new one is watched.
		s.configs.replace("connection.ini", token(i+51))
		s.awaitToken(i + 51)
	}
	s.endFlows()
}
