package instance

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

// startTime bounds the time until a server listens.
const startTime = time.Minute

// Server is a mail server that listens.
type Server struct {
	*Process
	Dir   string
	Addrs []string // host:port, in the order of its configuration
}

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+|\[::1\]:\d+)`)

// WriteFiles writes files below dir: names are slash-separated paths.
func WriteFiles(dir string, files map[string]string) error {
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Tarishi starts bin on the instance in dir and waits until it listens on as
// many addresses. Prefix, if any, is a command that runs it, such as strace.
func Tarishi(ctx context.Context, bin, dir string, addresses int, prefix ...string) (*Server, error) {
	return Listening(ctx, command(prefix, bin, "serve", "-c", dir), dir, addresses)
}

// TarishiRelay starts bin in dir as a relay to port of 127.0.0.1 for the mail to a domain.
// Sessions may be many, all from one address. secure and prefix are as in HarakaRelay.
func TarishiRelay(ctx context.Context, bin, dir, domain string, port int, secure bool, prefix ...string) (*Server, error) {
	plugins := "rcpt_to.in_host_list\nqueue/smtp_forward\n"
	if secure {
		plugins = "tls\n" + plugins
	}
	return TarishiWith(ctx, bin, dir, map[string]string{
		"config/log.ini":          "level=warn\n",
		"config/plugins":          plugins,
		"config/host_list":        domain + "\n",
		"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
	}, prefix...)
}

// TarishiQueue starts bin in dir as a queue that asks the DNS at an address for its next
// hops, which listen on port. Prefix is as in Tarishi.
func TarishiQueue(ctx context.Context, bin, dir, nameserver string, port int, prefix ...string) (*Server, error) {
	return TarishiWith(ctx, bin, dir, map[string]string{
		"config/log.ini":         "level=warn\n",
		"config/connection.ini":  "[max]\nbytes=60000000\n",
		"config/plugins":         "relay\n",
		"config/relay_acl_allow": "127.0.0.0/8\n",
		"config/dns.ini":         "servers[]=" + nameserver + "\n",
		"config/outbound.ini":    fmt.Sprintf("port=%d\nlocal_mx_ok=true\nconcurrency_max=100\n", port),
	}, prefix...)
}

// TarishiWith starts bin in dir with these files, by their paths below it, on one address of
// loopback. If they do not say otherwise, there may be many connections, all from one
// address. Prefix is as in Tarishi.
func TarishiWith(ctx context.Context, bin, dir string, files map[string]string, prefix ...string) (*Server, error) {
	all := map[string]string{
		"config/smtp.ini":       "listen=127.0.0.1:0\n",
		"config/connection.ini": "[max]\nconnections=20000\nconnections_per_ip=0\n",
	}
	maps.Copy(all, files)
	if err := WriteFiles(dir, all); err != nil {
		return nil, err
	}
	return Tarishi(ctx, bin, dir, 1, prefix...)
}

// command is argv behind a prefix, which may be empty.
func command(prefix []string, argv ...string) *exec.Cmd {
	argv = append(slices.Clone(prefix), argv...)
	return exec.Command(argv[0], argv[1:]...)
}

// Listening starts a server that prints "listening on ADDRESS" for each of its
// loopback addresses and waits until there are so many.
func Listening(ctx context.Context, cmd *exec.Cmd, dir string, addresses int) (*Server, error) {
	p, err := Start(cmd)
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Dir: dir}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	err = p.Await(ctx, func(log string) bool {
		s.Addrs = s.Addrs[:0]
		for _, m := range listening.FindAllStringSubmatch(log, -1) {
			if !slices.Contains(s.Addrs, m[1]) {
				s.Addrs = append(s.Addrs, m[1])
			}
		}
		return len(s.Addrs) >= addresses
	})
	if err != nil {
		kill(p)
		return nil, err
	}
	return s, nil
}

// Addr is the server's first address.
func (s *Server) Addr() string { return s.Addrs[0] }

// kill ends a server that did not start as it should.
func kill(p *Process) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.Stop(ctx)
}
