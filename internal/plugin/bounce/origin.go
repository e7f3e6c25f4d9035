package bounce

import (
	"context"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"time"

	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/localaddr"
	"tarishi/internal/mail"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
	"tarishi/internal/spf"
)

// Bounds of the search for the origin of a returned message.
const (
	mostAddresses = 10
	spfTime       = 4 * time.Second // for one address
	originTime    = 20 * time.Second
)

// readLines returns the beginning of a part's text as lines. A fold begins with one blank.
func readLines(p *message.Part) []string {
	r, err := p.Open()
	if err != nil {
		return nil
	}
	defer r.Close()
	text, _ := io.ReadAll(io.LimitReader(r, mostText)) // what can be decoded counts
	// Folds may begin with blanks of any kind and number.
	var lines []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, "\r\n")
		if body := strings.TrimLeft(line, " \t"); body != line {
			line = " " + body
		}
		lines = append(lines, line)
	}
	return lines
}

// bracketed matches what may be an address in a trace field, in brackets or parentheses.
var bracketed = regexp.MustCompile(`[\[(](?:IPv6:)?([0-9A-Fa-f:.]{2,45})[\])]`)

// origins returns the addresses of the world in the trace fields of the returned message,
// the first one of each field.
func origins(returned []excerpt) []netip.Addr {
	// The first address in a trace field is that of the host which the next one has seen.
	var all []netip.Addr
	for _, part := range returned {
		for _, field := range part.values("Received") {
			for _, found := range bracketed.FindAllStringSubmatch(field, -1) {
				addr, ok := hostname.Bare(found[1])
				if !ok {
					continue
				}
				if addr = addr.Unmap(); !localaddr.IsPrivate(addr) && !slices.Contains(all, addr) && len(all) < mostAddresses {
					all = append(all, addr)
				}
				break
			}
		}
	}
	return all
}

// checkOrigin asks whether one of the hosts that the returned message has passed may send
// mail in the name of the recipient of the report.
func (c *checker) checkOrigin(ctx context.Context, e *hook.Event, record plugin.Record, returned []excerpt) hook.Verdict {
	// The recipient of the report sent the message: its domain names the hosts that may send for it.
	addrs, to := origins(returned), e.Tx.Recipients()
	if len(addrs) == 0 || len(to) == 0 {
		record.Skip("bounce_spf")
		record.Msg("no IP addresses found in message")
		return hook.Proceed()
	}

	// A domain without a policy, and trouble with the DNS, are the same for all hosts.
	ctx, cancel := context.WithTimeout(ctx, originTime)
	defer cancel()
	for _, addr := range addrs {
		switch status := c.statusOf(ctx, addr, to[0].Address); status {
		case spf.Pass:
			record.Pass("bounce_spf")
			return hook.Proceed()
		case spf.None, spf.TempError, spf.PermError:
			record.Skip("bounce_spf")
			record.Msg("SPF returned " + words[status])
			return hook.Proceed()
		}
	}
	record.Fail("bounce_spf")
	record.Msg("invalid bounce (spoofed sender)")
	if !c.Reject.SPF {
		return hook.Proceed()
	}
	return record.Refuse(hook.Answer(hook.Deny, "Invalid bounce (spoofed sender)"))
}

// words are how Haraka writes results of SPF.
var words = map[spf.Status]string{spf.None: "None", spf.TempError: "TempError", spf.PermError: "PermError"}

// statusOf asks whether a host may send mail of an address.
func (c *checker) statusOf(ctx context.Context, host netip.Addr, address mail.Address) spf.Status {
	return c.spf.CheckMail(ctx, host, address.Host(), address).Status
}
