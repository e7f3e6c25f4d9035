package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"tarishi/internal/command"
	"tarishi/internal/control"
	"tarishi/internal/dkim"
	"tarishi/internal/dns"
	"tarishi/internal/domaincheck"
	"tarishi/internal/mtasts"
	"tarishi/internal/terminal"
)

// domainTime is how long a whole check may take.
const domainTime = 2 * time.Minute

// domainCommand looks at a domain from outside.
func domainCommand() command.Command {
	return command.Command{
		Name: "check-domain", Run: checkDomain,
		Text: "Look at a domain as the world sees it: MX, names of addresses, SPF, DKIM, DMARC, MTA-STS, DANE and certificates.",
		Parameters: []control.Parameter{
			{Name: "domain", Kind: control.Kind{Placeholder: "DOMAIN"}, Positional: true, Required: true, Text: "The domain."},
			configsFlag, jsonFlag,
			{Name: "ip", Kind: control.Kind{Placeholder: "ADDRESS"}, Several: true, Text: "An address that mail leaves from. Without any: those of the host name in config/me."},
			{Name: "selector", Kind: control.Kind{Placeholder: "NAME"}, Several: true, Text: "The selector of a DKIM key that is not in config/dkim."},
			{Name: "no-connect", Text: "Ask the DNS only, and no mail exchanger for its certificate."},
		},
	}
}

// checkDomain prints its findings. It fails if a finding is an error.
func checkDomain(s command.Streams, a control.Arguments) error {
	cfg, _, err := instanceOf(a).load()
	if err != nil {
		return err
	}
	domain, err := signingDomain(a)
	if err != nil {
		return err
	}
	resolver, err := dns.New(cfg.DNS)
	if err != nil {
		return err
	}
	policies := mtasts.New(mtasts.Options{Resolver: resolver})
	defer policies.Close()

	// What we are comes from the instance, and what it is not from the line.
	keys, _ := dkim.LoadKeys(os.DirFS(cfg.ConfigDir), keyFolder)
	checker := &domaincheck.Checker{
		Resolver: resolver, Policies: policies, DNSSEC: cfg.DNS.DNSSEC, Me: cfg.Me, Keys: keys[domain], Selectors: a["selector"],
	}
	for _, text := range a["ip"] {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%w: --ip: %q is no address", control.ErrInvalid, text)
		}
		checker.Addresses = append(checker.Addresses, addr)
	}
	for _, selector := range checker.Selectors {
		if err := dkim.CheckSelector(selector); err != nil {
			return fmt.Errorf("%w: --selector: %w", control.ErrInvalid, err)
		}
	}
	if !switched(a, "no-connect") {
		checker.Dial = func(ctx context.Context, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, domainTime)
	defer cancel()
	return printFindings(s, checker.Check(ctx, domain), switched(a, jsonFlag.Name))
}

// printFindings prints findings, a line each.
func printFindings(s command.Streams, all []domaincheck.Finding, asJSON bool) error {
	var failed error
	for _, f := range all {
		if f.Level == domaincheck.Error {
			failed = errReported
		}
		if asJSON {
			if err := terminal.WriteJSON(s.Out, f); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(s.Out, "%-8s %-8s %s\n", f.Level, f.About, terminal.Printable(f.Text))
	}
	return failed
}
