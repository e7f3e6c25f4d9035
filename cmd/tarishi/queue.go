package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/mail"
)

type queueCmd struct {
	List         queueListCmd         `cmd:"" help:"List the messages in the queue."`
	Stat         queueStatCmd         `cmd:"" help:"Count what is in the queue, and say how the daemon does."`
	Show         queueShowCmd         `cmd:"" help:"Show a message's envelope, its recipients and its header section."`
	Cat          queueCatCmd          `cmd:"" help:"Write a message as it will be sent, byte by byte."`
	Why          queueWhyCmd          `cmd:"" help:"Say what each delivery of a message waits for."`
	Destinations queueDestinationsCmd `cmd:"" help:"Say how delivery to each destination goes: limits, rates, suspensions."`
	Hold         queueHoldCmd         `cmd:"" help:"Keep messages from being attempted until they are released."`
	Release      queueReleaseCmd      `cmd:"" help:"Let messages go on that were held."`
	Flush        queueFlushCmd        `cmd:"" help:"Make deferred deliveries due now: all, those to one domain, or those of one message."`
	Remove       queueRemoveCmd       `cmd:"" help:"Take messages out of the queue. Nobody is told."`
	Recover      queueRecoverCmd      `cmd:"" help:"Bring messages back from queue/corrupt/ that can be read by now. The daemon must not run."`
	Import       queueImportCmd       `cmd:"" help:"Import Haraka's queue folder. The daemon must not run."`
	Export       queueExportCmd       `cmd:"" help:"Write the queue as Haraka's queue files. The daemon must not run."`
}

// harakaOptions turns what haraka takes as options into commands. Without a word
// it is asked for help: to start a daemon takes a folder or the word serve.
func harakaOptions(args []string) []string {
	if len(args) == 0 || args[0] == "help" {
		return []string{"--help"}
	}
	options := map[string][]string{
		"--qlist": {"qlist"}, "--qstat": {"qstat"}, "--qunstick": {"queue", "flush"}, "--version": {"version"}, "-v": {"version"},
	}
	for i, a := range args {
		if command, ok := options[a]; ok {
			return slices.Concat(command, args[:i], args[i+1:])
		}
	}
	return args
}

// look reaches the queue of an instance to read it. It says so on stderr when
// that means the files and not the daemon.
func (i instance) look(s streams) (q control.Commands, dir string, err error) {
	cfg, _, err := i.load()
	if err != nil {
		return nil, "", err
	}
	q, err = control.Open(context.Background(), cfg.QueueDir, s.err)
	if err != nil {
		return nil, "", err
	}
	if _, files := q.(*control.Local); files {
		fmt.Fprintln(s.err, "tarishi: no daemon answers, this is from the files")
	}
	return q, cfg.QueueDir, nil
}

// daemon reaches the daemon of an instance.
func (i instance) daemon() (*control.Client, error) {
	cfg, _, err := i.load()
	if err != nil {
		return nil, err
	}
	return control.Dial(context.Background(), cfg.QueueDir)
}

// output says whether results are for people or for programs.
type output struct {
	JSON bool `name:"json" help:"Print one JSON object a line."`
}

type queueListCmd struct {
	instance
	output
	Domain *string `placeholder:"DOMAIN" help:"Only messages with a waiting recipient in this domain."`
	Sender *string `placeholder:"ADDR" help:"Only messages from this address; '@DOMAIN' for all of a domain, '<>' for reports."`
	Limit  *int    `placeholder:"N" help:"Stop after so many; without it the list is whole."`
}

// filter returns what is asked for. An empty word is more likely a variable that
// was not set than a wish for the whole queue.
func (c *queueListCmd) filter() (f control.Filter, err error) {
	if c.Domain != nil {
		if f.Domain = *c.Domain; f.Domain == "" {
			return f, fmt.Errorf("%w: --domain is empty", control.ErrInvalid)
		}
	}
	if c.Sender != nil {
		if f.Sender = *c.Sender; f.Sender == "" {
			return f, fmt.Errorf("%w: --sender is empty; reports are from '<>'", control.ErrInvalid)
		}
	}
	if c.Limit != nil {
		if f.Limit = *c.Limit; f.Limit < 1 {
			return f, errLimit
		}
	}
	return f, nil
}

var errLimit = fmt.Errorf("%w: --limit must be at least 1", control.ErrInvalid)

// Run lists the queue.
func (c *queueListCmd) Run(s streams) error {
	filter, err := c.filter()
	if err != nil {
		return err
	}
	q, _, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	out := bufio.NewWriter(s.out)
	now := time.Now()
	messages, size := 0, int64(0)
	err = q.List(context.Background(), filter, func(m *control.Message) error {
		if c.JSON {
			return writeJSON(out, m)
		}
		if messages == 0 {
			fmt.Fprintf(out, rowFormat, "ID", "AGE", "SIZE", "FROM", "TO", "NEXT", "TRIES", "LAST REPLY")
		}
		messages++
		size += m.Size
		return writeRow(out, m, now)
	})
	if !c.JSON && err == nil {
		if messages == 0 {
			fmt.Fprintln(out, "no message")
		} else {
			fmt.Fprintf(out, "%s, %s\n", plural(messages, "message"), bytesOf(size))
		}
	}
	return errors.Join(err, out.Flush())
}

// rowFormat is a line of the list. What is wider than its column moves the rest
// to the right: an address must be legible to the end.
const rowFormat = "%-38s %5s %6s  %-26s %-26s %-7s %5s  %s\n"

// maxReply is how much of a reply a list shows, in characters.
const maxReply = 60

func writeRow(w io.Writer, m *control.Message, now time.Time) error {
	if m.Unreadable != "" {
		_, err := fmt.Fprintf(w, "%-38s cannot be read: %s\n", m.ID, printable(m.Unreadable))
		return err
	}
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
	due := until(next, now)
	if held {
		due = "held"
	}
	_, err := fmt.Fprintf(w, rowFormat, m.ID, span(now.Sub(m.Received)), bytesOf(m.Size), printable(m.From.Path()),
		printable(to), due, fmt.Sprint(tries), shorten(printable(last), maxReply))
	return err
}

type queueStatCmd struct {
	instance
	output
}

// topDestinations is how many stat tells.
const topDestinations = 10

// Run counts the queue.
func (c *queueStatCmd) Run(s streams) error {
	q, _, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	st, err := q.Stat(context.Background(), topDestinations)
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(s.out, st)
	}
	out := bufio.NewWriter(s.out)
	now := time.Now()
	if st.Deliveries != nil {
		state := "running"
		if st.Stopping {
			state = "stopping"
		}
		fmt.Fprintf(out, "daemon      %s\nhealth      %s\n", state, printable(st.Health))
		for _, n := range st.Notes {
			fmt.Fprintf(out, "note        %s\n", printable(n))
		}
	} else {
		fmt.Fprintln(out, "daemon      not running")
	}
	fmt.Fprintf(out, "messages    %d, %s\nrecipients  %d\n", st.Messages, bytesOf(st.Bytes), st.Recipients)
	if st.Unreadable > 0 {
		fmt.Fprintf(out, "unreadable  %s, see list\n", plural(st.Unreadable, "message"))
	}
	if st.Held > 0 {
		fmt.Fprintf(out, "held        %s\n", plural(st.Held, "recipient"))
	}
	if d := st.Deliveries; d != nil {
		fmt.Fprintf(out, "deliveries  %d waiting, %d ready, %d running", d.Waiting, d.Ready, d.Running)
		if d.Suspended > 0 {
			fmt.Fprintf(out, ", %d for suspended destinations", d.Suspended)
		}
		fmt.Fprintln(out)
	}
	if n := st.DSNs; n != nil && n.Failed > 0 {
		fmt.Fprintf(out, "reports     %d could not be queued\n", n.Failed)
	}
	if !st.Oldest.IsZero() {
		fmt.Fprintf(out, "oldest      %s, received %s\n", span(now.Sub(st.Oldest)), stamp(st.Oldest))
	}
	if len(st.Destinations) > 0 {
		fmt.Fprintf(out, "\n%8s %10s  %s\n", "MESSAGES", "RECIPIENTS", "DESTINATION")
		for _, d := range st.Destinations {
			fmt.Fprintf(out, "%8d %10d  %s\n", d.Messages, d.Recipients, printable(d.Domain))
		}
		if o := st.Others; o != nil {
			fmt.Fprintf(out, "%8d %10d  (all others)\n", o.Messages, o.Recipients)
		}
	}
	return out.Flush()
}

type queueShowCmd struct {
	instance
	output
	ID string `arg:"" help:"The message, as list prints it."`
}

// Run shows a message.
func (c *queueShowCmd) Run(s streams) error {
	q, _, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	m, err := q.Show(context.Background(), mail.ID(c.ID))
	if err != nil {
		return about(c.ID, err)
	}
	if c.JSON {
		return writeJSON(s.out, m)
	}
	out := bufio.NewWriter(s.out)
	writeMessage(out, m, time.Now())
	return out.Flush()
}

func writeMessage(w io.Writer, m *control.Message, now time.Time) {
	fmt.Fprintf(w, "id          %s\nfrom        %s\nreceived    %s, %s ago\nsize        %d\n",
		m.ID, printable(m.From.Path()), stamp(m.Received), span(now.Sub(m.Received)), m.Size)
	if p := parameters(m); p != "" {
		fmt.Fprintf(w, "parameters  %s\n", printable(p))
	}
	fmt.Fprintln(w, "recipients")
	for _, r := range m.Recipients {
		fmt.Fprintf(w, "  %s  %s", printable(r.Address.Path()), printable(r.Status))
		if r.Status == control.Pending {
			next := "next " + until(r.Next, now)
			if !r.Probe.IsZero() {
				next = "its destination is suspended, next probe " + until(r.Probe, now)
			}
			if r.Held {
				next = "held"
			}
			fmt.Fprintf(w, ", %s, %s", plural(r.Attempts, "attempt"), next)
		}
		if r.Notify != 0 {
			fmt.Fprintf(w, ", NOTIFY=%s", notify(r.Notify))
		}
		if r.ORCPT != "" {
			fmt.Fprintf(w, ", ORCPT=%s", printable(r.ORCPT))
		}
		fmt.Fprintln(w)
		if r.Last != "" {
			fmt.Fprintf(w, "      %s\n", printable(r.Last))
		}
	}
	fmt.Fprintln(w)
	for line := range strings.Lines(m.Header) {
		parts := strings.Split(strings.TrimRight(line, "\r\n"), "\t")
		for i := range parts {
			parts[i] = printable(parts[i])
		}
		fmt.Fprintln(w, strings.Join(parts, "\t"))
	}
	if m.HeaderCut {
		fmt.Fprintln(w, "(the header section goes on)")
	}
}

// parameters returns what the envelope has beside addresses, as MAIL said it.
func parameters(m *control.Message) string {
	var all []string
	add := func(set bool, text string) {
		if set {
			all = append(all, text)
		}
	}
	add(m.Body != "", "BODY="+m.Body)
	add(m.UTF8, "SMTPUTF8")
	add(m.RequireTLS, "REQUIRETLS")
	add(m.Return != "", "RET="+m.Return)
	add(m.EnvelopeID != "", "ENVID="+m.EnvelopeID)
	return strings.Join(all, " ")
}

func notify(n mail.Notify) string {
	var all []string
	for i, name := range []string{"SUCCESS", "FAILURE", "DELAY", "NEVER"} {
		if n&(1<<i) != 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ",")
}

type queueCatCmd struct {
	instance
	output
	ID string `arg:"" help:"The message, as list prints it."`
}

// Run writes a message.
func (c *queueCatCmd) Run(s streams) error {
	q, _, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	content, size, err := q.Content(context.Background(), mail.ID(c.ID))
	if err != nil {
		return about(c.ID, err)
	}
	defer content.Close()
	if !c.JSON {
		_, err = io.Copy(s.out, content)
		return err
	}
	out := bufio.NewWriter(s.out)
	fmt.Fprintf(out, `{"id":%q,"size":%d,"content":"`, c.ID, size)
	text := base64.NewEncoder(base64.StdEncoding, out)
	if _, err := io.Copy(text, content); err != nil {
		return err // what is on its way is no JSON then
	}
	text.Close()
	fmt.Fprintln(out, `"}`)
	return out.Flush()
}

type queueFlushCmd struct {
	instance
	output
	Which *string `arg:"" optional:"" placeholder:"DOMAIN|ID" name:"domain-or-id" help:"Only deliveries to this domain, or those of the message with this ID."`
}

// Run flushes the queue.
func (c *queueFlushCmd) Run(s streams) error {
	domain := ""
	if c.Which != nil {
		if domain = *c.Which; domain == "" {
			return fmt.Errorf("%w: an empty domain; leave it out to flush the whole queue", control.ErrInvalid)
		}
	}
	q, err := c.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	n, err := flush(context.Background(), q, domain)
	switch {
	case err != nil:
		return err
	case c.JSON:
		return writeJSON(s.out, map[string]int{"deliveries": n})
	case n == 1:
		_, err = fmt.Fprintln(s.out, "1 delivery is due now")
	default:
		_, err = fmt.Fprintf(s.out, "%d deliveries are due now\n", n)
	}
	return err
}

// flush flushes the message with an ID, or else the deliveries to a domain, "" meaning
// all. An ID can look like a domain, such as that of an imported message.
func flush(ctx context.Context, q *control.Client, which string) (int, error) {
	if id := mail.ID(which); id.Valid() {
		n, err := q.FlushMessage(ctx, id)
		switch {
		case err == nil:
			return n, nil
		case !errors.Is(err, control.ErrUnknown) || beginsLikeID(which):
			return 0, about(which, err)
		}
	}
	return q.Flush(ctx, which)
}

// beginsLikeID reports whether s begins with the UUID of a connection and a dot, in
// any case: no domain does.
func beginsLikeID(s string) bool {
	if len(s) < 37 {
		return false
	}
	_, ok := mail.ID(strings.ToUpper(s[:37]) + "1").Key()
	return ok
}

type queueRemoveCmd struct {
	instance
	output
	IDs []string `arg:"" name:"id" help:"The messages, as list prints them."`
}

// removal is what remove says of one message.
type removal struct {
	ID      string `json:"id"`
	Removed bool   `json:"removed"`
	Error   string `json:"error,omitempty"`
}

// Run removes messages. One that cannot be removed does not keep the others.
func (c *queueRemoveCmd) Run(s streams) error {
	q, err := c.daemon()
	if err != nil {
		return err
	}
	defer q.Close()
	failed := false
	for _, id := range c.IDs {
		err := q.Remove(context.Background(), mail.ID(id))
		if errors.Is(err, control.ErrStopped) {
			return err
		}
		failed = failed || err != nil
		switch {
		case c.JSON:
			r := removal{ID: id, Removed: err == nil}
			if err != nil {
				r.Error = err.Error()
			}
			err = writeJSON(s.out, r)
		case err != nil:
			_, err = fmt.Fprintln(s.err, "tarishi:", about(id, err))
		default:
			_, err = fmt.Fprintln(s.out, "removed", id)
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

// about says which message an error is about.
func about(id string, err error) error {
	if errors.Is(err, control.ErrInvalid) { // its text has the ID
		return err
	}
	return fmt.Errorf("%s: %w", id, err)
}

type qlistCmd struct {
	instance
}

// Run lists the queue as Haraka does, a line for each file that Haraka would
// have.
func (c *qlistCmd) Run(s streams) error {
	q, _, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	out := bufio.NewWriter(s.out)
	err = q.List(context.Background(), control.Filter{}, func(m *control.Message) error {
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
			_, err := fmt.Fprintf(out, "Q: %s rcpt:%d from:%s domain:%s\n", m.ID, recipients[host], printable(m.From.Path()), printable(host))
			if err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, out.Flush())
}

type qstatCmd struct {
	instance
}

// Run counts the queue as Haraka does: the lines of qlist.
func (c *qstatCmd) Run(s streams) error {
	q, dir, err := c.look(s)
	if err != nil {
		return err
	}
	defer q.Close()
	st, err := q.Stat(context.Background(), 1)
	if err != nil {
		return err
	}
	n := 0
	for _, d := range st.Destinations {
		n += d.Messages
	}
	if st.Others != nil {
		n += st.Others.Messages
	}
	_, err = fmt.Fprintf(s.out, "{ queue_dir: '%s', queue_count: %d }\n", printable(dir), n)
	return err
}
