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

	"tarishi/config"
	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/hangup"
	"tarishi/internal/ini"
	"tarishi/internal/maillog"
	"tarishi/internal/server"
	"tarishi/internal/terminal"
)

// Exit codes of every command.
const (
	exitOK = iota
	exitFailure
	exitUsage
)

// errReported is returned by a command that has said itself what went wrong.
var errReported = errors.New("reported")

// streams is where commands write: results to out, everything else to err. The
// daemon shows its work in title; nil: the system has none.
type streams struct {
	out, err io.Writer
	title    func(string)
}

// commands returns the table of all commands, in the order of the help.
func commands() []command {
	configs := []control.Parameter{configsFlag}

	// In the order in which an administrator comes to need them.
	return slices.Concat(
		[]command{
			{
				name: defaultCommand, text: "Run the daemon in the foreground (the default command: 'tarishi -c DIR').", parameters: configs,
				run: func(s streams, a control.Arguments) error { return (&serveCmd{instanceOf(a)}).Run(s) },
			},
			{
				name: "init", text: "Write the shipped, commented configuration into a folder. Never overwrites a file.",
				parameters: []control.Parameter{{Name: "dir", Kind: control.Kind{Placeholder: "DIR"}, Positional: true, Required: true, Text: "The folder; it is made when missing."}},
				run:        func(s streams, a control.Arguments) error { return (&initCmd{a.Text("dir")}).Run(s) },
			},
			{
				name: "check", text: "Report every problem of the configuration with its file and line.",
				parameters: []control.Parameter{configsFlag, {Name: "print", Text: "Print the effective values, secrets masked."}},
				run: func(s streams, a control.Arguments) error {
					return (&checkCmd{instanceOf(a), switched(a, "print")}).Run(s)
				},
			},
			{
				name: "settings", text: "Print every setting that there is, with its default and its meaning.",
				parameters: []control.Parameter{{Name: "key", Kind: control.Kind{Placeholder: "TEXT"}, Positional: true, Text: "Only settings whose file, section or key contains TEXT."}},
				run:        func(s streams, a control.Arguments) error { return printSettings(s, a.Text("key")) },
			},
			{name: "plugins", text: "Print which plugins run at which hook, in order, with priority and timeout.", parameters: configs, run: printPlugins},
		},
		operations(),
		migrations(),
		keyCommands(),
		[]command{
			{name: "metrics", text: "Print the daemon's metrics, as Prometheus reads them.", parameters: configs, run: printMetrics},
			completionCommand(),
			{name: "version", text: "Print the version.", run: printVersion},
			{name: "qlist", text: "Print the queue as haraka --qlist prints it.", hidden: true, parameters: configs, run: printHarakaList},
			{name: "qstat", text: "Print the queue as haraka --qstat prints it.", hidden: true, parameters: configs, run: printHarakaCount},
		},
	)
}

// run executes one command line and returns its exit code.
func run(line []string, s streams) int {
	all := commands()
	line = harakaOptions(line)
	if line[0] == "--"+helpFlag || line[0] == "-h" {
		printHelp(s.out, all, "")
		return exitOK
	}

	// Help for a group of commands is help for no command.
	c, rest, group, err := findCommand(all, line)
	if c == nil {
		if group != "" && slices.ContainsFunc(rest, func(word string) bool { return word == "--"+helpFlag || word == "-h" }) {
			printHelp(s.out, all, group)
			return exitOK
		}
		return reportMisuse(s, err)
	}
	a, err := c.parseLine(rest)
	switch {
	case errors.Is(err, errHelp):
		c.printHelp(s.out)
		return exitOK
	case err != nil:
		return reportMisuse(s, err)
	}

	// Only the daemon outlives its terminal.
	if c.name != defaultCommand {
		hangup.Release()
	}

	// Wrong usage has its own code: nothing was done then.
	switch err := c.run(s, a); {
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

// reportMisuse reports a line that is no command.
func reportMisuse(s streams, err error) int {
	fmt.Fprintf(s.err, "tarishi: %v\nTry 'tarishi --help'.\n", err)
	return exitUsage
}

type serveCmd struct {
	instance
}

// Run starts the daemon and returns when it has stopped. From here on everything
// goes through the log's buffer: nobody waits for the reader of standard error, and
// a reader that goes away ends nothing.
func (c *serveCmd) Run(s streams) error {
	// The log may be a pipe that breaks.
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
func (c *serveCmd) serve(cfg *conf.Config, problems ini.Problems, w *maillog.Writer, title func(string)) error {
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

	// The first signal stops in order, the second at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return srv.Run(ctx, hangup.Signals())
}

type initCmd struct {
	Dir string
}

// Run writes the shipped configuration.
func (c *initCmd) Run(s streams) error {
	wrote, kept, err := server.Init(c.Dir, config.FS)
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
	Print bool // the effective values, too
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

	// Errors stand last, where the eye is when the command has ended.
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

	// Warnings alone leave the exit code as it is.
	count := terminal.FormatCount(len(errs), "error") + ", " + terminal.FormatCount(len(warnings), "warning")
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

// printPlugins prints the effective order of every hook.
func printPlugins(s streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	return server.PrintHooks(s.out, cfg)
}

// printMetrics prints the daemon's metrics.
func printMetrics(s streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	c, err := control.Dial(context.Background(), cfg.QueueDir)
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Get(context.Background(), "/metrics")
	if err != nil {
		return err
	}
	defer all.Close()
	_, err = io.Copy(s.out, all)
	return err
}

// printVersion prints the version.
func printVersion(s streams, _ control.Arguments) error {
	_, err := fmt.Fprintf(s.out, "tarishi %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}
