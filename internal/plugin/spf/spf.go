// Package spf is the plugin spf: it checks whether clients may use the name in HELO and
// the sender's domain. See README.md.
//
// New settings make a new instance, which holds nothing.
package spf

import (
	"context"
	"net/netip"
	"net/url"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/authres"
	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
	"tarishi/internal/spf"
)

// Name is the plugin's name in config/plugins.
const Name = "spf"

// The names of results, and the identities that they are about: Haraka's.
const (
	valueScope  = "scope"
	valueResult = "result"
	valueDomain = "domain"

	scopeHello = "helo"
	scopeMail  = "mfrom"

	noteHello  = "spf_helo"
	noteResult = "spf_mail_result"
)

// checks is the plugin.
type checks struct {
	Settings
	checker *spf.Checker
	log     *zap.Logger
	counted plugin.Counter
}

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	cfg := *env.Settings.(*Settings)
	return &checks{
		Settings: cfg, checker: &spf.Checker{Resolver: env.Resolver, Timeout: cfg.Timeout}, log: env.Log,
		counted: env.Metrics.Counter("checks_total", "Checks of HELO and MAIL.", "identity", "result"),
	}, nil
}

// Register implements plugin.Plugin.
func (c *checks) Register(h plugin.Host) {
	h.On(hook.OnHelo, "helo_spf", 0, c.checkHello)
	h.On(hook.OnEhlo, "helo_spf", 0, c.checkHello)
	h.On(hook.OnMail, "hook_mail", 0, c.checkMail)
	h.On(hook.OnDataPost, "add_headers", 0, addFields)
}

// skipped says why a client is not checked; "": it is.
func (c *checks) skipped(e *hook.Event) string {
	switch {
	case c.SkipRelaying && e.Conn.Relaying():
		return "relay"
	case c.SkipUsers && e.Conn.Authenticated().User != "":
		return "auth"
	}
	return ""
}

// checkHello checks the name in HELO or EHLO. It refuses nothing: the result counts for
// mail with the null sender.
func (c *checks) checkHello(ctx context.Context, e *hook.Event) hook.Verdict {
	// Neither our own clients nor names that are addresses have a policy.
	found, remote := e.Conn.Results(), e.Conn.Remote()
	why := c.skipped(e)
	if why == "" && remote.Private {
		why = "private_ip"
	}
	if why == "" && len(e.Host) > 0 && e.Host[0] == '[' {
		why = "ip_literal"
	}
	if why != "" {
		found.Skip(Name, "helo("+why+")")
		return hook.Proceed()
	}
	if found.Value(Name, valueDomain) == e.Host {
		return hook.Proceed() // said again, after STARTTLS for instance
	}

	// The result is kept for all messages of the connection.
	r := c.checker.CheckHello(ctx, remote.Addr.Addr(), e.Host)
	found.Set(Name, valueScope, scopeHello)
	found.Set(Name, valueResult, harakaWord(r.Status))
	found.Set(Name, valueDomain, e.Host)
	e.Conn.Notes().Set(noteHello, int(r.Status)+1)
	if r.Status == spf.Pass {
		found.Pass(Name, e.Host)
	}
	c.record(e, e.Conn.ID(), scopeHello, r, e.Host)
	return hook.Proceed()
}

// record logs and counts a result.
func (c *checks) record(e *hook.Event, id, scope string, r spf.Result, domain string) {
	c.counted.Add(1, scope, r.Status.String())
	c.log.Info("spf", zap.String("uuid", id), zap.String("identity", scope), zap.Stringer("ip", e.Conn.Remote().Addr.Addr()),
		zap.String("domain", domain), zap.Stringer("result", r.Status), zap.String("reason", r.Reason))
}

// checkMail checks the sender's domain, or refuses the null sender for the name in HELO.
func (c *checks) checkMail(ctx context.Context, e *hook.Event) hook.Verdict {
	// Clients on private addresses are ours or were checked by a host of ours.
	found, remote := e.Tx.Results(), e.Conn.Remote()
	if why := c.skipped(e); why != "" {
		found.Skip(Name, "host("+why+")")
		return hook.Proceed()
	}
	relaying := e.Conn.Relaying()
	if remote.Private && (!relaying || c.Context != fromMyself) {
		if relaying {
			found.Skip(Name, "host(private_ip)")
		}
		return hook.Proceed()
	}
	if e.Sender.IsNull() {
		return c.judgeHello(ctx, e)
	}

	// Other servers will see our address, not that of a client of ours.
	r := c.checker.CheckMail(ctx, remote.Addr.Addr(), e.Conn.Hello().Host, e.Sender)
	if relaying && c.Context == fromMyself && r.Status != spf.Pass {
		r = c.checker.CheckMail(ctx, e.Conn.Local().Addr(), e.Conn.Me(), e.Sender)
	}
	// Other plugins read the domain as the client wrote it.
	domain := e.Sender.Domain
	found.Set(Name, valueScope, scopeMail)
	found.Set(Name, valueResult, harakaWord(r.Status))
	found.Set(Name, valueDomain, domain)
	if r.Status == spf.Pass {
		found.Pass(Name, domain)
	}
	e.Tx.Notes().Set(noteResult, harakaWord(r.Status))
	e.Tx.AddAuthResult(authres.Result{Method: Name, Value: r.Status.String(), Properties: []authres.Property{{Name: "smtp.mailfrom", Value: domain}}}.String())
	c.record(e, string(e.Tx.ID()), scopeMail, r, domain)
	return c.answer(e, scopeMail, r.Status, e.Sender.Path())
}

// judgeHello makes the result of HELO that of a message with the null sender.
func (c *checks) judgeHello(ctx context.Context, e *hook.Event) hook.Verdict {
	// HELO was checked when it came, unless a proxy has said it for the client.
	found, host := e.Conn.Results(), e.Conn.Hello().Host
	if !found.Has(Name) {
		hello := *e
		hello.Host = host
		c.checkHello(ctx, &hello)
	}

	// Private clients and addresses are not checked, and a name that was says nothing of the one
	// that has replaced it.
	n, ok := e.Conn.Notes().Get(noteHello).(int)
	if !ok || found.Value(Name, valueDomain) != host {
		return hook.Proceed()
	}
	status := spf.Status(n - 1)
	e.Tx.AddAuthResult(authres.Result{Method: Name, Value: status.String(), Properties: []authres.Property{{Name: "smtp.helo", Value: host}}}.String())
	return c.answer(e, scopeHello, status, "<> via "+host)
}

// answer refuses the sender if the settings say so of a result.
func (c *checks) answer(e *hook.Event, scope string, status spf.Status, sender string) hook.Verdict {
	// Our own clients are judged by other settings: they cannot mend their records in time.
	a := &c.Strangers
	if e.Conn.Relaying() {
		a = &c.Relaying
	}
	on := a.Mail
	if scope == scopeHello {
		on = a.Hello
	}

	// The texts are Haraka's.
	text := "sender " + sender + " SPF "
	switch {
	case status == spf.None && on.None:
		return a.refuse(e, scope, "5.7.1", text+"record not found")
	case status == spf.SoftFail && on.SoftFail, status == spf.Fail && on.Fail:
		return a.refuse(e, scope, "5.7.23", text+harakaWord(status))
	case status == spf.PermError && on.PermError:
		return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, "5.7.23", text+"Permanent Error")} // about the policy, which the page did not explain
	case status == spf.TempError && on.TempError:
		return hook.Verdict{Code: hook.DenySoft, Reply: reply.New(451, "4.7.24", text+"Temporary Error")}
	}
	return hook.Proceed()
}

// refuse denies a sender.
func (a *answers) refuse(e *hook.Event, scope, enhanced, text string) hook.Verdict {
	// The link is Haraka's, for a page that is not there any more: off by default.
	if !a.OpenSPF {
		return hook.Answer(hook.Deny, text)
	}
	id := e.Sender.String()
	if scope == scopeHello {
		id = e.Conn.Hello().Host
	}
	id = strings.ReplaceAll(url.QueryEscape(id), "%40", "@") // which a query may have, and which people read
	return hook.Verdict{Code: hook.Deny, Reply: reply.New(550, enhanced, "http://www.openspf.org/Why?s="+scope+"&id="+id+
		"&ip="+e.Conn.Remote().Addr.Addr().String())}
}

// harakaWord is a result as Haraka writes it.
func harakaWord(s spf.Status) string {
	return [...]string{"None", "Pass", "Fail", "SoftFail", "Neutral", "TempError", "PermError"}[min(s, spf.PermError)]
}

// addFields writes a Received-SPF field (RFC 7208 section 9.1) for each identity that was
// checked, that of the sender on top.
func addFields(_ context.Context, e *hook.Event) hook.Verdict {
	// Results of another transaction on the connection do not count: the scope says whose they are.
	for _, of := range []struct {
		found           result.View
		scope, identity string
	}{{e.Conn.Results(), scopeHello, "helo"}, {e.Tx.Results(), scopeMail, "mailfrom"}} {
		result, _ := of.found.Value(Name, valueResult).(string)
		domain, _ := of.found.Value(Name, valueDomain).(string)
		if of.found.Value(Name, valueScope) != of.scope || result == "" {
			continue
		}
		e.Tx.Header().AddLeading("Received-SPF", describe(e, result, domain, of.identity))
	}
	return hook.Proceed()
}

// describe returns the value of a Received-SPF field.
func describe(e *hook.Event, result, domain, identity string) string {
	// The comment is for people, the words that RFC 7208 uses in its examples.
	client, does := addressOf(e), "does not designate "
	if result == harakaWord(spf.Pass) {
		does = "designates "
	}
	return result + "\r\n\t(domain of " + authres.Comment(domain) + " " + does + client.String() + " as permitted sender)\r\n\treceiver=" + e.Conn.Me() +
		";\r\n\tidentity=" + identity + "; client-ip=" + authres.Quote(client.String()) + "; helo=" + authres.Quote(e.Conn.Hello().Host) +
		";\r\n\tenvelope-from=" + authres.QuotedString(pathOf(e.Sender))
}

func addressOf(e *hook.Event) netip.Addr { return e.Conn.Remote().Addr.Addr().Unmap() }

// pathOf is a sender as Received-SPF has it.
func pathOf(a mail.Address) string {
	if a.IsNull() {
		return "<>"
	}
	return a.String()
}
