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

// recoverCorrupt brings messages back from corrupt/.
func recoverCorrupt(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	dryRun := switched(a, dryRunFlag.Name)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	all, err := server.RestoreCorrupt(ctx, cfg, dryRun, s.Err)
	if err != nil && len(all) == 0 {
		return err
	}

	// What came back is listed, and what stays, with the reason.
	messages, known, stay := 0, 0, 0
	for _, r := range all {
		for _, id := range r.Messages {
			fmt.Fprintf(s.Out, "%s  from %s\n", id, terminal.Printable(r.Name))
		}
		messages += len(r.Messages)
		known += r.Known
		if r.Err != nil {
			stay++
			fmt.Fprintf(s.Err, "stays %s: %s\n", terminal.Printable(r.Name), terminal.Printable(r.Err.Error()))
		}
	}

	// A file that stays is a failure: there may be mail in it.
	did := "recovered"
	if dryRun {
		did = "would recover"
	}
	fmt.Fprintf(s.Out, "%s %s, %d were in the queue or done with, %s to stay in corrupt/\n", did, terminal.FormatCount(messages, "message"), known, terminal.FormatCount(stay, "file"))
	return finished(err, stay)
}
