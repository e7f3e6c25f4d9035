package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// HarakaVersion is the release of Haraka that InstallHaraka installs.
const HarakaVersion = "3.3.4"

// harakaPackage pins the versions that npm installs. The overrides are for packages
// with newest versions that registries may lack.
const harakaPackage = `{
  "name": "haraka-to-measure",
  "private": true,
  "dependencies": {"Haraka": "` + HarakaVersion + `"},
  "overrides": {"encoding-japanese": "2.4.0", "libqp": "2.1.1", "libmime": "5.3.7"}
}
`

// installTime bounds an installation.
const installTime = 3 * time.Minute

// ErrNoHaraka is returned where Haraka cannot be had; its text says why.
var ErrNoHaraka = errors.New("no Haraka " + HarakaVersion)

// InstallHaraka returns the path of Haraka's program below the folder cache. If
// it is not there yet, npm installs it, which needs the network once; progress
// says so. Errors wrap ErrNoHaraka.
func InstallHaraka(ctx context.Context, cache string, progress io.Writer) (program string, err error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoHaraka, err)
		}
	}
	dir := filepath.Join(cache, "haraka-"+HarakaVersion)
	program = filepath.Join(dir, "node_modules", "Haraka", "bin", "haraka")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := install(ctx, cache, dir, progress); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoHaraka, err)
	}
	return program, nil
}

// install makes dir whole or not at all.
func install(ctx context.Context, cache, dir string, progress io.Writer) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if err := WriteFiles(temp, map[string]string{"package.json": harakaPackage}); err != nil {
		return err
	}
	fmt.Fprintf(progress, "installing Haraka %s from npm into %s, once\n", HarakaVersion, dir)
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	// Optional are plugins that are not measured, and what has to be compiled.
	cmd := exec.CommandContext(ctx, "npm", "install", "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = temp
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm install: %w: %s", err, tail(string(out)))
	}
	return os.Rename(temp, dir)
}

// HarakaRelay starts program in dir as a relay to port of 127.0.0.1: every
// recipient is taken and queue/smtp_forward passes the message on. Prefix is as
// in Tarishi. secure: dir/config holds tls_key.pem and tls_cert.pem, and clients
// may use STARTTLS.
func HarakaRelay(ctx context.Context, program, dir string, port int, secure bool, prefix ...string) (*Server, error) {
	plugins := "take_all\nqueue/smtp_forward\n"
	if secure {
		plugins = "tls\n" + plugins
	}
	return haraka(ctx, program, dir, prefix, map[string]string{
		"config/plugins":          plugins,
		"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
		"plugins/take_all.js":     "exports.hook_rcpt = (next) => next(OK)\n",
	})
}

// HarakaQueue starts program in dir as an outbound queue: everybody may relay,
// and port of 127.0.0.1 is the MX of every domain. Prefix is as in Tarishi.
func HarakaQueue(ctx context.Context, program, dir string, port int, prefix ...string) (*Server, error) {
	return haraka(ctx, program, dir, prefix, map[string]string{
		"config/plugins":      "take_all\none_mx\n",
		"config/outbound.ini": "concurrency_max=100\n",
		"plugins/take_all.js": "exports.hook_rcpt = (next, connection) => { connection.relaying = true; next(OK) }\n",
		"plugins/one_mx.js":   fmt.Sprintf("exports.hook_get_mx = (next) => next(OK, { priority: 0, exchange: '127.0.0.1', port: %d })\n", port),
	})
}

// haraka starts one process, which is all that nodes=0 makes.
func haraka(ctx context.Context, program, dir string, prefix []string, files map[string]string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"config/me":       "haraka.test\n",
		"config/smtp.ini": "listen=" + addr + "\nnodes=0\n",
		"config/log.ini":  "[main]\nlevel=warn\n",
	}
	// Its own installer copies this file; the rest is the default where it is absent.
	connection, err := os.ReadFile(filepath.Join(filepath.Dir(program), "..", "config", "connection.ini"))
	if err != nil {
		return nil, err
	}
	all["config/connection.ini"] = string(connection)
	maps.Copy(all, files)
	if err := WriteFiles(dir, all); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "queue"), 0o755); err != nil {
		return nil, err
	}
	p, err := Start(command(prefix, "node", program, "-c", dir))
	if err != nil {
		return nil, err
	}
	s := &Server{Process: p, Dir: dir, Addrs: []string{addr}}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if err := s.answers(ctx); err != nil {
		kill(p)
		return nil, fmt.Errorf("haraka: %s", strings.TrimSpace(err.Error()))
	}
	return s, nil
}
