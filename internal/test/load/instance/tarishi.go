package instance

import (
	"context"
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
