package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"text/tabwriter"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/conf"
	"tarishi/internal/hook"
	"tarishi/internal/ini"
	"tarishi/internal/plugin"
	"tarishi/internal/privilege"
	"tarishi/internal/tlsconf"
)

// Check builds what can be built without touching queue or network: the user to
// run as, plugins and certificates. The error is what New would fail with; the warnings are of
// certificates that expire.
func Check(cfg *conf.Config) (ini.Problems, error) {
	if _, err := privilege.Find(cfg.User, cfg.Group); err != nil {
		return nil, err
	}
	if _, err := checkPlugins(cfg); err != nil {
		return nil, err
	}

	// The files are read as at a start, but nothing is kept.
	files := tlsconf.New(nil)
	if _, err := serverTLS(cfg, files); err != nil && !errors.Is(err, fs.ErrNotExist) { // conf reports missing files, with their lines
		return nil, err
	}
	for _, out := range []tlsconf.Outbound{cfg.TLS.Outbound, cfg.Forward.TLS} {
		if _, err := files.Client(out); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return files.Expiring(time.Now()), nil
}

// checkPlugins makes the plugins of a configuration outside of a daemon.
func checkPlugins(cfg *conf.Config) (*plugin.Set, error) {
	return newLoader(plugin.Services{Log: zap.NewNop()}).Load(pluginConfig(cfg))
}

// PrintHooks writes for each hook the handlers that run, in order, and then what signs
// messages.
func PrintHooks(w io.Writer, cfg *conf.Config) error {
	set, err := checkPlugins(cfg)
	if err != nil {
		return err
	}
	chain := hook.NewChain(set.Registrations(), zap.NewNop())

	// In protocol order, as Haraka prints them.
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "HOOK\tPLUGIN\tFUNCTION\tPRIORITY\tTIMEOUT")
	for _, p := range hook.Points() {
		for _, reg := range chain.Order(p) {
			timeout := "none"
			if reg.Timeout > 0 {
				timeout = reg.Timeout.String()
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\n", p, reg.Plugin, reg.Function, reg.Priority, timeout)
		}
	}
	for _, seal := range set.Seals() { // behind all hooks, when nothing changes a message any more
		fmt.Fprintf(t, "(seal)\t%s\t%s\t\tnone\n", seal[0], seal[1])
	}
	return t.Flush()
}
