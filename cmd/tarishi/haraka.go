package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"slices"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/control/mailq"
	"tarishi/internal/control/view"
	"tarishi/internal/terminal"
)

// harakaOptions turns what haraka takes as options into commands. Without a word
// it is asked for help: to start a daemon takes a folder or the word serve.
func harakaOptions(args []string) []string {
	if len(args) == 0 || args[0] == "help" {
		return []string{"--help"}
	}
	options := map[string][]string{
		"--qlist": {"qlist"}, "--qstat": {"qstat"}, "--qunstick": {"queue", "flush"}, "--version": {"version"}, "-v": {"version"},
	}

	// They may stand before or behind the others.
	for i, a := range args {
		if command, ok := options[a]; ok {
			return slices.Concat(command, args[:i], args[i+1:])
		}
	}
	return args
}

// printHarakaList lists the queue as Haraka does, a line for each file that Haraka would
// have.
func printHarakaList(s command.Streams, a control.Arguments) error {
	c, _, err := instanceOf(a).reachQueue(s, true)
	if err != nil {
		return err
	}
	defer c.Close()
	out := bufio.NewWriter(s.Out)
	err = control.Each(context.Background(), c, mailq.Row("queue list"), nil, func(m *view.Message) error {
		// Haraka has a file for each domain of a message.
		var order []string
		recipients := map[string]int{}
		for _, r := range m.Recipients {
			host := r.Address.Host()
			if recipients[host] == 0 {
				order = append(order, host)
			}
			recipients[host]++
		}
		for _, host := range order {
			_, err := fmt.Fprintf(out, "Q: %s rcpt:%d from:%s domain:%s\n", m.ID, recipients[host], terminal.Printable(m.From.Path()), terminal.Printable(host))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, out.Flush())
}

// printHarakaCount counts the queue as Haraka does: the lines of qlist.
func printHarakaCount(s command.Streams, a control.Arguments) error {
	c, dir, err := instanceOf(a).reachQueue(s, true)
	if err != nil {
		return err
	}
	defer c.Close()

	// The sum counts a message for each of its domains, as its files would.
	n := 0
	err = control.Each(context.Background(), c, mailq.Row("queue stat"), control.Arguments{"destinations": {"1"}}, func(st *view.Stat) error {
		for _, d := range st.Destinations {
			n += d.Messages
		}
		if st.Others != nil {
			n += st.Others.Messages
		}
		return nil
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(s.Out, "{ queue_dir: '%s', queue_count: %d }\n", terminal.Printable(dir), n)
	return err
}
