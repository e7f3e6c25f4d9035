package e2e

import (
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"tarishi/internal/test/load"
)

// Whatever is wrong with the files: the configuration from before serves on, the log
// has one line of it, the command, the metrics and queue stat report it, and mended
// files are in force.
func TestReloadBadFiles(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	s := newSite(t)
	dir := folder(t, with(s.siteFiles(), "connection.ini", token(0), "plugins", "tls\n"+basePlugins, "tls.ini", "key=mx.key\ncert=mx.crt\n"))
	certify(t, filepath.Join(dir, "config"), "mx", "mx.test", 80*days)
	s.startIn(dir)
	s.startFlows()
	listening, route := s.configs.read("smtp.ini"), s.configs.read("smtp_forward.ini")
	added := freePort(t)

	for i, bad := range []struct{ file, text, says string }{
		{"smtp.ini", listening + "lisen=127.0.0.1:0\n", `smtp\.ini:2\b.*lisen.*listen`},
		{"smtp.ini", "[main\n" + listening, `smtp\.ini:1\b`},
		{"connection.ini", "[mxa]\nbytes=1000\n", `connection\.ini:1\b.*mxa.*max`},
		{"outbound.ini", "\n\nconcurrency_max=many\n", `outbound\.ini:3\b.*concurrency_max.*many`},
		{"log.ini", "level=loud\n", `log\.ini:1\b.*level.*loud`},
		{"http.ini", "listen=nowhere at all\n", `http\.ini:1\b.*listen`},
		{"plugins", "# ours\nrcpt_to.in_hostlist\n", `plugins:2\b.*rcpt_to\.in_hostlist.*rcpt_to\.in_host_list`},
		{"plugins", basePlugins + "queue/lmtp\n", `plugins:5\b.*queue/lmtp`},
		{"relay_acl_allow", "127.0.0.1\n127.0.0.0/99\n", `relay_acl_allow:2\b`},
		{"host_list", "probe.test\nnowhere.test\n", `host_list:2\b.*goes nowhere`},
		{"smtp_forward.ini", route + "[last.test]\nhost=127.0.0.1:99999\n", `smtp_forward\.ini:\d+\b.*host`},
		{"tls.ini", "key=absent_key.pem\ncert=absent_cert.pem\n", `tls\.ini:\d+\b.*absent_(key|cert)\.pem`},
		{"mx.crt", "half a certif", `mx\.crt`},
		{"smtp.ini", fmt.Sprintf("listen=%s,%s,%s\n", local(s.port), local(added), taken.Addr()), regexp.QuoteMeta(taken.Addr().String()) + `.*in use`},
		{"http.ini", fmt.Sprintf("listen=%s,%s\n", local(added), taken.Addr()), regexp.QuoteMeta(taken.Addr().String()) + `.*in use`},
		{"connection.ini", "[haproxy]\nenabled=true\nhosts[]=[2001:db8::1]\n", `connection\.ini:3\b.*neither an address nor a CIDR block`},
	} {
		good := ""
		if bad.file != "http.ini" && bad.file != "log.ini" {
			good = s.configs.read(bad.file)
		}
		generation, failed, logged := s.generation(), s.failures(), len(s.Log())
		s.configs.replace(bad.file, bad.text)
		s.refused(bad.says)
		if now := s.generation(); now != generation {
			t.Errorf("%s %q: generation %d after %d", bad.file, bad.text, now, generation)
		}
		now := s.failures()
		if now <= failed {
			t.Errorf("%s %q: no failure is counted", bad.file, bad.text)
		}
		if i%4 > 0 {
			// Asking costs time, and it is always the same.
		} else if text := stat(t, s.Daemon); !regexp.MustCompile(`(?m)^.*`+bad.says).MatchString(text) || !regexp.MustCompile(fmt.Sprintf(`generation\D+%d\b`, generation)).MatchString(text) {
			t.Errorf("%s %q: queue stat says\n%s", bad.file, bad.text, text)
		}

		// A line each time that it was refused: the file may have been found before the
		// command came.
		said := map[string]int{}
		for _, line := range regexp.MustCompile(`\[ERROR\].*`).FindAllString(s.Log()[logged:], -1) {
			said[line]++
		}
		told := false
		for line, n := range said {
			told = told || regexp.MustCompile(bad.says).MatchString(line)
			if n > now-failed {
				t.Errorf("%s %q, refused %d times: %d times %s", bad.file, bad.text, now-failed, n, line)
			}
		}
		if !told {
			t.Errorf("%s %q: the log says %v", bad.file, bad.text, said)
		}
		if got := s.fate(s.visit(), fmt.Sprint("bad ", i)); got != "relayed" {
			t.Errorf("%s %q: a message was %s", bad.file, bad.text, got)
		}
		refusedDial(t, added)

		s.flowOn(3)
		s.configs.write(bad.file, good)
		s.reload()
	}
	if text := stat(t, s.Daemon); strings.Contains(text, "\nrefused ") {
		t.Errorf("all is mended: queue stat says\n%s", text)
	}
	s.endFlows()
}

// A bad file that nobody speaks of is reported once, not at each look; what is
// mended is found as well.
func TestReloadBadFileIsReportedOnce(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "connection.ini", token(0))
	s.startFlow(s.relayed, load.Load{})
	s.startFlow(s.queued, load.Load{})
	s.configs.write("plugins", "no_such_plugin\n")
	s.awaitLog(`\[ERROR\].*plugins:1\b.*no_such_plugin`)
	s.configs.write("connection.ini", "[message]\nhelo=Token 1.\nhello=wrong\n")
	s.awaitLog(`\[ERROR\].*connection\.ini:3\b.*hello`)
	s.configs.replace("plugins", basePlugins)
	s.configs.replace("connection.ini", token(2))
	s.awaitToken(2)
	if n := len(regexp.MustCompile(`(?m)^.*\[ERROR\].*`).FindAllString(s.Log(), -1)); n > s.failures() || s.failures() > 4 {
		t.Errorf("%d lines about %d refusals of four changes", n, s.failures())
	}
	s.endFlows()
}

// What cannot change while the daemon runs is reported and stays as it is; the rest
// of the change is in force.
func TestReloadUnchangeable(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil, "connection.ini", token(0))
	s.startFlow(s.relayed, load.Load{})
	s.startFlow(s.queued, load.Load{})
	other := t.TempDir()

	// The commands look for the daemon where queue_dir says, and will not find it.
	s.configs.write("queue_dir", filepath.Join(other, "queue")+"\n")
	s.configs.replace("connection.ini", token(1))
	s.awaitToken(1)
	s.awaitLog(`\[WARN\].*queue_dir.*restart`)
	s.flowOn(10)
	if found, _ := filepath.Glob(other + "/*"); len(found) > 0 {
		t.Errorf("made: %q", found)
	}
	s.configs.remove("queue_dir")

	listening := s.configs.read("smtp.ini")
	s.configs.write("smtp.ini", listening+"group=nogroup\n")
	s.configs.write("connection.ini", token(2))
	if out := s.command(); !regexp.MustCompile(`group.*restart`).MatchString(out) {
		t.Errorf("reload: %s", out)
	}
	s.configs.write("smtp.ini", listening)
	s.configs.write("connection.ini", token(3))
	if out := s.command(); strings.Contains(out, "restart") {
		t.Errorf("reload: %s", out)
	}
	s.awaitToken(3)
	s.endFlows()
}

// SIGHUP makes deferred mail due and reads no file; reload reads files and makes no
// mail due.
func TestReloadIsNoFlush(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.queued = sink(t, load.SinkOptions{Rcpt: func(string) string { return "451 4.7.1 come back later" }})
	files := s.siteFiles()
	outbound := files["outbound.ini"] + "temp_fail_intervals=1h*9\n"
	s.startIn(folder(t, with(files, "outbound.ini", outbound)))
	refusals := func() int { return s.queued.Stats().Refused }
	waits := func() bool { return strings.Contains(stat(t, s.Daemon), " 3 waiting, 0 ready, 0 running") }
	load.Load{Addr: local(s.port), Messages: 3}.Send(t.Context())
	eventually(t, "three deferrals", waits)

	for i := range 3 {
		s.configs.write("outbound.ini", outbound+fmt.Sprintf("[sink.test]\nconcurrency=%d\n", i+1))
		s.reload()
		if !waits() {
			t.Errorf("after a reload: %s", stat(t, s.Daemon))
		}
	}
	if n := refusals(); n != 3 {
		t.Errorf("%d attempts after three reloads, want 3", n)
	}
	generation, began := s.generation(), time.Now()
	s.configs.replace("connection.ini", token(1))
	for i := range 3 {
		if err := s.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another three deferrals", func() bool { return refusals() >= 6+3*i && waits() })
	}

	// Later the daemon finds the file that has changed by itself.
	now := s.generation()
	if now != generation && time.Since(began) < shortestWait || refusals() != 12 {
		t.Errorf("after three SIGHUP: generation %d after %d, %d attempts", now, generation, refusals())
	}
}
