package instance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// ErrNoModule is returned where a module of Node.js cannot be had; its text says why.
var ErrNoModule = errors.New("no module of Node.js")

// InstallModule returns a folder below cache with node_modules, in which a module of npm
// is. If it is not there yet, npm installs it, which needs the network once; progress says
// so. Errors wrap ErrNoModule.
func InstallModule(ctx context.Context, cache, name, version string, progress io.Writer) (dir string, err error) {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return "", fmt.Errorf("%w: %w", ErrNoModule, err)
		}
	}
	dir = filepath.Join(cache, name+"-"+version)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err == nil {
		return dir, nil
	}
	fmt.Fprintf(progress, "installing %s %s from npm into %s, once\n", name, version, dir)
	if err := installModule(ctx, cache, dir, name+"@"+version); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	return dir, nil
}

// installModule makes dir whole or not at all.
func installModule(ctx context.Context, cache, dir, module string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "npm", "install", "--prefix", temp, "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error", module)
	cmd.Dir = temp
	cmd.WaitDelay = 5 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm install: %w: %s", err, tail(string(out)))
	}
	// Another process may have done the same meanwhile.
	if err := os.Rename(temp, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
