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
	"tarishi/internal/command"
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

// Parameters that several commands have.
var (
	configsFlag = control.Parameter{
		Name: "configs", Kind: control.Kind{Placeholder: "DIR"},
		Text: "The instance: a folder with config/, queue/ and plugins/. Without it: $TARISHI_DIR, the current folder if it has config/, /etc/tarishi.",
	}
	jsonFlag   = control.Parameter{Name: "json", Text: "Print one JSON object a line."}
	dryRunFlag = control.Parameter{Name: "dry-run", Text: "Only read the files and say what would be done."}
)

// commands returns the table that the command line is read with. The rows of control's
// table are among them.
func commands() *command.Table {
	return &command.Table{
		Program: "tarishi", About: "A mail transfer agent: SMTP in, a chain of hooks, a relay and a durable outbound queue.",
		Commands: rows(), Default: "serve",
		Groups: map[string]string{"queue": "Look into the queue and act on it", "dkim": "Make and check keys for signatures"},
		Short:  map[string]string{"c": configsFlag.Name, "h": command.Help},
	}
}

// rows returns all commands.
func rows() []command.Command {
	configs := []control.Parameter{configsFlag}

	// In the order in which an administrator comes to need them.
	return slices.Concat(
		[]command.Command{
			{
				Name: "serve", Text: "Run the daemon in the foreground (the default command: 'tarishi -c DIR').", Parameters: configs,
				Run: func(s command.Streams, a control.Arguments) error { return (&serveCmd{instanceOf(a)}).Run(s) },
			},
			{
				Name: "init", Text: "Write the shipped, commented configuration into a folder. Never overwrites a file.",
				Parameters: []control.Parameter{{Name: "dir", Kind: control.Kind{Placeholder: "DIR"}, Positional: true, Required: true, Text: "The folder; it is made when missing."}},
				Run:        func(s command.Streams, a control.Arguments) error { return (&initCmd{a.Text("dir")}).Run(s) },
			},
			{
				Name: "check", Text: "Report every problem of the configuration with its file and line.",
				Parameters: []control.Parameter{configsFlag, {Name: "print", Text: "Print the effective values, secrets masked."}},
				Run: func(s command.Streams, a control.Arguments) error {
					return (&checkCmd{instanceOf(a), switched(a, "print")}).Run(s)
				},
			},
			{
				Name: "settings", Text: "Print every setting that there is, with its default and its meaning.",
				Parameters: []control.Parameter{{Name: "key", Kind: control.Kind{Placeholder: "TEXT"}, Positional: true, Text: "Only settings whose file, section or key contains TEXT."}},
				Run:        func(s command.Streams, a control.Arguments) error { return printSettings(s, a.Text("key")) },
				Complete:   settingNames,
			},
			{Name: "plugins", Text: "Print which plugins run at which hook, in order, with priority and timeout.", Parameters: configs, Run: printPlugins},
		},
		operations(),
		migrations(),
		keyCommands(),
		[]command.Command{domainCommand(), sessionCommand()},
		[]command.Command{
			{Name: "metrics", Text: "Print the daemon's metrics, as Prometheus reads them.", Parameters: configs, Run: printMetrics},
			{
				Name: "completion", Text: "Print a script with which a shell completes commands, flags and the names of settings.",
				Parameters: []control.Parameter{{
					Name: "shell", Kind: control.Kind{Placeholder: "SHELL", Values: command.Shells()}, Positional: true, Required: true,
					Text: strings.Join(command.Shells(), ", ") + ": the first lines of the script say how it is loaded.",
				}},
				Run: func(s command.Streams, a control.Arguments) error {
					return commands().PrintCompletion(s.Out, a.Text("shell"))
				},
			},
			{Name: "version", Text: "Print the version.", Run: printVersion},
			{Name: "qlist", Text: "Print the queue as haraka --qlist prints it.", Hidden: true, Parameters: configs, Run: printHarakaList},
			{Name: "qstat", Text: "Print the queue as haraka --qstat prints it.", Hidden: true, Parameters: configs, Run: printHarakaCount},
		},
	)
}

// run executes one command line and returns its exit code.
func run(line []string, s command.Streams) int {
	all := commands()
	line = harakaOptions(line)
	if isHelp(line[0]) {
		all.PrintHelp(s.Out, "")
		return exitOK
	}

	// Help for a group of commands is help for no command.
	c, rest, group, err := all.Find(line)
	if c == nil {
		if group != "" && slices.ContainsFunc(rest, isHelp) {
			all.PrintHelp(s.Out, group)
			return exitOK
		}
		return reportMisuse(s, err)
	}
	a, err := all.Parse(c, rest)
	switch {
	case errors.Is(err, command.ErrHelp):
		all.PrintCommand(s.Out, c)
		return exitOK
	case err != nil:
		return reportMisuse(s, err)
	}

	// Only the daemon outlives its terminal.
	if c.Name != all.Default {
		hangup.Release()
	}

	// Wrong usage has its own code: nothing was done then.
	switch err := c.Run(s, a); {
	case err == nil:
		return exitOK
	case errors.Is(err, errReported):
	case errors.Is(err, control.ErrInvalid):
		fmt.Fprintln(s.Err, "tarishi:", err)
		return exitUsage
	default:
		fmt.Fprintln(s.Err, "tarishi:", err)
	}
	return exitFailure
}

// isHelp reports whether a word asks for help.
func isHelp(word string) bool { return word == "--"+command.Help || word == "-h" }

// reportMisuse reports a line that is no command.
func reportMisuse(s command.Streams, err error) int {
	fmt.Fprintf(s.Err, "tarishi: %v\nTry 'tarishi --help'.\n", err)
	return exitUsage
}

type serveCmd struct {
	instance
}

// Run starts the daemon and returns when it has stopped. From here on everything
// goes through the log's buffer: nobody waits for the reader of standard error, and
// a reader that goes away ends nothing.
func (c *serveCmd) Run(s command.Streams) error {
	// The log may be a pipe that breaks.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE) // else it is fatal for standard error; see os/signal
	defer signal.Stop(broken)
	cfg, problems, err := c.load()
	if err != nil {
		return err
	}
	w := maillog.NewWriter(s.Err)
	defer w.Close()
	if err := c.serve(cfg, problems, w, s.Title); err != nil {
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
func (c *initCmd) Run(s command.Streams) error {
	wrote, kept, err := server.Init(c.Dir, config.FS)
	for _, f := range wrote {
		fmt.Fprintln(s.Out, "wrote", f)
	}
	for _, f := range kept {
		fmt.Fprintln(s.Out, "kept ", f)
	}
	return err
}

type checkCmd struct {
	instance
	Print bool // the effective values, too
}

// Run reports the problems of the configuration: the warnings, then the errors,
// then how many there are of each.
func (c *checkCmd) Run(s command.Streams) error {
	cfg, problems, err := c.load()
	if err != nil {
		return err
	}
	if c.Print {
		cfg.Print(s.Out)
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
		fmt.Fprintln(s.Err, line)
	}

	// Warnings alone leave the exit code as it is.
	count := terminal.FormatCount(len(errs), "error") + ", " + terminal.FormatCount(len(warnings), "warning")
	switch {
	case len(errs) > 0:
		fmt.Fprintln(s.Err, count)
		return errReported
	case len(warnings) > 0:
		fmt.Fprintln(s.Err, count+": the configuration is good")
	default:
		fmt.Fprintln(s.Err, "the configuration is good")
	}
	return nil
}

// printPlugins prints the effective order of every hook.
func printPlugins(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	return server.PrintHooks(s.Out, cfg)
}

// printMetrics prints the daemon's metrics.
func printMetrics(s command.Streams, a control.Arguments) error {
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
	_, err = io.Copy(s.Out, all)
	return err
}

// printVersion prints the version.
func printVersion(s command.Streams, _ control.Arguments) error {
	_, err := fmt.Fprintf(s.Out, "tarishi %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	return err
}

// switched reports whether a switch is on.
func switched(a control.Arguments, name string) bool { return a.Text(name) == "true" }
