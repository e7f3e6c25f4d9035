// Package dmarc is the plugin dmarc: it checks whether the domain in From authorized a
// message, and applies that domain's policy if it did not. See README.md.
//
// New settings make a new instance, which holds nothing.
package dmarc

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/authres"
	"tarishi/internal/dmarc"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
)

// Name is the plugin's name in config/plugins.
const Name = "dmarc"

// noteQuarantine is Haraka's note of messages that are to be set aside.
const noteQuarantine = "quarantine"

// priority is behind that of plugins that verify signatures.
const priority = 50

// checks is the plugin.
type checks struct {
	enforce bool
	sealers []string
	checker *dmarc.Checker
	log     *zap.Logger
	counted plugin.Counter
}

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := env.Settings.(*Settings)
	return &checks{
		enforce: cfg.Enforce, sealers: cfg.Sealers, checker: &dmarc.Checker{Resolver: env.Resolver, Timeout: cfg.Timeout}, log: env.Log,
		counted: env.Metrics.Counter("checks_total", "Messages that were checked.", "result", "disposition"),
	}, nil
}

// Register implements plugin.Plugin.
func (c *checks) Register(h plugin.Host) { h.On(hook.OnDataPost, "check", priority, c.check) }

// check checks a message of a client that may not relay.
func (c *checks) check(ctx context.Context, e *hook.Event) hook.Verdict {
	found := e.Tx.Results()
	switch {
	case e.Tx.Relaying() || e.Conn.Authenticated().User != "":
		found.Skip(Name, "relaying")
		return hook.Proceed()
	case e.Conn.Remote().Private:
		found.Skip(Name, "private_ip")
		return hook.Proceed()
	case !found.Has("spf") && !e.Conn.Results().Has("spf") || !found.Has("dkim"):
		// Half of it would make genuine mail fail.
		found.Skip(Name, "no results of spf and dkim")
		c.log.Warn("message is not checked: the plugins spf and dkim must stand in front of dmarc", zap.String("uuid", string(e.Tx.ID())))
		return hook.Proceed()
	}
	// A trusted host may have seen the message before it was changed.
	id := identify(e)
	r := c.checker.Check(ctx, id)
	sealer := ""
	if _, unclear := dmarc.Authors(id.From); unclear == nil && r.Disposition > dmarc.PolicyNone {
		if sealer = c.vouching(e, r.Domain); sealer != "" {
			r.Disposition = dmarc.PolicyNone
		}
	}
	c.record(e, r, sealer)
	if !c.enforce {
		return hook.Proceed()
	}
	return apply(e, r)
}

// identify collects what other plugins know of a message. RFC 9989 section 4.4.2 lets
// only the sender's domain count, which for the null sender is the name in HELO (RFC 7208
// section 2.4).
func identify(e *hook.Event) dmarc.Identity {
	id := dmarc.Identity{From: e.Tx.Header().All("From")}
	spf := e.Tx.Results()
	if e.Sender.IsNull() {
		spf = e.Conn.Results()
	}
	// A check that the DNS did not answer may have passed: it must not count as a failure.
	domain, _ := spf.Value("spf", "domain").(string)
	switch spf.Value("spf", "result") {
	case "Pass":
		id.SPF = domain
	case "TempError":
		id.Unknown = append(id.Unknown, domain)
	}
	signatures, _ := e.Tx.Notes().Get("dkim_results").([]any)
	for _, one := range signatures {
		signature, _ := one.(map[string]any)
		domain, _ := signature["domain"].(string)
		switch signature["result"] {
		case "pass":
			id.DKIM = append(id.DKIM, domain)
		case "tempfail":
			id.Unknown = append(id.Unknown, domain)
		}
	}
	return id
}

// vouching returns the listed host that says the message passed when it had it, with this
// domain in From, and that only listed hosts have had it since; "": there is none.
func (c *checks) vouching(e *hook.Event, domain string) string {
	// The newest comes first: behind a host that nobody trusts no claim of earlier ones counts.
	seals, _ := e.Tx.Notes().Get("arc_seals").([]any)
	for _, one := range slices.Backward(seals) {
		seal, _ := one.(map[string]any)
		sealer, _ := seal["domain"].(string)
		if !slices.Contains(c.sealers, sealer) {
			return ""
		}
		from, _ := seal["from"].(string)
		if seal["dmarc"] == dmarc.Pass.String() && mail.CanonicalDomain(from) == domain {
			return sealer
		}
	}
	return ""
}

// record makes a result known. sealer is the host that vouched for the message; "": none.
func (c *checks) record(e *hook.Event, r dmarc.Result, sealer string) {
	// That a host vouched for it explains why a failure had no effect.
	found := e.Tx.Results()
	if sealer != "" {
		found.Msg(Name, "arc="+sealer)
	}
	// Recorded in any case, enforced or not: that is how an operator learns the effect.
	found.Set(Name, "result", r.Status.String())
	found.Set(Name, "domain", r.Domain)
	switch r.Status {
	case dmarc.Pass:
		found.Pass(Name, r.Domain)
	case dmarc.Fail:
		found.Fail(Name, r.Domain)
	case dmarc.None:
		found.Skip(Name, "no policy")
	default:
		found.Err(Name, r.Reason)
	}

	// The policy is shown only where there is one.
	shown := authres.Result{Method: Name, Value: r.Status.String(), Properties: []authres.Property{{Name: "header.from", Value: r.Domain}}}
	if r.Record != nil {
		found.Set(Name, "policy", r.Policy.String())
		found.Set(Name, "disposition", r.Disposition.String())
		shown.Comment = fmt.Sprintf("p=%s dis=%s", r.Policy, r.Disposition)
		if sealer != "" {
			shown.Comment += " arc=" + sealer
		}
		shown.Properties = append(shown.Properties, authres.Property{Name: "policy.dmarc", Value: r.Policy.String()})
	}
	e.Tx.AddAuthResult(shown.String())
	c.counted.Add(1, r.Status.String(), r.Disposition.String())
	c.log.Info("dmarc", zap.String("uuid", string(e.Tx.ID())), zap.String("domain", r.Domain), zap.Stringer("result", r.Status),
		zap.Stringer("policy", r.Policy), zap.Stringer("disposition", r.Disposition), zap.Bool("spf", r.SPF), zap.Bool("dkim", r.DKIM),
		zap.String("sealer", sealer), zap.String("reason", r.Reason))
}

// apply does what the domain wants with a message.
func apply(e *hook.Event, r dmarc.Result) hook.Verdict {
	// The client tries again; by then the DNS may answer.
	switch {
	case r.Status == dmarc.TempError:
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.Newf(451, "4.4.3", "DMARC policy of %s cannot be looked up, please try again later", domainOf(r))}
	case r.Disposition == dmarc.Reject:
		return hook.Verdict{Code: hook.Deny, Reply: reply.Newf(550, "5.7.26", "%s does not stand behind this message (DMARC policy reject)", domainOf(r))}
	case r.Disposition == dmarc.Quarantine:
		e.Tx.Notes().Set(noteQuarantine, true)
	}
	return hook.Proceed()
}

// domainOf is the domain in From for a reply.
func domainOf(r dmarc.Result) string { return reply.Clip(strings.ToValidUTF8(r.Domain, "?")) }
