package view

import (
	"errors"
	"fmt"
	"io"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/terminal"
)

// Configuration is the configuration that the daemon works with, and what became of the
// last change of its files.
type Configuration struct {
	Generation int64     `json:"generation"` // 1 after the start, one more with each reload that changed something
	Since      time.Time `json:"since"`
	Failures   int64     `json:"failures"`           // reloads that were refused since the start
	Problems   []string  `json:"problems,omitempty"` // why the last one was refused
}

// Reload is what became of a reload.
type Reload struct {
	Generation int64    `json:"generation"`         // in force now
	Changed    bool     `json:"changed"`            // it is a new one
	Problems   []string `json:"problems,omitempty"` // why the reload was refused; none: it was not
	Warnings   []string `json:"warnings,omitempty"`
}

// errRefused is the failure of a Reload. Its problems say more.
var errRefused = errors.New("reload refused")

// Failure implements control.Failure.
func (r *Reload) Failure() error {
	if len(r.Problems) > 0 {
		return errRefused
	}
	return nil
}

// PrintReload prints the generation, and on the other stream what is wrong.
func PrintReload(o *control.Output) (item func(*Reload), end func()) {
	return func(r *Reload) {
		for _, text := range r.Warnings {
			fmt.Fprintln(o.Err, terminal.Printable(text))
		}
		for _, text := range r.Problems {
			fmt.Fprintln(o.Err, terminal.Printable(text))
		}
		switch {
		case len(r.Problems) > 0:
			fmt.Fprintf(o.Err, "reload refused: %s, generation %d stays in force\n", terminal.FormatCount(len(r.Problems), "problem"), r.Generation)
		case r.Changed:
			fmt.Fprintf(o, "generation %d\n", r.Generation)
		default:
			fmt.Fprintf(o, "nothing changed, generation %d\n", r.Generation)
		}
	}, func() {}
}

// printConfiguration prints the state of the configuration among the totals.
func printConfiguration(w io.Writer, c *Configuration, now time.Time) {
	fmt.Fprintf(w, "config      generation %d, in force for %s", c.Generation, terminal.FormatSpan(now.Sub(c.Since)))
	if c.Failures > 0 {
		fmt.Fprintf(w, "; %s refused", terminal.FormatCount(int(c.Failures), "reload"))
	}
	fmt.Fprintln(w)
	for _, text := range c.Problems {
		fmt.Fprintf(w, "refused     %s\n", terminal.Printable(text))
	}
}
