// Package fcrdns is the plugin fcrdns: a client's address has a name in the DNS, and the
// name has the address (forward-confirmed reverse DNS, RFC 8601 section 3). See README.md.
package fcrdns

import (
	"context"
	"net/netip"
	"strings"

	"tarishi/internal/authres"
	"tarishi/internal/hook"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "fcrdns"

// accessPlugin is the one with a list of clients that are let in.
const accessPlugin = "access"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	usual := result.Format{Hide: []string{valueNames, valueAddresses, valueHasAddresses, valueMultiple, valueHasNames}}
	return &checker{Settings: env.Settings.(*Settings), resolver: env.Resolver, recorder: env.NewRecorder(Name, usual)}, nil
}

// checker is the plugin.
type checker struct {
	*Settings
	resolver plugin.Resolver
	recorder *plugin.Recorder
}

// The priorities of the handlers that are not among those of other plugins: the refusal
// comes behind the lists of access, the fields in front of what looks at the header.
const (
	behindLists = 10
	firstOfAll  = -10
)

// Register implements plugin.Plugin. All that waits is bounded by the plugin's own timeout.
func (c *checker) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnConnectInit, "initialize_fcrdns", 0, c.initialize)
	h.On(hook.OnLookupRDNS, "do_dns_lookups", 0, c.lookUp)
	h.On(hook.OnConnect, "refuse_client", behindLists, c.refuseClient)
	h.On(hook.OnDataPost, "add_message_headers", firstOfAll, c.addFields)
}

// The values that are left in the results.
const (
	valueConfirmed    = "fcrdns"           // names that have the address, or one in its /24
	valueInvalid      = "invalid_tlds"     // names below no top-level domain
	valueOthers       = "other_ips"        // addresses of names that do not have the client's
	valueNames        = "ptr_names"        // all names
	valueMultiple     = "ptr_multidomain"  // whether they are in several organisations
	valueHasNames     = "has_rdns"         // whether there are any
	valueHasAddresses = "ptr_name_has_ips" // whether a name has an address
	valueAddresses    = "ptr_name_to_ip"   // the addresses of each name
	valueGeneric      = "generic_rdns"     // whether a name looks like that of a customer's line
	valueRefusal      = "_refusal"         // the verdict that is due at connect
	valueOutcome      = "_iprev"           // the word of RFC 8601 section 2.7.3
)

// initialize gives every value its default, so that readers find them all.
func (c *checker) initialize(_ context.Context, e *hook.Event) hook.Verdict {
	record := c.recorder.On(e.Conn.Results())
	for _, name := range []string{valueConfirmed, valueInvalid, valueOthers, valueNames} {
		record.Set(name, []string{})
	}
	for _, name := range []string{valueMultiple, valueHasNames, valueHasAddresses} {
		record.Set(name, false)
	}
	record.Set(valueAddresses, map[string]any{})
	record.Set(valueGeneric, false)
	return hook.Proceed()
}

// lookUp looks for the names of a client, and for their addresses. What has to be refused
// is refused at connect, when it is known whether the client is let in by name.
func (c *checker) lookUp(ctx context.Context, e *hook.Event) hook.Verdict {
	record := c.recorder.On(e.Conn.Results())
	defer record.Log()
	// The DNS of the world knows nothing of private addresses.
	remote := e.Conn.Remote()
	if remote.Private {
		record.Skip("private_ip")
		return hook.Proceed()
	}
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	// The time is that of the whole search, however many names there are.
	s := &search{checker: c, addr: remote.Addr.Addr(), record: record, addresses: map[string]any{}}
	outcome := s.run(ctx)
	if s.refusal.Code != 0 {
		record.Set(valueRefusal, s.refusal)
	}
	// A client that is refused on the way sends no message that could show an outcome.
	if outcome != "" {
		record.Set(valueOutcome, outcome)
	}
	return hook.Proceed()
}

// refuseClient gives the verdict that lookUp has left, unless the client is let in.
func (c *checker) refuseClient(_ context.Context, e *hook.Event) hook.Verdict {
	// The list has been asked by now: this handler runs behind those of other plugins.
	refusal, due := e.Conn.Results().Value(Name, valueRefusal).(hook.Verdict)
	if !due || e.Conn.Results().Value(accessPlugin, "whitelist") == true {
		return hook.Proceed()
	}
	return c.recorder.On(e.Conn.Results()).Refuse(refusal)
}

// The fields with the names and other addresses of the client.
const (
	fieldNames  = "X-Haraka-FCrDNS"
	fieldOthers = "X-Haraka-rDNS-OtherIPs"
)

// addFields writes what was found into the header section, on top of what came in, and
// takes away what the client says of itself.
func (c *checker) addFields(_ context.Context, e *hook.Event) hook.Verdict {
	header, results := e.Tx.Header(), e.Conn.Results()
	// A client could claim any name in these fields.
	header.Remove(fieldNames)
	header.Remove(fieldOthers)
	if others := results.Texts(Name, valueOthers); len(others) > 0 {
		header.AddLeading(fieldOthers, strings.Join(others, " "))
	}
	if names := results.Texts(Name, valueConfirmed); len(names) > 0 {
		header.AddLeading(fieldNames, strings.Join(names, " "))
	}
	if outcome, ok := results.Value(Name, valueOutcome).(string); ok {
		e.Tx.AddAuthResult(authres.Result{
			Method: "iprev", Value: outcome, Properties: []authres.Property{{Name: "policy.iprev", Value: e.Conn.Remote().Addr.Addr().String()}},
		}.String())
	}
	return hook.Proceed()
}

// texts are addresses as they are written.
func texts(addrs []netip.Addr) []string {
	all := make([]string, 0, len(addrs))
	for _, addr := range addrs {
		all = append(all, addr.String())
	}
	return all
}
