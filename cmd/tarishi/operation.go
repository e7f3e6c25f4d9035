package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/terminal"
)

// operations returns the commands that control's table has.
func operations() []command.Command {
	rows := mailq.Rows()
	all := make([]command.Command, len(rows))
	for i := range rows {
		op := &rows[i]
		all[i] = command.Command{
			Name: op.Name, Text: op.Text, Parameters: append([]control.Parameter{configsFlag, jsonFlag}, op.Parameters...),
			Run: func(s command.Streams, a control.Arguments) error { return perform(s, op, a) },
		}
	}
	return all
}

// reachQueue returns what performs operations on the queue of an instance. If only the
// files are there, and they will do, it says so on stderr.
func (i instance) reachQueue(s command.Streams, files bool) (c control.Caller, dir string, err error) {
	cfg, _, err := i.load()
	if err != nil {
		return nil, "", err
	}

	// Files are only read where the answer can be found in them.
	if !files {
		c, err = control.Dial(context.Background(), cfg.QueueDir)
		return c, cfg.QueueDir, err
	}
	c, stopped, err := mailq.Open(context.Background(), cfg.QueueDir, s.Err)
	if err == nil && stopped {
		fmt.Fprintln(s.Err, "tarishi: no daemon answers, this is from the files")
	}
	return c, cfg.QueueDir, err
}

// perform performs an operation and prints its answer.
func perform(s command.Streams, op *control.Operation, in control.Arguments) error {
	c, _, err := instanceOf(in).reachQueue(s, op.Files)
	if err != nil {
		return err
	}
	defer c.Close()

	// Checked behind the connection: a wrong value is reported beside the note
	// that this is from the files, not instead of it.
	a := without(in, configsFlag.Name, jsonFlag.Name)
	for _, p := range op.Parameters {
		if p.Preset != "" {
			a[p.Name] = []string{p.Preset}
		}
	}
	if err := op.Check(a, "--"); err != nil {
		return err
	}

	// Elements are printed as they come: a list may be longer than memory.
	out := &control.Output{Writer: bufio.NewWriter(s.Out), Err: s.Err}
	asJSON, failed := switched(in, jsonFlag.Name), false
	item, end := op.Print(out)
	err = c.Call(context.Background(), op, a, func(v any) error {
		if f, ok := v.(control.Failure); ok && f.Failure() != nil {
			failed = true
		}
		if b, ok := v.(*control.Bytes); ok {
			return writeContent(out, a.Text("id"), b, asJSON)
		}
		if out.Now.IsZero() { // the answer may have been waited for
			out.Now = time.Now()
		}
		if asJSON {
			return terminal.WriteJSON(out, v)
		}
		item(v)
		_, err := out.Write(nil) // ends a list that nobody reads any more
		return err
	})

	// What was printed before a failure stays printed, without totals.
	switch {
	case err != nil:
		err = withSubject(op, a, err)
	case !asJSON && end != nil:
		end()
	}
	if err = errors.Join(err, out.Flush()); err == nil && failed {
		err = errReported
	}
	return err
}

// withSubject adds the message or domain that an error is about.
func withSubject(op *control.Operation, a control.Arguments, err error) error {
	if errors.Is(err, control.ErrInvalid) { // its text has it
		return err
	}
	// Results about several messages have their IDs themselves.
	for _, p := range op.Parameters {
		if p.Positional && !p.Several && a.Text(p.Name) != "" {
			return fmt.Errorf("%s: %w", a.Text(p.Name), err)
		}
	}
	return err
}

// writeContent writes a message as it is or, since it need not be text, as base64
// in an object.
func writeContent(out *control.Output, id string, b *control.Bytes, asJSON bool) error {
	if !asJSON {
		_, err := io.Copy(out, b)
		return err
	}
	fmt.Fprintf(out, `{"id":%q,"size":%d,"content":"`, id, b.Size)
	text := base64.NewEncoder(base64.StdEncoding, out)
	if _, err := io.Copy(text, b); err != nil {
		return err // the line is cut off, and no JSON
	}
	text.Close()
	_, err := fmt.Fprintln(out, `"}`)
	return err
}

// without returns the arguments that are not of these names.
func without(a control.Arguments, names ...string) control.Arguments {
	a = maps.Clone(a)
	for _, name := range names {
		delete(a, name)
	}
	return a
}
