package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tarishi/internal/test/load"
)

// Many ask for a reload at the same time while files change: each is answered, and
// the last change is in force. A stop amid them is as orderly as any.
func TestReloadAtOnce(t *testing.T) {
	t.Parallel()
	s := startSite(t, nil)
	s.startFlow(s.relayed, load.Load{PerSession: 2})
	s.startFlow(s.queued, load.Load{PerSession: 2})
	bin, dir := binary(t), s.Dir
	storm := func(each func(n int)) {
		var all sync.WaitGroup
		for i := range 4 {
			all.Go(func() {
				for j := range 3 {
					each(i*3 + j)
				}
			})
		}
		all.Wait()
	}
	storm(func(n int) {
		if n%3 == 0 && n < 9 {
			configFolder{t, filepath.Join(dir, "config")}.replace([]string{"connection.ini", "outbound.bounce_message_html", "me"}[n/3],
				[]string{token(n), fmt.Sprintf("<p>%d</p>", n), fmt.Sprintf("me%d.test\n", n)}[n/3])
		}
		if o := execute(t, bin, "reload", "-c", dir); o.exit != 0 {
			t.Errorf("reload %d: exit %d, %s", n, o.exit, o.out)
		}
	})
	s.configs.replace("connection.ini", token(77))
	s.reload()
	if reply := s.visit().say("EHLO client.test", "250"); !strings.Contains(reply, "Token 77.") {
		t.Errorf("after the last one: %q", reply)
	}
	s.flowOn(5)
	s.endFlows()

	var stopping sync.WaitGroup
	stopping.Go(s.Stop)
	storm(func(n int) {
		s.configs.write("connection.ini", token(n))
		execute(t, bin, "reload", "-c", dir) // the daemon may be gone
	})
	stopping.Wait()
	if o := execute(t, bin, "reload", "-c", dir); o.exit == 0 || !strings.Contains(o.out, "no daemon") {
		t.Errorf("reload without a daemon: exit %d, %s", o.exit, o.out)
	}
}

// What is remembered of clients and of mail outlasts a reload: wrong passwords of an
// address, attempts of a message.
func TestReloadKeepsMemory(t *testing.T) {
	t.Parallel()
	const guesser = "127.0.0.9"
	s := startSite(t, nil, "auth_flat_file.ini", "[users]\none=secret\n", "connection.ini", "[max]\nauth_failures=3\n")
	login := func(password string) string {
		c := visitFrom(t, local(s.port), guesser)
		defer c.Close()
		return c.answer("AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00one\x00"+password)))
	}
	for i := range 2 {
		if got := login(fmt.Sprint(i)); got != "535" {
			t.Fatalf("wrong password %d: %s", i, got)
		}
		s.configs.write("auth_flat_file.ini", fmt.Sprintf("[users]\none=secret\nuser%d=secret\n", i))
		s.reload()
	}
	if last, next := login("wrong"), login("secret"); last != "535" || next != "421" {
		t.Errorf("the third wrong password: %s, and another login %s, want 535 and 421", last, next)
	}
	s.configs.write("connection.ini", "[max]\nauth_failures=0\n")
	s.reload()
	if got := login("secret"); got != "235" {
		t.Errorf("without a limit: %s", got)
	}
}

// A daemon that root started and that is another user now reads its files with that
// user's rights: what it cannot read is reported, and what it has serves on.
func TestReloadAsAnotherUser(t *testing.T) {
	t.Parallel()
	rooted(t)
	dir, bin := public(t)
	s := newSite(t)
	write(t, dir, with(s.siteFiles(), "smtp.ini", "user=nobody\n"+listenOn(s.port), "plugins", "tls\n"+basePlugins, "tls.ini", "key=mx.key\ncert=mx.crt\n"))
	s.configs = configFolder{t, filepath.Join(dir, "config")}
	certify(t, s.configs.dir, "mx", "mx.test", 80*days)
	if err := os.Chmod(s.configs.path("mx.key"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Daemon = serving(t, dir, exec.Command(bin, "serve", "-c", dir))
	s.startFlow(s.relayed, load.Load{StartTLS: true, PerSession: 3})
	s.startFlow(s.queued, load.Load{})

	// The key is root's alone. It has not changed, and so it is not in the way.
	s.configs.write("connection.ini", token(1))
	s.reload()
	s.awaitToken(1)

	s.configs.write("connection.ini", token(2))
	if err := os.Chmod(s.configs.path("connection.ini"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.refused(`connection\.ini.*permission denied`)
	s.awaitToken(1)
	if err := os.Chmod(s.configs.path("connection.ini"), 0o644); err != nil {
		t.Fatal(err)
	}
	s.reload()
	s.awaitToken(2)
	s.flowOn(5)
	s.endFlows()
}
