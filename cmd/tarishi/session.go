package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tarishi/internal/command"
	"tarishi/internal/conf"
	"tarishi/internal/control"
	"tarishi/internal/mail"
	"tarishi/internal/maillog"
	"tarishi/internal/rehearsal"
	"tarishi/internal/server"
)

// sessionTime is how long a rehearsed conversation may take.
const sessionTime = 10 * time.Minute

// sessionCommand drives one conversation through the plugins. Its flags are named as those of
// haraka -t, but for --from.
func sessionCommand() command.Command {
	text := func(placeholder, about string) control.Parameter {
		return control.Parameter{Kind: control.Kind{Placeholder: placeholder}, Text: about}
	}
	named := func(name string, p control.Parameter) control.Parameter { p.Name = name; return p }
	recipients := named("envrcpt", text("ADDRESS", "A recipient. Without any: postmaster at the host name of config/me."))
	recipients.Several = true
	from := named("from", text("IP", "The client's address."))
	from.Required = true
	return command.Command{
		Name: "session", Run: rehearse,
		Text: "Talk to the plugins as one client would, and print what each of them answers. Nothing is queued, relayed or remembered.",
		Parameters: []control.Parameter{
			from,
			named("to", text("IP:PORT", "The address of this server that the client has reached. Without it: 127.0.0.1:25.")),
			named("ehlo", text("NAME", "The name in the client's EHLO. Without it: the client's address.")),
			named("helo", text("NAME", "The name in its HELO, in place of EHLO.")),
			named("envfrom", text("ADDRESS", "The sender; <> is the null sender. Without it: sender@example.org.")),
			recipients,
			named("message", text("FILE", "The message; - is standard input. Without it: a short text.")),
			{Name: "set-relay", Text: "The client may send to any domain."},
			{Name: "skip-deny", Text: "Show refusals and go on behind them."},
			configsFlag,
		},
	}
}

// rehearse prints the conversation. It fails if the message would be refused.
func rehearse(s command.Streams, a control.Arguments) error {
	cfg, problems, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	if errs := problems.Errors(); len(errs) > 0 {
		return fmt.Errorf("%s ('tarishi check' names all problems)", errs[0])
	}
	client, err := rehearsedClient(cfg, a)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, sessionTime)
	defer cancel()
	w := maillog.NewWriter(s.Err)
	defer w.Close()
	accepted, err := server.Rehearse(ctx, cfg, server.Options{Version: version, Log: w}, client, s.Out)
	switch {
	case err != nil:
		return err
	case !accepted:
		return errReported
	}
	return nil
}

// rehearsedClient returns the client that the line describes.
func rehearsedClient(cfg *conf.Config, a control.Arguments) (*rehearsal.Client, error) {
	c := &rehearsal.Client{
		Verb: "EHLO", Sender: "sender@example.org", Recipients: a["envrcpt"], To: netip.MustParseAddrPort("127.0.0.1:25"),
		Relaying: switched(a, "set-relay"), Pardoned: switched(a, "skip-deny"),
	}
	addr, err := netip.ParseAddr(a.Text("from"))
	if err != nil {
		return nil, fmt.Errorf("%w: --from: %q is no address", control.ErrInvalid, a.Text("from"))
	}
	c.From = netip.AddrPortFrom(addr.Unmap().WithZone(""), 50000)
	if to := a.Text("to"); to != "" {
		if c.To, err = netip.ParseAddrPort(to); err != nil {
			return nil, fmt.Errorf("%w: --to: %q is no address with a port", control.ErrInvalid, to)
		}
	}

	// The greeting of a client without a name is its address (RFC 5321 section 4.1.3).
	c.Host = a.Text("ehlo")
	if name := a.Text("helo"); name != "" {
		c.Verb, c.Host = "HELO", name
	}
	if c.Host == "" {
		c.Host = mail.AddressLiteral(c.From.Addr())
	}
	if sender, given := a["envfrom"]; given {
		c.Sender = sender[0]
	}
	if c.Sender == "<>" {
		c.Sender = ""
	}
	if len(c.Recipients) == 0 {
		c.Recipients = []string{"postmaster@" + cfg.Me}
	}
	c.Message, err = rehearsedMessage(c, a.Text("message"))
	return c, err
}

// rehearsedMessage returns the content of a file; "" is a message about nothing.
func rehearsedMessage(c *rehearsal.Client, file string) ([]byte, error) {
	switch file {
	case "":
		var b bytes.Buffer
		fmt.Fprintf(&b, "From: <%s>\nTo: <%s>\nDate: %s\nMessage-ID: <%d@rehearsal.invalid>\n", c.Sender, c.Recipients[0], time.Now().Format(time.RFC1123Z), time.Now().UnixNano())
		b.WriteString("Subject: A rehearsal\n\nNobody has sent this.\n")
		return b.Bytes(), nil
	case "-":
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(file)
}
