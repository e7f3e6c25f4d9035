// Package isresolvable is the plugin mail_from.is_resolvable: the domain of a sender must
// have a mail server with an address. See README.md.
package isresolvable

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"

	"tarishi/internal/dns"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "mail_from.is_resolvable"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &checker{Settings: *env.Settings.(*Settings), resolver: env.Resolver, recorder: env.NewRecorder(Name, result.Format{})}, nil
}

// checker is the plugin.
type checker struct {
	Settings
	resolver plugin.Resolver
	recorder *plugin.Recorder
}

// Register implements plugin.Plugin. All that waits is bounded by the plugin's own timeout.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnMail, "hook_mail", 0, c.checkSender)
}

// The texts of refusals.
const (
	textNoMX      = "No MX for your FROM address"
	textNoValidMX = "No valid MX for your FROM address"
)

// checkSender looks for the mail servers of a sender's domain, and for the addresses of
// these.
func (c *checker) checkSender(ctx context.Context, e *hook.Event) hook.Verdict {
	record := c.recorder.On(e.Tx.Results())
	defer record.Log()
	// There is nothing to look for where a report could not be sent to a domain.
	domain := e.Sender.Host()
	if domain == "" {
		record.Skip("null host")
		return hook.Proceed()
	}
	if _, literal := e.Sender.Literal(); literal {
		record.Skip("literal")
		return hook.Proceed()
	}

	// Without MX records the domain itself is the server (RFC 5321 section 5.1).
	hosts, addrs, err := c.exchangers(ctx, domain)
	switch {
	case err != nil:
		return c.defers(record, err)
	case len(hosts) == 1 && hosts[0] == "":
		record.Fail("null_mx")
		if c.NoMX == neverReject {
			return hook.Proceed()
		}
		return record.Refuse(hook.Verdict{Code: hook.Deny, Reply: reply.Newf(550, "5.7.27", "Null MX: %s does not send mail", domain)})
	case len(hosts)+len(addrs) == 0:
		return c.rejects(record, textNoMX)
	case c.AllowIP && slices.ContainsFunc(addrs, c.isGood):
		record.Pass("implicit_mx")
		return hook.Proceed()
	}

	// Some server must have an address that mail can be sent to.
	good, err := c.findAddress(ctx, hosts)
	switch {
	case good:
		record.Pass("has_fwd_dns")
		return hook.Proceed()
	case err != nil:
		return c.defers(record, err)
	}
	return c.rejects(record, textNoValidMX)
}

// defers records a failure of the DNS, from which nothing follows for the sender.
func (c *checker) defers(record plugin.Record, err error) hook.Verdict {
	record.Err(err.Error())
	return record.Refuse(hook.Answer(hook.DenySoft, "Temp. resolver error ("+failureCode(err)+")"))
}

// rejects records that a domain has no server, and refuses the sender as no_mx says.
func (c *checker) rejects(record plugin.Record, text string) hook.Verdict {
	record.Fail("has_fwd_dns")
	switch c.NoMX {
	case neverReject:
		return hook.Proceed()
	case deferSender, deferToo:
		return record.Refuse(hook.Answer(hook.DenySoft, text))
	}
	return record.Refuse(hook.Answer(hook.Deny, text))
}

// exchangers returns the mail servers of a domain by their names, and those that are
// addresses: of MX records, against RFC 1035, or of the domain itself if it has none.
// The null MX is one empty name. Nothing at all is no error.
func (c *checker) exchangers(ctx context.Context, domain string) (hosts []string, addrs []netip.Addr, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	// Only an answer of the DNS says that there is no record; anything else may be different next time.
	records, err := c.resolver.MX(ctx, domain)
	if isNothing(err) {
		if addrs, err = c.resolver.Addrs(ctx, domain); isNothing(err) {
			err = nil
		}
		return nil, addrs, err
	}
	for _, mx := range records {
		if addr, bad := netip.ParseAddr(mx.Host); bad == nil {
			addrs = append(addrs, addr)
		} else {
			hosts = append(hosts, mx.Host)
		}
	}
	return hosts, addrs, err
}

// isNothing reports whether an error says that the DNS has no such record.
func isNothing(err error) bool { return dns.IsNXDomain(err) || dns.IsNoData(err) }

// mostHosts is how many mail servers of one domain are looked up.
const mostHosts = 10

// findAddress looks up hosts side by side until one has a good address. If none has, the
// error is that of a look-up that failed, because its host might.
func (c *checker) findAddress(ctx context.Context, hosts []string) (good bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	type answer struct {
		good bool
		err  error
	}
	// A domain of a sender is anybody's: it must not make us ask hundreds of questions.
	hosts = hosts[:min(len(hosts), mostHosts)]
	answers := make(chan answer, len(hosts))
	for _, host := range hosts {
		go func() {
			addrs, err := c.resolver.Addrs(ctx, host)
			answers <- answer{slices.ContainsFunc(addrs, c.isGood), err}
		}()
	}

	// All are waited for, so that no look-up outlives the handler; the first good one
	// ends the others.
	for range hosts {
		a := <-answers
		if a.good && !good {
			good = true
			cancel()
		}
		// An address such as 0.0.0.0 is one to which nothing can be sent.
		if a.err != nil && !isNothing(a.err) && !errors.Is(a.err, dns.ErrUnusable) {
			err = a.err
		}
	}
	return good, err
}

// special are the networks of IPv6 in which no mail server of the world is (RFC 6890 and
// its successors).
var special = []netip.Prefix{
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/96"), netip.MustParsePrefix("64:ff9b:1::/48"), netip.MustParsePrefix("100::/64"),
	netip.MustParsePrefix("2001::/23"), netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("3fff::/20"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("ff00::/8"),
}

// isGood reports whether mail can be sent to an address.
func (c *checker) isGood(a netip.Addr) bool {
	// For IPv4 the site says which addresses do not count.
	if a = a.Unmap(); a.Is4() {
		return !c.Bogus.MatchString(a.String())
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(a) })
}

// failureCode is what Node.js calls a failure of the DNS.
func failureCode(err error) string {
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		return "ETIMEOUT"
	}
	return "ESERVFAIL"
}
