package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"tarishi/internal/server"
)

type queueRecoverCmd struct {
	instance
	DryRun bool `help:"Only read the files and say what would be done."`
}

// Run brings messages back from corrupt/.
func (c *queueRecoverCmd) Run(s streams) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	all, err := server.RestoreCorrupt(ctx, cfg, c.DryRun, s.err)
	if err != nil && len(all) == 0 {
		return err
	}
	messages, known, stay := 0, 0, 0
	for _, r := range all {
		for _, id := range r.Messages {
			fmt.Fprintf(s.out, "%s  from %s\n", id, printable(r.Name))
		}
		messages += len(r.Messages)
		known += r.Known
		if r.Err != nil {
			stay++
			fmt.Fprintf(s.err, "stays %s: %s\n", printable(r.Name), printable(r.Err.Error()))
		}
	}
	did := "recovered"
	if c.DryRun {
		did = "would recover"
	}
	fmt.Fprintf(s.out, "%s %s, %d were in the queue or done with, %s to stay in corrupt/\n", did, plural(messages, "message"), known, plural(stay, "file"))
	return finished(err, stay)
}
