package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"tarishi/internal/server"
)

type queueImportCmd struct {
	instance
	Dir    string `arg:"" placeholder:"DIR" help:"Haraka's queue folder. Haraka must not run."`
	DryRun bool   `help:"Only read the files and say what would be done."`
	Hold   bool   `help:"Hold the messages: nothing is attempted until 'queue release'."`
}

// Run imports Haraka's queue.
func (c *queueImportCmd) Run(s streams) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := server.ImportHaraka(ctx, cfg, c.Dir, server.ImportOptions{DryRun: c.DryRun, Hold: c.Hold}, s.err)
	if r == nil || err != nil && r.Messages == 0 {
		return err
	}
	for _, p := range r.Skipped {
		fmt.Fprintf(s.err, "skipped %s: %v\n", p.Name, p.Err)
	}
	for _, p := range r.Failed {
		fmt.Fprintf(s.err, "failed %s: %v\n", p.Name, p.Err)
	}
	did := "imported"
	if c.Hold {
		did = "imported and held"
	}
	if c.DryRun {
		did = "would import"
	}
	fmt.Fprintf(s.out, "%s %s, skipped %d, failed %d\n", did, plural(r.Messages, "file"), len(r.Skipped), len(r.Failed))
	if r.Known > 0 {
		fmt.Fprintf(s.out, "%d of them were in the queue from an import that was cut short\n", r.Known)
	}
	return finished(err, len(r.Failed))
}

type queueExportCmd struct {
	instance
	Haraka string `name:"haraka" required:"" placeholder:"DIR" help:"Write files of Haraka's queue to this folder, which holds none yet."`
}

// Run exports the queue.
func (c *queueExportCmd) Run(s streams) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := server.ExportHaraka(ctx, cfg, c.Haraka, s.err)
	if r == nil || err != nil && r.Messages == 0 {
		return err
	}
	for _, p := range r.Skipped {
		fmt.Fprintf(s.err, "skipped message %s: %v\n", p.Name, p.Err)
	}
	for _, p := range r.Failed {
		fmt.Fprintf(s.err, "failed message %s: %v\n", p.Name, p.Err)
	}
	fmt.Fprintf(s.out, "wrote %s to %s, skipped %d, failed %d; the queue is unchanged\n",
		plural(r.Messages, "file"), c.Haraka, len(r.Skipped), len(r.Failed))
	return finished(err, len(r.Failed)+len(r.Skipped))
}

// finished is the result of a command that has reported so many problems.
func finished(err error, problems int) error {
	if err == nil && problems > 0 {
		err = errReported
	}
	return err
}
