// Package helochecks is the plugin helo.checks: it compares the name that a client gives
// in HELO and EHLO with its address and its name in the DNS. See README.md.
package helochecks

import (
	"context"
	"fmt"
	"net/netip"

	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "helo.checks"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	usual := result.Format{Order: []string{"fail", "pass", "msg", "err", "skip"}, Hide: []string{"multi"}}
	return &checker{Settings: env.Settings.(*Settings), resolver: env.Resolver, recorder: env.NewRecorder(Name, usual)}, nil
}

// checker is the plugin.
type checker struct {
	*Settings
	resolver plugin.Resolver
	recorder *plugin.Recorder
}

// Register implements plugin.Plugin. The one thing that waits is bounded by lookUpTime.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnHelo, "check_name", 0, c.checkName)
	h.On(hook.OnEhlo, "check_name", 0, c.checkName)
}

// The values that are left in the results. Those with an underscore are not shown.
const (
	firstName = "helo_host" // the first name that the client has given
	lookedUp  = "ips"       // the addresses of a name
	taken     = "_accepted" // what was accepted last: verb, name, whether the client may relay, and its address
	takenName = "_host"     // the name in it
	takenVerb = "_verb"     // its verb
	takenFrom = "_address"  // the client that the others are about
)

// greeting is what the checks of one HELO or EHLO work with.
type greeting struct {
	ctx    context.Context
	verb   string // "HELO" or "EHLO"
	name   string
	addr   netip.Addr // of the client
	rdns   string     // name of the client in the DNS, NXDOMAIN, or "": not known
	before struct{ verb, name string }
	record plugin.Record

	literal   bool       // the name is an address literal
	inside    netip.Addr // the address in it
	isValid   bool       // valid_hostname was passed
	matchRDNS bool       // rdns_match was passed
}

// pass is the answer of a check that has nothing against a name, or must not reject it.
var pass = hook.Verdict{}

// checkName makes the checks that are switched on, in Haraka's order, for every name that
// a client gives: a name that was refused is refused again. One that was accepted is not
// looked at twice, for clients repeat it under TLS.
func (c *checker) checkName(ctx context.Context, e *hook.Event) hook.Verdict {
	results := e.Conn.Results()
	g := &greeting{
		ctx: ctx, verb: e.Conn.Hello().Verb, name: e.Host, addr: e.Conn.Remote().Addr.Addr(), rdns: knownName(e.Conn.Remote().Host),
		record: c.recorder.On(results),
	}
	// Once a client may relay it is asked for less, so that this is part of what was accepted.
	relaying := e.Conn.Relaying()
	now := fmt.Sprint(g.verb, " ", g.name, " ", relaying, " ", g.addr)
	if results.Value(Name, taken) == now {
		return hook.Proceed()
	}
	// Several checks treat a literal, or the name before, in their own way. What a proxy has
	// called itself before its XCLIENT does not bind the client.
	g.inside, g.literal = hostname.Literal(g.name)
	switch at := g.addr.String(); results.Value(Name, takenFrom) {
	case at:
		g.before.name, _ = results.Value(Name, takenName).(string)
		g.before.verb, _ = results.Value(Name, takenVerb).(string)
	default:
		g.record.Set(takenFrom, at)
		g.record.Set(firstName, g.name)
	}

	// Whatever the outcome, the log says it in one line.
	defer g.record.Log()
	skip := ""
	switch {
	case c.Skip.Relaying && relaying:
		skip = "(relay)"
	case c.Skip.Private && e.Conn.Remote().Private:
		skip = "(private)"
	}
	// A client that is exempt leaves a trace of every check, which karma counts.
	for _, one := range checks {
		if one.on != nil && !*one.on(&c.Check) {
			continue
		}
		if skip != "" {
			g.record.Skip(one.key + skip)
			continue
		}
		if v := one.make(c, g); v.Code != pass.Code {
			return g.record.Refuse(v)
		}
	}
	// Only what was accepted binds the client: a refused name would make every later one a mismatch.
	g.record.Set(taken, now)
	g.record.Set(takenName, g.name)
	g.record.Set(takenVerb, g.verb)
	return hook.Proceed()
}

// knownName returns the name of the client in the DNS, "" for the words that stand for
// none. NXDOMAIN is kept apart: it is an answer of the DNS.
func knownName(host string) string {
	if host == "Unknown" || host == "DNSERROR" {
		return ""
	}
	return host
}

// noName stands for a client that has no name in the DNS.
const noName = "NXDOMAIN"

// check is one of the checks.
type check struct {
	key  string
	on   func(*Checks) *bool // its switch; nil: it is always made
	make func(*checker, *greeting) hook.Verdict
}

// checks are all of them, in their order.
var checks = []check{
	{"proto_mismatch", func(s *Checks) *bool { return &s.ProtoMismatch }, (*checker).compareVerb},
	{"match_re", func(s *Checks) *bool { return &s.MatchRE }, (*checker).matchExpressions},
	{"bare_ip", func(s *Checks) *bool { return &s.BareIP }, (*checker).findBareAddress},
	{"dynamic", func(s *Checks) *bool { return &s.Dynamic }, (*checker).findDynamicName},
	{"big_company", func(s *Checks) *bool { return &s.BigCompany }, (*checker).checkCompany},
	{"valid_hostname", func(s *Checks) *bool { return &s.ValidHostname }, (*checker).checkHostname},
	{"rdns_match", func(s *Checks) *bool { return &s.RDNSMatch }, (*checker).compareRDNS},
	{"forward_dns", func(s *Checks) *bool { return &s.ForwardDNS }, (*checker).lookUp},
	{"host_mismatch", func(s *Checks) *bool { return &s.HostMismatch }, (*checker).compareName},
	{"literal_mismatch", nil, (*checker).compareLiteral},
}

// rejectIf denies with a text if a switch is on.
func rejectIf(on bool, text string) hook.Verdict {
	if !on {
		return pass
	}
	return hook.Answer(hook.Deny, text)
}

// deferIf defers with a text if a switch is on: what the DNS does not say now it may say
// later.
func deferIf(on bool, text string) hook.Verdict {
	if !on {
		return pass
	}
	return hook.Answer(hook.DenySoft, text)
}

// notASCII is the reply to a name in other characters than those of ASCII.
func notASCII() hook.Verdict {
	return hook.Verdict{Code: hook.Deny, Reply: reply.New(501, "5.5.4",
		"HELO/EHLO argument invalid - HELO hostname contains non-ASCII characters (RFC 5321 2.3.5), closing connection")}
}
