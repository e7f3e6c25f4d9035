package main

import (
	"bufio"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
)

type queueDestinationsCmd struct {
	instance
	output
	Limit int `default:"20" placeholder:"N" help:"Tell of so many at most, 1 to 1000; 20 unless told."`
}

// Run tells how delivery to each destination goes.
func (c *queueDestinationsCmd) Run(s streams) error {
	if c.Limit < 1 {
		return errLimit
	}
	q, err := c.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	all, err := q.Destinations(context.Background(), c.Limit)
	if err != nil {
		return err
	}
	out := bufio.NewWriter(s.out)
	now := time.Now()
	if !c.JSON && len(all) > 0 {
		fmt.Fprintf(out, destinationFormat, "WAITING", "READY", "RUNNING", "OLDEST", "LIMIT", "RATE", "DESTINATION", "SITE")
	}
	for _, d := range all {
		if c.JSON {
			if err := writeJSON(out, d); err != nil {
				return err
			}
			continue
		}
		oldest, limit, rate, site := "-", "-", "-", ""
		if !d.Oldest.IsZero() {
			oldest = span(now.Sub(d.Oldest))
		}
		if d.Limit > 0 {
			limit = strconv.Itoa(d.Limit)
		}
		if d.Rate != "" {
			rate = d.Rate
		}
		if d.Site != d.Domain {
			site = printable(d.Site)
		}
		row := fmt.Sprintf(destinationFormat, strconv.Itoa(d.Waiting), strconv.Itoa(d.Ready), strconv.Itoa(d.Running), oldest, limit, rate, printable(d.Domain), site)
		fmt.Fprintln(out, strings.TrimRight(row, " \n"))
		if !d.SuspendedUntil.IsZero() {
			fmt.Fprintf(out, "    suspended, next probe %s\n", until(d.SuspendedUntil, now))
		}
		if d.LastError != "" {
			fmt.Fprintf(out, "    %s\n", printable(d.LastError))
		}
	}
	if !c.JSON && len(all) == 0 {
		fmt.Fprintln(out, "no delivery")
	}
	return out.Flush()
}

// destinationFormat is a line of the list.
const destinationFormat = "%7s %7s %7s %6s %6s %9s  %-30s %s\n"

type queueWhyCmd struct {
	instance
	output
	ID string `arg:"" help:"The message, as list prints it."`
}

// Run tells what a message waits for.
func (c *queueWhyCmd) Run(s streams) error {
	q, err := c.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	all, err := q.Why(context.Background(), mail.ID(c.ID))
	if err != nil {
		return about(c.ID, err)
	}
	out := bufio.NewWriter(s.out)
	if !c.JSON && len(all) == 0 {
		fmt.Fprintln(out, "no delivery is scheduled: the daemon has not come to this message since it started, or it is just done with")
	}
	for _, d := range all {
		if c.JSON {
			if err := writeJSON(out, d); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "%s  %s, %s: %s\n", printable(d.Domain), plural(len(d.Recipients), "recipient"), plural(d.Attempts, "attempt"), printable(d.Reason))
		if d.Host != "" {
			fmt.Fprintf(out, "    with %s\n", printable(d.Host))
		}
		if d.Last != "" {
			fmt.Fprintf(out, "    last reply: %s\n", printable(d.Last))
		}
	}
	return out.Flush()
}

type queueHoldCmd struct {
	instance
	output
	IDs []string `arg:"" name:"id" help:"The messages, as list prints them."`
}

// Run holds messages.
func (c *queueHoldCmd) Run(s streams) error {
	return c.steer(s, c.JSON, c.IDs, true, (*control.Client).Hold)
}

type queueReleaseCmd struct {
	instance
	output
	IDs []string `arg:"" name:"id" help:"The messages, as list prints them."`
}

// Run releases messages.
func (c *queueReleaseCmd) Run(s streams) error {
	return c.steer(s, c.JSON, c.IDs, false, (*control.Client).Release)
}

// steered is what hold and release say of one message.
type steered struct {
	ID    string `json:"id"`
	Held  *bool  `json:"held,omitempty"` // absent: Error says why
	Error string `json:"error,omitempty"`
}

// steer holds several messages, or releases them. One that fails does not keep
// the others.
func (i instance) steer(s streams, asJSON bool, ids []string, hold bool, do func(*control.Client, context.Context, mail.ID) error) error {
	q, err := i.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	failed := false
	for _, id := range ids {
		err := do(q, context.Background(), mail.ID(id))
		failed = failed || err != nil
		switch {
		case asJSON && err != nil:
			err = writeJSON(s.out, steered{ID: id, Error: err.Error()})
		case asJSON:
			err = writeJSON(s.out, steered{ID: id, Held: &hold})
		case err != nil:
			_, err = fmt.Fprintln(s.err, "tarishi:", about(id, err))
		case hold:
			_, err = fmt.Fprintln(s.out, "held", id)
		default:
			_, err = fmt.Fprintln(s.out, "released", id)
		}
		if err != nil {
			return err
		}
	}
	if failed {
		return errReported
	}
	return nil
}
