package main

import (
	"context"
	"fmt"
	"os/signal"
	"syscall"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/server"
	"tarishi/internal/terminal"
)

// migrations are the commands for the queue of a daemon that does not run.
func migrations() []command.Command {
	folder := control.Kind{Placeholder: "DIR"}
	return []command.Command{
		{
			Name: "queue recover", Text: "Bring messages back from queue/corrupt/ that can be read by now. The daemon must not run.",
			Parameters: []control.Parameter{configsFlag, dryRunFlag}, Run: recoverCorrupt,
		},
		{
			Name: "queue import", Text: "Import Haraka's queue folder. The daemon must not run.", Run: importHaraka,
			Parameters: []control.Parameter{
				{Name: "dir", Kind: folder, Positional: true, Required: true, Text: "Haraka's queue folder. Haraka must not run."},
				configsFlag, dryRunFlag,
				{Name: "hold", Text: "Hold the messages: nothing is attempted until 'queue release'."},
			},
		},
		{
			Name: "queue export", Text: "Write the queue as Haraka's queue files. The daemon must not run.", Run: exportHaraka,
			Parameters: []control.Parameter{
				configsFlag,
				{Name: "haraka", Kind: folder, Required: true, Text: "Write files of Haraka's queue to this folder, which holds none yet."},
			},
		},
	}
}

// importHaraka imports Haraka's queue.
func importHaraka(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	dryRun, hold := switched(a, "dry-run"), switched(a, "hold")
	// A signal ends it between two files; imported ones stay imported.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	r, err := server.ImportHaraka(ctx, cfg, a.Text("dir"), server.ImportOptions{DryRun: dryRun, Hold: hold}, s.Err)
	if r == nil || err != nil && r.Messages == 0 {
		return err
	}
	for _, p := range r.Skipped {
		fmt.Fprintf(s.Err, "skipped %s: %v\n", p.Name, p.Err)
	}
	for _, p := range r.Failed {
		fmt.Fprintf(s.Err, "failed %s: %v\n", p.Name, p.Err)
	}

	// The sum comes last, after the problems, and also when it was cut short.
	did := "imported"
	if hold {
		did = "imported and held"
	}
	if dryRun {
		did = "would import"
	}
	fmt.Fprintf(s.Out, "%s %s, skipped %d, failed %d\n", did, terminal.FormatCount(r.Messages, "file"), len(r.Skipped), len(r.Failed))
	if r.Known > 0 {
		fmt.Fprintf(s.Out, "%d of them were in the queue from an import that was cut short\n", r.Known)
	}
	return finished(err, len(r.Failed))
}

// exportHaraka exports the queue.
func exportHaraka(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	// A signal ends it between two messages; the queue is only read.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir := a.Text("haraka")
	r, err := server.ExportHaraka(ctx, cfg, dir, s.Err)
	if r == nil || err != nil && r.Messages == 0 {
		return err
	}
	for _, p := range r.Skipped {
		fmt.Fprintf(s.Err, "skipped message %s: %v\n", p.Name, p.Err)
	}
	for _, p := range r.Failed {
		fmt.Fprintf(s.Err, "failed message %s: %v\n", p.Name, p.Err)
	}
	fmt.Fprintf(s.Out, "wrote %s to %s, skipped %d, failed %d; the queue is unchanged\n",
		terminal.FormatCount(r.Messages, "file"), dir, len(r.Skipped), len(r.Failed))
	return finished(err, len(r.Failed)+len(r.Skipped))
}

// finished is the result of a command that has reported so many problems.
func finished(err error, problems int) error {
	if err == nil && problems > 0 {
		err = errReported
	}
	return err
}
