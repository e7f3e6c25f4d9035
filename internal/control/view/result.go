package view

import (
	"errors"
	"fmt"
	"strings"

	"tarishi/internal/control"
	"tarishi/internal/mail"
	"tarishi/internal/terminal"
)

// Removal is what became of one message that was to be removed.
type Removal struct {
	ID      mail.ID `json:"id"`
	Removed bool    `json:"removed"`
	Error   string  `json:"error,omitempty"`

	err error
}

// Failure implements control.Failure.
func (r *Removal) Failure() error { return rebuildError(r.err, r.Error) }

// NewRemoval returns what became of a message: it was removed if err is nil.
func NewRemoval(id mail.ID, err error) *Removal {
	return &Removal{ID: id, Removed: err == nil, Error: errorText(err), err: err}
}

// Holding is what became of one message that was to be held or released.
type Holding struct {
	ID    mail.ID `json:"id"`
	Held  *bool   `json:"held,omitempty"` // nil: Error says why
	Error string  `json:"error,omitempty"`

	err error
}

// Failure implements control.Failure.
func (h *Holding) Failure() error { return rebuildError(h.err, h.Error) }

// NewHolding returns what became of a message: it is held, or not any more, if err
// is nil.
func NewHolding(id mail.ID, held bool, err error) *Holding {
	h := &Holding{ID: id, Error: errorText(err), err: err}
	if err == nil {
		h.Held = &held
	}
	return h
}

// Flushed is how many deliveries became due.
type Flushed struct {
	Deliveries int `json:"deliveries"`
}

// rebuildError returns the error of an element: itself in this process, and made of its text
// if that came from the daemon.
func rebuildError(err error, text string) error {
	if err != nil || text == "" {
		return err
	}

	// So that errors.Is holds on both sides of the socket.
	for _, known := range []error{control.ErrUnknown, control.ErrInvalid} {
		if rest, ok := strings.CutPrefix(text, known.Error()); ok {
			return fmt.Errorf("%w%s", known, rest)
		}
	}
	return errors.New(text)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// PrintRemovals prints what was removed, and what could not be.
func PrintRemovals(o *control.Output) (item func(*Removal), end func()) {
	report, end := printDone(o)
	return func(r *Removal) { report("removed", string(r.ID), r.Error) }, end
}

// PrintHoldings prints what was held or released, and what could not be.
func PrintHoldings(o *control.Output) (item func(*Holding), end func()) {
	report, end := printDone(o)
	return func(h *Holding) {
		done := "released"
		if h.Held != nil && *h.Held {
			done = "held"
		}
		report(done, string(h.ID), h.Error)
	}, end
}

// printDone prints a line for each message that something was done to; failures go
// to the other stream.
func printDone(o *control.Output) (report func(done, id, failed string), end func()) {
	none := true
	report = func(done, id, failed string) {
		none = false
		switch {
		case failed == "":
			fmt.Fprintln(o, done, id)
		case strings.HasPrefix(failed, control.ErrInvalid.Error()): // it has the ID
			fmt.Fprintln(o.Err, "tarishi:", terminal.Printable(failed))
		default:
			fmt.Fprintf(o.Err, "tarishi: %s: %s\n", id, terminal.Printable(failed))
		}
	}
	end = func() {
		if none {
			fmt.Fprintln(o, "no message")
		}
	}
	return report, end
}

// PrintFlushed prints how many deliveries became due.
func PrintFlushed(o *control.Output) (item func(*Flushed), end func()) {
	return func(f *Flushed) {
		if f.Deliveries == 1 {
			fmt.Fprintln(o, "1 delivery is due now")
			return
		}
		fmt.Fprintf(o, "%d deliveries are due now\n", f.Deliveries)
	}, func() {}
}
