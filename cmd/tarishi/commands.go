package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"tarishi/config"
	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/hangup"
	"tarishi/internal/maillog"
	"tarishi/internal/server"
)

// Exit codes of every command.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// errReported is returned by a command that has said itself what went wrong.
var errReported = errors.New("reported")

// streams is where commands write: results to out, everything else to err; the
// daemon what it does to title, if the system has that (nil: it has not).
type streams struct {
	out, err io.Writer
	title    func(string)
}

type cli struct {
	Serve   serveCmd   `cmd:"" default:"withargs" help:"Run the daemon in the foreground (the default command: 'tarishi -c DIR')."`
	Init    initCmd    `cmd:"" help:"Write the shipped, commented configuration into a folder. Never overwrites a file."`
	Check   checkCmd   `cmd:"" help:"Report every problem of the configuration with its file and line."`
	Plugins pluginsCmd `cmd:"" help:"Print which plugins run at which hook, in order, with priority and timeout."`
	Queue   queueCmd   `cmd:"" help:"Look into the queue and act on it: list, stat, show, cat, why, destinations, hold, release, flush, remove, recover, import, export."`
	Metrics metricsCmd `cmd:"" help:"Print the daemon's metrics, as Prometheus reads them."`
	Version versionCmd `cmd:"" help:"Print the version."`

	Qlist qlistCmd `cmd:"" hidden:"" help:"The queue as haraka --qlist prints it."`
	Qstat qstatCmd `cmd:"" hidden:"" help:"The queue as haraka --qstat prints it."`
}

// run executes one command line and returns its exit code.
func run(args []string, s streams) int {
	exit := -1
	parser, err := kong.New(&cli{},
		kong.Name("tarishi"),
		kong.Description("A mail transfer agent: SMTP in, a chain of hooks, a relay and a durable outbound queue."),
		kong.UsageOnError(),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true}),
		kong.Writers(s.out, s.err),
		kong.Exit(func(code int) { exit = code }),
		kong.Bind(s),
	)
	if err != nil {
		fmt.Fprintln(s.err, "tarishi:", err)
		return exitFailure
	}
	ctx, err := parser.Parse(harakaOptions(args))
	if exit >= 0 { // --help has been printed
		return exit
	}
	if err != nil {
		fmt.Fprintf(s.err, "tarishi: %v\nTry 'tarishi --help'.\n", err)
		return exitUsage
	}
	if ctx.Command() != "serve" {
		hangup.Release()
	}
	switch err := ctx.Run(); {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
	case errors.Is(err, control.ErrInvalid):
		fmt.Fprintln(s.err, "tarishi:", err)
		return exitUsage
	default:
		fmt.Fprintln(s.err, "tarishi:", err)
	}
	return exitFailure
}

type serveCmd struct {
	instance
}

// Run starts the daemon and returns when it has stopped. From here on everything
// goes through the log's buffer: nobody waits for the reader of standard error, and
// a reader that goes away ends nothing.
func (c *serveCmd) Run(s streams) error {
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE) // else it is fatal for standard error; see os/signal
	defer signal.Stop(broken)
	cfg, problems, err := c.load()
	if err != nil {
		return err
	}
	w := maillog.NewWriter(s.err)
	defer w.Close()
	if err := c.serve(cfg, problems, w, s.title); err != nil {
		log := server.Notices(cfg, w)
		for line := range strings.SplitSeq(err.Error(), "\n") {
			log.Error(line)
		}
		return errReported
	}
	return nil
}

// serve is Run once there is a log.
func (c *serveCmd) serve(cfg *conf.Config, problems conf.Problems, w *maillog.Writer, title func(string)) error {
	log := server.Notices(cfg, w).Named("config")
	for _, p := range problems {
		if p.Warning {
			log.Warn(p.String())
		} else {
			log.Error(p.String())
		}
	}
	if n := len(problems.Errors()); n > 0 {
		return fmt.Errorf("%d error(s) in the configuration, not started", n)
	}
	srv, err := server.New(cfg, server.Options{Version: version, Log: w, Title: title})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	return srv.Run(ctx, hangup.Signals())
}

type initCmd struct {
	Dir string `arg:"" placeholder:"DIR" help:"The folder; it is made when missing."`
}

// Run writes the shipped configuration.
func (c *initCmd) Run(s streams) error {
	wrote, kept, err := conf.Init(c.Dir, config.FS)
	for _, f := range wrote {
		fmt.Fprintln(s.out, "wrote", f)
	}
	for _, f := range kept {
		fmt.Fprintln(s.out, "kept ", f)
	}
	return err
}

type checkCmd struct {
	instance
	Print bool `help:"Print the effective values, secrets masked."`
}

// Run reports the problems of the configuration: the warnings, then the errors,
// then how many there are of each.
func (c *checkCmd) Run(s streams) error {
	cfg, problems, err := c.load()
	if err != nil {
		return err
	}
	if c.Print {
		cfg.Print(s.out)
	}
	more, err := server.Check(cfg)
	var warnings, errs []string
	for _, p := range slices.Concat(problems, more) {
		if p.Warning {
			warnings = append(warnings, p.String())
		} else {
			errs = append(errs, p.String())
		}
	}
	if err != nil {
		errs = append(errs, strings.Split(err.Error(), "\n")...)
	}
	for _, line := range slices.Concat(warnings, errs) {
		fmt.Fprintln(s.err, line)
	}
	count := plural(len(errs), "error") + ", " + plural(len(warnings), "warning")
	switch {
	case len(errs) > 0:
		fmt.Fprintln(s.err, count)
		return errReported
	case len(warnings) > 0:
		fmt.Fprintln(s.err, count+": the configuration is good")
	default:
		fmt.Fprintln(s.err, "the configuration is good")
	}
	return nil
}

type pluginsCmd struct {
	instance
}

// Run prints the effective order of every hook.
func (c *pluginsCmd) Run(s streams) error {
	cfg, _, err := c.load()
	if err != nil {
		return err
	}
	return server.PrintHooks(s.out, cfg)
}

type metricsCmd struct {
	instance
}

// Run prints the metrics.
func (c *metricsCmd) Run(s streams) error {
	q, err := c.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	all, err := q.Metrics(context.Background())
	if err != nil {
		return err
	}
	defer all.Close()
	_, err = io.Copy(s.out, all)
	return err
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s streams) error {
	_, err := fmt.Fprintf(s.out, "tarishi %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
