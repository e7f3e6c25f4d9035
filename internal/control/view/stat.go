package view

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/terminal"
)

// PrintStat prints the totals and the daemon's health.
func PrintStat(o *control.Output) (item func(*Stat), end func()) {
	return func(s *Stat) {
		printDaemon(o, s, o.Now)
		printTotals(o, s)
		printTop(o, s)
	}, func() {}
}

func printDaemon(w io.Writer, s *Stat, now time.Time) {
	if s.Deliveries == nil {
		fmt.Fprintln(w, "daemon      not running")
		return
	}
	// Health is the first thing to look for, and stands on top.
	state := "running"
	if s.Stopping {
		state = "stopping"
	}
	fmt.Fprintf(w, "daemon      %s\nhealth      %s\n", state, terminal.Printable(s.Health))
	for _, n := range s.Notes {
		fmt.Fprintf(w, "note        %s\n", terminal.Printable(n))
	}
	if s.Configuration != nil {
		printConfiguration(w, s.Configuration, now)
	}
}

func printTotals(o *control.Output, st *Stat) {
	fmt.Fprintf(o, "messages    %d, %s\nrecipients  %d\n", st.Messages, terminal.FormatSize(st.Bytes), st.Recipients)
	if st.Unreadable > 0 {
		fmt.Fprintf(o, "unreadable  %s, see list\n", terminal.FormatCount(st.Unreadable, "message"))
	}
	if st.Held > 0 {
		fmt.Fprintf(o, "held        %s\n", terminal.FormatCount(st.Held, "recipient"))
	}
	if d := st.Deliveries; d != nil {
		fmt.Fprintf(o, "deliveries  %d waiting, %d ready, %d running", d.Waiting, d.Ready, d.Running)
		if d.Suspended > 0 {
			fmt.Fprintf(o, ", %d for suspended destinations", d.Suspended)
		}
		fmt.Fprintln(o)
	}

	// These are silent while all is well.
	if n := st.DSNs; n != nil && n.Failed > 0 {
		fmt.Fprintf(o, "reports     %d could not be queued\n", n.Failed)
	}
	if !st.Oldest.IsZero() {
		fmt.Fprintf(o, "oldest      %s, received %s\n", terminal.FormatSpan(o.Now.Sub(st.Oldest)), terminal.FormatTime(st.Oldest))
	}
}

func printTop(o *control.Output, st *Stat) {
	if len(st.Destinations) == 0 {
		return
	}
	fmt.Fprintf(o, "\n%8s %10s  %s\n", "MESSAGES", "RECIPIENTS", "DESTINATION")
	for _, d := range st.Destinations {
		fmt.Fprintf(o, "%8d %10d  %s\n", d.Messages, d.Recipients, terminal.Printable(d.Domain))
	}
	if rest := st.Others; rest != nil {
		fmt.Fprintf(o, "%8d %10d  (all others)\n", rest.Messages, rest.Recipients)
	}
}

// destinationFormat is a line of the list of destinations.
const destinationFormat = "%7s %7s %7s %6s %6s %9s  %-30s %s\n"

// PrintDestinations prints a line for each destination, and its troubles.
func PrintDestinations(o *control.Output) (item func(*DestinationState), end func()) {
	none := true
	item = func(d *DestinationState) {
		if none {
			fmt.Fprintf(o, destinationFormat, "WAITING", "READY", "RUNNING", "OLDEST", "LIMIT", "RATE", "DESTINATION", "SITE")
		}
		none = false
		printDestination(o, d, o.Now)
	}
	end = func() {
		if none {
			fmt.Fprintln(o, "no delivery")
		}
	}
	return item, end
}

func printDestination(w io.Writer, d *DestinationState, now time.Time) {
	oldest, limit, rate, site := "-", "-", "-", ""
	if !d.Oldest.IsZero() {
		oldest = terminal.FormatSpan(now.Sub(d.Oldest))
	}
	if d.Limit > 0 {
		limit = strconv.Itoa(d.Limit)
	}
	if d.Rate != "" {
		rate = d.Rate
	}
	if d.Site != d.Domain {
		site = terminal.Printable(d.Site)
	}

	// Most domains are sites of their own, and would end in blanks.
	row := fmt.Sprintf(destinationFormat, strconv.Itoa(d.Waiting), strconv.Itoa(d.Ready), strconv.Itoa(d.Running), oldest, limit, rate, terminal.Printable(d.Domain), site)
	fmt.Fprintln(w, strings.TrimRight(row, " \n"))
	if !d.SuspendedUntil.IsZero() {
		fmt.Fprintf(w, "    suspended, next probe %s\n", terminal.FormatDue(d.SuspendedUntil, now))
	}
	if d.LastError != "" {
		fmt.Fprintf(w, "    %s\n", terminal.Printable(d.LastError))
	}
}

// PrintDeliveries prints what each delivery waits for.
func PrintDeliveries(o *control.Output) (item func(*Delivery), end func()) {
	none := true
	item = func(d *Delivery) {
		none = false
		fmt.Fprintf(o, "%s  %s, %s: %s\n", terminal.Printable(d.Domain), terminal.FormatCount(len(d.Recipients), "recipient"), terminal.FormatCount(d.Attempts, "attempt"), terminal.Printable(d.Reason))
		if d.Host != "" {
			fmt.Fprintf(o, "    with %s\n", terminal.Printable(d.Host))
		}
		if d.Last != "" {
			fmt.Fprintf(o, "    last reply: %s\n", terminal.Printable(d.Last))
		}
	}
	end = func() {
		if none {
			fmt.Fprintln(o, "no delivery is scheduled: the daemon has not come to this message since it started, or it is just done with")
		}
	}
	return item, end
}
