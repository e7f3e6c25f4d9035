// Package access is the plugin access: lists of clients, senders, recipients and domains
// that are let in or refused. See README.md.
package access

import (
	"context"
	"strings"

	"tarishi/internal/hook"
	"tarishi/internal/hostname"
	"tarishi/internal/mail/addresslist"
	"tarishi/internal/message"
	"tarishi/internal/plugin"
	"tarishi/internal/result"
)

// Name is the plugin's name in config/plugins.
const Name = "access"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	return &keeper{Settings: env.Settings.(*Settings), recorder: env.NewRecorder(Name, result.Format{})}, nil
}

// keeper is the plugin.
type keeper struct {
	*Settings
	recorder *plugin.Recorder
}

// Register implements plugin.Plugin. The lists of a hook come before the domains, which
// count at every hook.
func (k *keeper) Register(h plugin.Host) {
	h.Timeout(0)
	if k.Check.Conn {
		h.On(hook.OnConnect, "rdns_access", 0, k.checkClient)
	}
	if k.Check.Mail {
		h.On(hook.OnMail, "mail_from_access", 0, k.checkSender)
	}
	if k.Check.Rcpt {
		h.On(hook.OnRcpt, "rcpt_to_access", 0, k.checkRecipient)
	}
	if k.Check.Any {
		for _, p := range []hook.Point{hook.OnConnect, hook.OnHelo, hook.OnEhlo, hook.OnMail, hook.OnRcpt} {
			h.On(p, "any", 0, k.checkDomain)
		}
		h.On(hook.OnDataPost, "data_any", 0, k.checkAuthor)
	}
}

// checkClient looks for the address of a client in its lists, and for its name.
func (k *keeper) checkClient(_ context.Context, e *hook.Event) hook.Verdict {
	record := k.recorder.On(e.Conn.Results())
	// The address cannot be chosen by the client, so it comes before the name.
	remote := e.Conn.Remote()
	known := []string{remote.Addr.Addr().String(), strings.ToLower(remote.Host)}
	if file := k.Clients.White.find(known...); file != "" {
		record.Pass(file)
		record.Set(allowed, true)
		record.Log()
		return hook.Proceed()
	}
	if file := k.Clients.Black.find(known...); file != "" {
		record.Fail(file)
		record.Log()
		return record.Refuse(hook.Answer(hook.DenyDisconnect, remote.Host+" ["+known[0]+"] "+k.Denial.Conn))
	}
	record.Msg("unlisted(conn)")
	return hook.Proceed()
}

// The values that are left in the results.
const (
	allowed = "whitelist"
	refused = "blacklist"
)

// checkSender looks for a sender in its lists.
func (k *keeper) checkSender(_ context.Context, e *hook.Event) hook.Verdict {
	record := k.recorder.On(e.Tx.Results())
	// Reports have no sender that could be listed.
	if e.Sender.IsNull() {
		record.Skip("null sender")
		record.Log()
		return hook.Proceed()
	}
	return k.checkAddress(record, "mail", e.Sender.String(), &k.Senders, k.Denial.Mail, hook.Proceed())
}

// checkRecipient looks for a recipient in its lists.
func (k *keeper) checkRecipient(_ context.Context, e *hook.Event) hook.Verdict {
	// Whether a recipient exists is for other plugins to say, unless the site wants otherwise.
	good := hook.Proceed()
	if k.AcceptRcpt {
		good = hook.Answer(hook.OK, "")
	}
	return k.checkAddress(k.recorder.On(e.Tx.Results()), "rcpt", e.Recipient.Address.String(), &k.Recipients, k.Denial.Rcpt, good)
}

// checkAddress looks for an address in two lists. good is the answer to one that is let
// in.
func (k *keeper) checkAddress(record plugin.Record, phase, address string, in *lists, denial string, good hook.Verdict) hook.Verdict {
	if file := in.White.find(address); file != "" {
		record.Pass(file)
		record.Log()
		return good
	}
	if file := in.Black.find(address); file != "" {
		record.Fail(file)
		record.Log()
		return record.Refuse(hook.Answer(hook.Deny, address+" "+denial))
	}
	record.Msg("unlisted(" + phase + ")")
	return hook.Proceed()
}

// party is what access.domains is searched for: a domain, the organisational domain that
// it belongs to, and an address in it if there is one.
type party struct{ domain, organisation, address string }

// named returns the party that an event is about, without its organisation.
func named(e *hook.Event) party {
	switch e.Point {
	case hook.OnConnect:
		switch host := e.Conn.Remote().Host; host {
		case "DNSERROR", "Unknown", "NXDOMAIN":
			return party{}
		default:
			return party{domain: host}
		}
	case hook.OnHelo, hook.OnEhlo:
		if _, literal := hostname.Literal(e.Host); literal {
			return party{}
		}
		return party{domain: e.Host}
	case hook.OnMail:
		return party{domain: e.Sender.Host(), address: e.Sender.String()}
	default:
		return party{domain: e.Recipient.Address.Host(), address: e.Recipient.Address.String()}
	}
}

// checkDomain looks for the domain of a client, a name, a sender or a recipient in
// access.domains.
func (k *keeper) checkDomain(_ context.Context, e *hook.Event) hook.Verdict {
	of := named(e)
	if of.domain == "" {
		return hook.Proceed()
	}
	// A name without a dot is in no domain that could be listed, and odd by itself.
	record := k.recorder.On(e.Conn.Results())
	if !strings.Contains(of.domain, ".") {
		record.Fail("invalid domain: " + of.domain)
		record.Log()
		return hook.Proceed()
	}
	if of.organisation = hostname.Organisation(of.domain); of.organisation == "" {
		return hook.Proceed()
	}
	point := string(e.Point)
	return k.decide(record, of, point+":"+domainFile, point+":any", "You are not welcome here.")
}

// checkAuthor looks for the domain of From in access.domains.
func (k *keeper) checkAuthor(_ context.Context, e *hook.Event) hook.Verdict {
	record := k.recorder.On(e.Tx.Results())
	// Mail without a readable author is for other plugins to judge.
	from := message.DecodeWords(e.Tx.Header().Get("From"))
	if from == "" {
		record.Fail("data(missing_from)")
		return hook.Proceed()
	}
	authors, err := addresslist.Parse(e.Tx.Header().Get("From"))
	if err != nil || len(authors) == 0 {
		record.Fail("data(unparsable_from:" + from + ")")
		return hook.Proceed()
	}
	author := authors[0]
	of := party{author.Host(), hostname.Organisation(author.Host()), author.String()}
	if of.organisation == "" {
		record.Fail("data(no_od_from:" + author.Path() + ")")
		return hook.Proceed()
	}

	// What follows is about the connection, as in Haraka.
	return k.decide(k.recorder.On(e.Conn.Results()), of, domainFile, "any", "Email from that domain is not accepted here.")
}

// decide looks for a party in access.domains. An entry that lets a name in wins
// over an entry that refuses its domain. passed and unlisted are what the results say.
func (k *keeper) decide(record plugin.Record, of party, passed, unlisted, denial string) hook.Verdict {
	switch {
	case k.Domains.lets(of.organisation, of.domain, of.address):
		record.Pass(passed)
		record.Set(allowed, true)
		record.Log()
		return hook.Proceed()
	case k.Domains.refuses(of.organisation) || k.Domains.refuses(of.address):
		record.Fail(domainFile + "(" + of.organisation + ")")
		record.Set(refused, true)
		record.Log()
		return record.Refuse(hook.Answer(hook.Deny, denial))
	}
	record.Msg("unlisted(" + unlisted + ")")
	return hook.Proceed()
}
