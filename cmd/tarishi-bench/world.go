package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"

	"tarishi/internal/test/load/checks"
	"tarishi/internal/test/namespace"
)

// worldCommand is what the command runs itself with in a network where every address is a
// local one: clients from loopback and private addresses are exempt from most checks.
const worldCommand = "in-world"

// enterWorld runs the command again in such a network.
func (b *bench) enterWorld(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, b.self, append([]string{worldCommand, b.dir}, b.args...)...)
	cmd.Stdout, cmd.Stderr = b.out, b.progress
	if err := namespace.Run(cmd); err != nil {
		return fmt.Errorf("in a network of its own: %w", err)
	}
	return nil
}

// runInWorld is that command. The first argument is a folder of its own.
func runInWorld(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("usage: tarishi-bench " + worldCommand + " FOLDER [OPTIONS]")
	}
	if err := namespace.Prepare(args[0], checks.Nameserver, false); err != nil {
		return err
	}
	o := parseFlags(args[1:])
	o.world = true
	return runParts(ctx, o, os.Stdout, os.Stderr)
}
