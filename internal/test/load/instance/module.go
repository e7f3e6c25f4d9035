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
	if err := findTools(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	dir = filepath.Join(cache, name+"-"+version)
	if _, err := os.Stat(filepath.Join(dir, "node_modules", name)); err == nil {
		return dir, nil
	}
	fmt.Fprintf(progress, "installing %s %s from npm into %s, once\n", name, version, dir)
	if err := install(ctx, cache, dir, nil, name+"@"+version); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	return dir, nil
}

// findTools reports which of the programs of Node.js is missing.
func findTools() error {
	for _, tool := range []string{"node", "npm"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}

// install has npm install what a package.json asks for, nil: none, and modules beside it. It
// makes dir whole or not at all.
func install(ctx context.Context, cache, dir string, manifest []byte, modules ...string) error {
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(cache, "installing-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	if manifest != nil {
		if err := WriteFiles(temp, map[string]string{"package.json": string(manifest)}); err != nil {
			return err
		}
	}

	// Optional are parts that are not needed here, and what has to be compiled.
	ctx, cancel := context.WithTimeout(ctx, installTime)
	defer cancel()
	line := []string{"install", "--prefix", temp, "--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"}
	cmd := exec.CommandContext(ctx, "npm", append(line, modules...)...)
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
