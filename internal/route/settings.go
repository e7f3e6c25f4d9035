package route

import (
	"net/netip"
	"slices"
	"time"

	"tarishi/internal/grant"
	"tarishi/internal/ini"
	"tarishi/internal/mail"
	"tarishi/internal/oauth"
	"tarishi/internal/tlsconf"
)

// File is where the routes stand.
const File = "smtp_forward.ini"

// Settings is smtp_forward.ini.
type Settings struct {
	Main           Route
	Routes         map[string]*Route // by canonical domain, "*." and one, or full lower-case address
	DomainSelector string            // rcpt_to, mail_from
	CheckSender    bool
	CheckRecipient bool
	Split          string           // recipients with different routes: defer, fanout
	ReplyCodes     string           // of a backend's refusal: flatten, pass
	TLS            tlsconf.Outbound // [tls], and tls.ini's [outbound] for missing keys
	Configured     bool             // a host is set somewhere

	keys HostKeys // of main
}

// Route is the main part of smtp_forward.ini or one of its sections.
type Route struct {
	Name string // the section's, or "main"
	Line int
	// Hosts are tried in order; protocol, port, local address, EHLO name and
	// how they get to know the client are resolved. Credentials are not in them.
	Hosts     []mail.NextHop
	InTurn    bool          // each message begins with another of the hosts
	DeadRetry time.Duration // after which a host that could not be reached is looked at again

	EnableOutbound bool
	Queue          string // name of the queue plugin that the route wants; "": none
	OnFailure      string // no backend took the message: reply, queue
	PassCodes      bool   // refusals keep the backend's own codes: reply_codes, which is for all routes
	EnableTLS      bool
	RequireTLS     bool
	TLSVerify      bool
	// RejectUnauthorized is tls.ini's: where TLS is used, the certificate must be
	// valid. It holds unless the route says something about certificates itself.
	RejectUnauthorized bool

	AuthType     string // "", some of plain, login and cram-md5, some of oauth.Mechanisms, external, or forward (the client's own credentials)
	AuthUser     string
	AuthPass     string
	Grant        grant.Grant // of access tokens
	AuthInsecure bool        // credentials may go in clear to public addresses

	Bind          netip.Addr // local address; zero: the system chooses
	BindHelo      string     // EHLO name; "": our own
	ForwardClient string     // how a backend gets to know the client: none, xforward, xclient

	ConnectTimeout    time.Duration
	Timeout           time.Duration // idle life of a kept connection; 0: no reuse
	CommandTimeout    time.Duration
	SubmissionTimeout time.Duration // for the reply to the final dot
	MaxConnections    int
	MaxMessages       int // on one connection
	MaxAge            time.Duration
	OneMessagePerRcpt bool
}

// The words of auth_type and of the choices above that others look for.
const (
	AuthForward = "forward"
	SplitDefer  = "defer"
	FailToQueue = "queue"
	PassCodes   = "pass"
)

// Tables declares the keys of smtp_forward.ini. What [tls] does not say is in base,
// which has to be read before.
func (s *Settings) Tables(base *tlsconf.Outbound) []*ini.Table {
	return []*ini.Table{{
		File: File,
		Doc: `Routes of the plugin queue/smtp_forward: the server to which a message is relayed while its client waits for
			the answer.

			What stands above the first section holds for all mail, a section for one domain ([example.com]), all domains
			below it ([*.example.com]) or, with domain_selector=mail_from, one address ([user@example.com]). A section
			inherits every key but those that follow "for all sections" below. Hosts and credentials (auth_*) belong
			together: a section without hosts, which may be quite empty, uses those from here; with hosts or auth_* of its
			own it has none of these credentials.`,
		Rows: slices.Concat(s.TLS.ForwardRows(&s.Main.TLSVerify), s.Main.rows(&s.keys), s.rows()),
		Sections: map[string]string{
			"tls": `What is not set here is as in the section [outbound] of tls.ini, with its rejectUnauthorized as far as
				tls_verify is not set.`,
		},
		Quiet: true,
		Printed: func() []ini.Row {
			return slices.Concat(s.TLS.ForwardRows(&s.Main.TLSVerify), s.Main.printed(), s.rows())
		},
		Many: &ini.Many{
			Title: "Sections for domains and addresses",
			Doc: `A section for a domain has the keys of the main part but for domain_selector, split, reply_codes, check_sender
				and check_recipient.`,
			Example:  "[example.com]\nhost=192.0.2.11\n\n[example.net]\nenable_outbound=false\n",
			Sections: s.parts,
		},
		Other: map[string]string{
			"targets": "host", "attempt_starttls": "enable_tls",
			"tls_client": "the section [tls]", "auth": "auth_type, with auth_user and auth_pass; for forward and external auth_type alone",
			"debug": "level of log.ini, for the whole server",
		},

		// [tls] begins with what tls.ini says, and must not change it.
		Begin: func(*ini.Reader) {
			s.Main.Name, s.Routes, s.TLS = "main", map[string]*Route{}, *base
			s.TLS.NoTLSHosts, s.TLS.ForceTLSHosts = slices.Clone(base.NoTLSHosts), slices.Clone(base.ForceTLSHosts)
		},
		Finish: func(r *ini.Reader) { s.finish(r, base) },
	}}
}

// rows are the keys that only the main part has.
func (s *Settings) rows() []ini.Row {
	return []ini.Row{
		{
			Key: "domain_selector", Kind: ini.Choice(&s.DomainSelector, "rcpt_to", "mail_from"), Default: "rcpt_to",
			Doc: "For all sections: what chooses the section.",
		},
		{
			Key: "split", Kind: ini.Choice(&s.Split, SplitDefer, "fanout"), Default: SplitDefer, Haraka: ini.None,
			Doc: `For all sections: a recipient with another route than those before it. defer: it gets 450 and comes again by
				itself. fanout: it is accepted, the message is queued once and relayed by each route, as mail of clients that
				may relay is in any case.`,
		},
		{
			Key: "reply_codes", Kind: ini.Choice(&s.ReplyCodes, "flatten", PassCodes), Default: "flatten", Haraka: ini.None,
			Doc: "For all sections: refusals of a server. flatten: 550 or 450. pass: the server's own codes.",
		},
		{
			Key: "check_sender", Kind: ini.Bool(&s.CheckSender), Default: "false",
			Doc: "For all sections: true: senders of domains with a section here must be allowed to relay.",
		},
		{
			Key: "check_recipient", Kind: ini.Bool(&s.CheckRecipient), Default: "false",
			Doc: "For all sections: true: mail to domains with a section here is accepted without host_list.",
		},
	}
}

// rows are the keys that main and every section may have.
func (r *Route) rows(h *HostKeys) []ini.Row {
	const listed = "has no effect here, it belongs to [tls]"
	return slices.Concat(r.hostRows(h), r.securityRows(), r.timeRows(), []ini.Row{
		{Key: "no_tls_hosts", Note: listed},
		{Key: "force_tls_hosts", Note: listed, Stops: ini.Anything},
	})
}

// hostRows say where mail goes.
func (r *Route) hostRows(h *HostKeys) []ini.Row {
	return []ini.Row{
		{
			Key: "host", Kind: ini.Text(&h.Host), Example: "192.0.2.10",
			Doc: `One or more servers, tried in this order, separated by blanks or commas: host, host:port, [ipv6]:port,
				tls://host:465 (TLS at once), lmtp://host:24, unix:/path/of/socket (SMTP), lmtp+unix:/path/of/socket.`,
		},
		{
			Key: "forwarding_host_pool", Kind: ini.Text(&h.Pool), Example: "192.0.2.10 192.0.2.11",
			Doc: "Servers that take turns, written as above. host has no effect beside it.",
		},
		{
			Key: "dead_forwarding_host_retry_secs", Kind: ini.Duration(&r.DeadRetry, time.Second), Default: "10",
			Doc: `How long after one of several servers could not be reached it is looked at again, by a connection of its own.
				Until it answers no message waits for it.`,
		},
		{
			Key: "port", Kind: ini.Port(&h.Port), Example: "25",
			Doc: "The port of hosts without one, in the sections too that do not set their own.",
		},
		{
			Key: "using_lmtp", Kind: ini.Bool(&h.LMTP), Default: "false", Haraka: ini.None,
			Doc: "Speak LMTP to the hosts without a scheme (port 24 unless it is set).",
		},
		{
			Key: "enable_outbound", Kind: ini.Bool(&r.EnableOutbound), Default: "true",
			Doc: `true: mail of clients that may relay is forwarded as well. false: it goes to the queue and from there to the
				MX of each domain.`,
		},
		{
			Key: "on_failure", Kind: ini.Choice(&r.OnFailure, "reply", FailToQueue), Default: "reply", Haraka: ini.None,
			Doc: `When no server took a message and none refused it for good. reply: the client is told and keeps it. queue: it
				is accepted, queued and relayed later.`,
		},
		{
			Key: "queue", Kind: ini.Text(&r.Queue),
			Doc: `The queue plugin that shall take the mail instead of this one; outbound: the queue, and from there the hosts of
				the section or the MX.`,
		},
		{
			Key: "bind", Kind: address(&r.Bind), Example: "192.0.2.1", Haraka: ini.None,
			Doc: "The local address to connect from. Default: the system's choice.",
		},
		{
			Key: "bind_helo", Kind: heloName(&r.BindHelo), Example: "mx.example.com", Haraka: ini.None,
			Doc: "The name in EHLO. Default: config/me.",
		},
		{
			Key: "forward_client", Kind: ini.Choice(&r.ForwardClient, "none", "xforward", "xclient"), Default: "none", Haraka: ini.None,
			Doc: `How a server that offers it is told which client a message came from: none, xforward (for its log) or xclient
				(it acts as if that client had connected).`,
		},
	}
}

// securityRows say how the servers are trusted, and how they trust us.
func (r *Route) securityRows() []ini.Row {
	return slices.Concat([]ini.Row{
		{Key: "enable_tls", Kind: ini.Bool(&r.EnableTLS), Default: "false", Doc: "Use STARTTLS if the server offers it."},
		{Key: "require_tls", Kind: ini.Bool(&r.RequireTLS), Default: "false", Haraka: ini.None, Doc: "Demand TLS."},
		{
			Key: "tls_verify", Kind: ini.Bool(&r.TLSVerify), Default: "false", Haraka: ini.None,
			Doc: "Demand TLS with a certificate that is valid for the server's name.",
		},
		{
			Key: "auth_type", Kind: Mechanisms(&r.AuthType, "external", AuthForward), Example: "plain",
			Doc: `Log in at the server: by one or more of plain, login and cram-md5, of which the first that the server offers is
				used; or xoauth2 or oauthbearer, or both (with an access token, see auth_token_url); or external (the client
				certificate of [tls]); or forward (with the name and password that our client has shown). A server that does not
				let us in gets no mail. Outside private networks credentials go only through TLS, unless auth_insecure.`,
		},
		{Key: "auth_user", Kind: ini.Text(&r.AuthUser), Example: "user", Once: "auth_pass", Doc: "The name to log in with."},
		{Key: "auth_pass", Kind: ini.Secret(&r.AuthPass), Example: "password", Doc: "The password to log in with, or an access token."},
	}, oauth.Rows(&r.Grant), []ini.Row{
		{
			Key: "auth_insecure", Kind: ini.Bool(&r.AuthInsecure), Default: "false", Haraka: ini.None,
			Doc: "true: credentials may go in clear to public addresses.",
		},
	})
}

// timeRows bound connections and waiting.
func (r *Route) timeRows() []ini.Row {
	return []ini.Row{
		{
			Key: "connect_timeout", Kind: ini.Duration(&r.ConnectTimeout, time.Second), Default: "30",
			Doc: `How long connecting may take, all addresses of a host together (and the greeting, if there is another host to
				ask).`,
		},
		{
			Key: "timeout", Kind: ini.Duration(&r.Timeout, 0), Default: "300",
			Doc: "How long an idle connection is kept. 0: not at all.",
		},
		{
			Key: "command_timeout", Kind: ini.Duration(&r.CommandTimeout, time.Second), Default: "300", Haraka: ini.None,
			Doc: "How long the reply to a command may take.",
		},
		{
			Key: "submission_timeout", Kind: ini.Duration(&r.SubmissionTimeout, time.Second), Default: "720", Haraka: ini.None,
			Doc: `How long the reply to the whole message may take. Our client waits for that reply too, most for ten minutes or
				more: one that gives up earlier sends the message again.`,
		},
		{
			Key: "max_connections", Kind: ini.AtLeast(&r.MaxConnections, 1), Default: "1000",
			Doc: `Connections that are in use, over all hosts, and kept to one of them (with auth_type=forward, by one user).`,
		},
		{
			Key: "max_messages", Kind: ini.AtLeast(&r.MaxMessages, 1), Default: "100", Haraka: ini.None,
			Doc: "Messages on one connection.",
		},
		{
			Key: "max_age", Kind: ini.Duration(&r.MaxAge, time.Second), Default: "900", Haraka: ini.None,
			Doc: "The age at which a connection is not used again.",
		},
		{
			Key: "one_message_per_rcpt", Kind: ini.Bool(&r.OneMessagePerRcpt), Default: "false",
			Doc: "One transaction for each recipient.",
		},
	}
}
