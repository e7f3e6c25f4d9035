package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
	"tarishi/internal/terminal"
)

// PrintMessages prints a line for each message, and the totals.
func PrintMessages(o *control.Output) (item func(*Message), end func()) {
	messages, size := 0, int64(0)
	item = func(m *Message) {
		if messages == 0 {
			fmt.Fprintf(o, rowFormat, "ID", "AGE", "SIZE", "FROM", "TO", "NEXT", "TRIES", "LAST REPLY")
		}
		messages++
		size += m.Size
		printRow(o, m, o.Now)
	}
	end = func() {
		if messages == 0 {
			fmt.Fprintln(o, "no message")
			return
		}
		fmt.Fprintf(o, "%s, %s\n", terminal.FormatCount(messages, "message"), terminal.FormatSize(size))
	}
	return item, end
}

// rowFormat is a line of the list. Text wider than its column moves the rest
// to the right: an address must be legible to the end.
const rowFormat = "%-38s %5s %6s  %-26s %-26s %-7s %5s  %s\n"

// maxReply is how much of a reply a list shows, in characters.
const maxReply = 60

func printRow(w io.Writer, m *Message, now time.Time) {
	if m.Unreadable != "" {
		fmt.Fprintf(w, "%-38s cannot be read: %s\n", m.ID, terminal.Printable(m.Unreadable))
		return
	}

	// The line has room for one recipient: the first one's address, the earliest
	// time of all that are not held, the most attempts, and the first reply.
	to, next, tries, last := "", time.Time{}, 0, ""
	held := len(m.Recipients) > 0 // all of them
	for _, r := range m.Recipients {
		at := r.Next
		if r.Probe.After(at) {
			at = r.Probe
		}
		if !r.Held && (held || at.Before(next)) {
			next, held = at, false
		}
		tries = max(tries, r.Attempts)
		if last == "" {
			last = r.Last
		}
	}
	if n := len(m.Recipients); n > 0 {
		to = m.Recipients[0].Address.String()
		if n > 1 {
			to += fmt.Sprintf(" +%d", n-1)
		}
	}
	due := terminal.FormatDue(next, now)
	if held {
		due = "held"
	}
	fmt.Fprintf(w, rowFormat, m.ID, terminal.FormatSpan(now.Sub(m.Received)), terminal.FormatSize(m.Size), terminal.Printable(m.From.Path()),
		terminal.Printable(to), due, fmt.Sprint(tries), terminal.Shorten(terminal.Printable(last), maxReply))
}

// PrintMessage prints envelope, recipients and header section.
func PrintMessage(o *control.Output) (item func(*Message), end func()) {
	return func(m *Message) {
		printEnvelope(o, m, o.Now)
		for i := range m.Recipients {
			printRecipient(o, &m.Recipients[i], o.Now)
		}
		fmt.Fprintln(o)
		printHeader(o, m)
	}, func() {}
}

func printEnvelope(w io.Writer, m *Message, now time.Time) {
	fmt.Fprintf(w, "id          %s\nfrom        %s\nreceived    %s, %s ago\nsize        %d\n",
		m.ID, terminal.Printable(m.From.Path()), terminal.FormatTime(m.Received), terminal.FormatSpan(now.Sub(m.Received)), m.Size)
	if p := formatParameters(m); p != "" {
		fmt.Fprintf(w, "parameters  %s\n", terminal.Printable(p))
	}
	fmt.Fprintln(w, "recipients")
}

func printRecipient(w io.Writer, r *Recipient, now time.Time) {
	fmt.Fprintf(w, "  %s  %s", terminal.Printable(r.Address.Path()), terminal.Printable(r.Status))
	if r.Status == Pending {
		// The later of two obstacles is shown: the hold, then the suspension.
		next := "next " + terminal.FormatDue(r.Next, now)
		if !r.Probe.IsZero() {
			next = "its destination is suspended, next probe " + terminal.FormatDue(r.Probe, now)
		}
		if r.Held {
			next = "held"
		}
		fmt.Fprintf(w, ", %s, %s", terminal.FormatCount(r.Attempts, "attempt"), next)
	}
	if r.Notify != 0 {
		fmt.Fprintf(w, ", NOTIFY=%s", formatNotify(r.Notify))
	}
	if r.ORCPT != "" {
		fmt.Fprintf(w, ", ORCPT=%s", terminal.Printable(r.ORCPT))
	}
	fmt.Fprintln(w)
	if r.Last != "" {
		fmt.Fprintf(w, "      %s\n", terminal.Printable(r.Last))
	}
}

// printHeader prints a header section with its tabs: folded lines begin with them.
func printHeader(w io.Writer, m *Message) {
	for line := range strings.Lines(m.Header) {
		// A tab is harmless, and common in folded lines.
		parts := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		for i := range parts {
			parts[i] = terminal.Printable(parts[i])
		}
		fmt.Fprintln(w, strings.Join(parts, "\t"))
	}
	// The daemon sends no more than a MiB of it.
	if m.HeaderCut {
		fmt.Fprintln(w, "(the header section goes on)")
	}
}

// formatParameters returns what the envelope has beside addresses, as MAIL said it.
func formatParameters(m *Message) string {
	// In the order of RFC 6152, 6531, 8689 and 3461.
	var all []string
	add := func(set bool, text string) {
		if set {
			all = append(all, text)
		}
	}
	add(m.Body != "", "BODY="+m.Body)
	add(m.UTF8, "SMTPUTF8")
	add(m.RequireTLS, "REQUIRETLS")
	add(m.TLSOptional, "TLS-Required: No")
	add(m.Return != "", "RET="+m.Return)
	add(m.EnvelopeID != "", "ENVID="+m.EnvelopeID)
	return strings.Join(all, " ")
}

func formatNotify(n mail.Notify) string {
	var all []string
	for i, name := range []string{"SUCCESS", "FAILURE", "DELAY", "NEVER"} {
		if n&(1<<i) != 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ",")
}
