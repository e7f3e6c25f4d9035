package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"tarishi/internal/test/namespace"
)

// worldCommand is what the command runs itself with in a network where every address is a
// local one: clients from loopback and private addresses are exempt from most checks.
const worldCommand = "in-world"

// enterWorld runs the command again in such a network.
func (b *bench) enterWorld(ctx context.Context) error {
	runtime.LockOSThread() // the other one would end with the thread that has started it
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, b.self, append([]string{worldCommand, b.dir}, b.args...)...)
	namespace.Isolate(cmd)
	cmd.Stdout, cmd.Stderr = b.out, b.progress
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("in a network of its own: %w", err)
	}
	return nil
}

// runInWorld is that command. The first argument is a folder of its own.
func runInWorld(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: tarishi-bench " + worldCommand + " FOLDER [OPTIONS]")
	}
	if err := namespace.Prepare(args[0], nameserver, false); err != nil {
		return err
	}
	o := parseFlags(args[1:])
	o.world = true
	return runParts(ctx, o, os.Stdout, os.Stderr)
}
