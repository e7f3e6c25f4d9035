package instance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// postfixPath is Debian's place for it, which is not on every user's PATH.
const postfixPath = "/usr/sbin/postfix"

// HasPostfix reports whether Postfix is installed and can be started, which
// takes root.
func HasPostfix() bool {
	_, err := os.Stat(postfixPath)
	return err == nil && os.Geteuid() == 0
}

// masterCF is the smallest set of services that takes, queues and relays mail.
// Nothing is chrooted. %s is the address of smtpd.
const masterCF = `%s inet n - n - - smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
verify    unix  -       -       n       -       1       verify
flush     unix  n       -       n       1000?   0       flush
proxymap  unix  -       -       n       -       -       proxymap
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
anvil     unix  -       -       n       -       1       anvil
scache    unix  -       -       n       -       1       scache
postlog   unix-dgram n  -       n       -       1       postlogd
`

// Postfix starts a separate Postfix in dir, which must not exist yet, and
// waits until it listens. settings are lines of main.cf beyond those that make
// it an open relay for loopback with no local delivery. Prefix is as in Tarishi.
func Postfix(ctx context.Context, dir string, settings map[string]string, prefix ...string) (*Server, error) {
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	config, err := writePostfix(dir, addr, owner, settings)
	if err != nil {
		return nil, err
	}
	p, err := Start(command(prefix, postfixPath, "-c", config, "start-fg"))
	if err != nil {
		return nil, err
	}
	p.stop = exec.Command(postfixPath, "-c", config, "stop") // the child is a shell above the master process
	s := &Server{Process: p, Dir: dir, Addrs: []string{addr}}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		kill(p)
		return nil, err
	}
	return s, nil
}

// writePostfix writes the folder of a Postfix that listens on addr, and returns the folder
// of its configuration.
func writePostfix(dir, addr string, owner *user.User, settings map[string]string) (config string, err error) {
	main := map[string]string{
		"compatibility_level":          "3.6",
		"queue_directory":              filepath.Join(dir, "queue"),
		"data_directory":               filepath.Join(dir, "data"),
		"maillog_file":                 "/dev/stdout",
		"myhostname":                   "postfix.test",
		"mydestination":                "",
		"mynetworks":                   "127.0.0.0/8",
		"alias_maps":                   "",
		"local_recipient_maps":         "",
		"inet_interfaces":              "127.0.0.1",
		"inet_protocols":               "ipv4",
		"smtpd_recipient_restrictions": "permit_mynetworks, reject",
		"notify_classes":               "",
		"disable_dns_lookups":          "yes",
	}
	maps.Copy(main, settings)
	var lines strings.Builder
	for _, key := range slices.Sorted(maps.Keys(main)) {
		fmt.Fprintf(&lines, "%s = %s\n", key, main[key])
	}
	err = WriteFiles(dir, map[string]string{
		"config/main.cf":   lines.String(),
		"config/master.cf": fmt.Sprintf(masterCF, addr),
	})
	if err != nil {
		return "", err
	}

	// Postfix checks the owners of its folders and refuses to start with others.
	uid, _ := strconv.Atoi(owner.Uid)
	gid, _ := strconv.Atoi(owner.Gid)
	data := filepath.Join(dir, "data")
	if err := errors.Join(os.MkdirAll(data, 0o755), os.Chown(data, uid, gid), os.MkdirAll(filepath.Join(dir, "queue"), 0o755)); err != nil {
		return "", err
	}
	config = filepath.Join(dir, "config")
	for _, name := range []string{dir, config, filepath.Join(dir, "queue"), data, config + "/main.cf", config + "/master.cf"} {
		if err := os.Chmod(name, 0o755); err != nil { // its users must get through, whatever the umask
			return "", err
		}
	}
	return config, nil
}

// answers waits until the server sends a greeting.
func (s *Server) answers(ctx context.Context) error {
	for {
		if c, err := net.DialTimeout("tcp", s.Addr(), time.Second); err == nil {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			n, err := c.Read(make([]byte, 1))
			c.Close()
			if n == 1 {
				return nil
			}
			_ = err // not ready yet
		}
		select {
		case <-s.Exited():
			return fmt.Errorf("%s ended: %s", s.cmd.Path, tail(s.Log()))
		case <-ctx.Done():
			return fmt.Errorf("%s: %w; its log ends with: %s", s.cmd.Path, ctx.Err(), tail(s.Log()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// freeAddr is a loopback address with a port that was free a moment ago. It is below
// those that systems give away by themselves, 32768 on Linux and 16000 on gVisor:
// somebody else's test would soon have one of these.
func freeAddr() (string, error) {
	var failed error
	for range 50 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.N(3000)))
		if err != nil {
			failed = err
			continue
		}
		defer ln.Close()
		return ln.Addr().String(), nil
	}
	return "", failed
}

// PostfixRelay starts an instance in a folder of dir as a relay to port of 127.0.0.1. secure
// and prefix are as in HarakaRelay.
func PostfixRelay(ctx context.Context, dir string, port int, tuned, secure bool, prefix ...string) (*Server, error) {
	settings := postfixSettings(fmt.Sprintf("[127.0.0.1]:%d", port), tuned)
	if secure {
		settings["smtpd_tls_security_level"] = "may"
		settings["smtpd_tls_chain_files"] = filepath.Join(dir, KeyFile) + ", " + filepath.Join(dir, CertificateFile)
	}
	return Postfix(ctx, filepath.Join(dir, "instance"), settings, prefix...)
}

// postfixSettings are those of a relay to next: with the process limit and otherwise the
// defaults or, tuned, with what makes it fastest here.
func postfixSettings(next string, tuned bool) map[string]string {
	if !tuned {
		return map[string]string{"relayhost": next, "default_process_limit": "100"}
	}
	return map[string]string{
		"relayhost":                             next,
		"default_process_limit":                 "200",
		"in_flow_delay":                         "0",
		"default_destination_concurrency_limit": "100",
		"initial_destination_concurrency":       "50",
		"smtp_connection_cache_on_demand":       "yes",
		"smtp_connection_cache_destinations":    next,
	}
}
