// Package checks starts relays with the plugins that check mail, and has clients and a DNS
// whose mail passes all checks. It proves that every check is made before the relay is
// measured: a plugin that is skipped would be a fast one.
//
// It is for the network of package namespace: clients have addresses of the world, and the
// DNS is the system's.
package checks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"tarishi/internal/dkim"
	"tarishi/internal/dkim/canon"
	"tarishi/internal/mail"
	"tarishi/internal/test/dnstest"
	"tarishi/internal/test/load"
	"tarishi/internal/test/load/instance"
)

// The plugins that check mail, in the order of config/plugins: all ten, and those of them
// that need no signature and no record of the sender.
const (
	All   = "relay access limit dns-list fcrdns helo.checks mail_from.is_resolvable spf headers dkim"
	Cheap = "relay access limit dns-list fcrdns helo.checks mail_from.is_resolvable headers"
)

// settings are config files of the checks, the same for both servers. Every check is
// on, and every limit is counted and out of reach.
var settings = map[string]string{
	"config/relay_acl_allow":                     "5.46.1.0/24\n5.47.1.1\n",
	"config/connect.rdns_access.blacklist":       "evil.net\n5.48.1.1\n",
	"config/connect.rdns_access.blacklist_regex": ".*\\.dsl\\.net\n",
	"config/mail_from.access.blacklist":          "bad@evil.net\n",
	"config/mail_from.access.blacklist_regex":    ".*@.*\\.evil\\.net\n",
	"config/rcpt_to.access.blacklist":            "closed@sink.test\n",
	"config/rcpt_to.access.blacklist_regex":      "old-.*@sink\\.test\n",
	"config/dns-list.ini":                        "periodic_checks=30\nsearch=all\nzones[]=one.net\nzones[]=two.net\n",
	"config/helo.checks.regexps":                 ".*\\.evil\\.net\n",
	"config/helo.checks.ini":                     "[reject]\nmatch_re=true\nbare_ip=true\nvalid_hostname=true\nrdns_match=true\nforward_dns=true\nhost_mismatch=true\n",
	"config/fcrdns.ini":                          "[reject]\nno_rdns=true\nno_fcrdns=true\n",
	"config/mail_from.is_resolvable.ini":         "timeout_ms=3000\n",
	"config/headers.ini":                         "[reject]\nduplicate_singular=true\nmissing_required=true\ninvalid_date=true\n",
	"config/spf.ini":                             "[deny]\nhelo_fail=true\nmfrom_none=true\nmfrom_fail=true\nmfrom_softfail=true\n",
	"config/limit.ini":                           limitSettings(),
}

func limitSettings() string {
	var b strings.Builder
	b.WriteString("[main]\ntarpit_delay=0\n")
	for _, section := range []string{"concurrency", "errors", "recipients", "unrecognized_commands"} {
		fmt.Fprintf(&b, "[%s]\nenabled=true\nmax=100000\n", section)
	}
	b.WriteString("[rate_conn]\nenabled=true\ndefault=10000000/1m\n5.48.2.1=1/5m\n")
	for _, section := range []string{"rate_rcpt_host", "rate_rcpt_sender", "rate_rcpt"} {
		fmt.Fprintf(&b, "[%s]\nenabled=true\ndefault=10000000/1m\n", section)
	}
	return b.String()
}

// RedisServer keeps what Haraka's limit counts. It listens on its usual port of loopback.
const RedisServer = "redis-server"

// Nameserver is the address of the DNS.
const Nameserver = "127.0.0.1"

// Clients is how many clients there are, each with an address of its own.
const Clients = 20

const (
	senderDomain = "letters-by-courier.com"
	selector     = "nov2026"
)

// Senders are the clients, and what the DNS says of them.
type Senders struct {
	dns     *dnstest.Server
	origins []load.Origin
	key     dkim.Key
}

// Start starts the DNS, until Close.
func Start() (*Senders, error) {
	private, err := dkim.NewKey("rsa")
	if err != nil {
		return nil, err
	}
	s := &Senders{key: dkim.Key{Selector: selector, Private: private}}
	record, err := s.key.Record()
	if err != nil {
		return nil, err
	}
	if s.dns, err = dnstest.StartAt(Nameserver + ":53"); err != nil {
		return nil, err
	}

	// Records last longer than a run: caches are as full as those of a site that is in use.
	s.dns.SetTTL(3600, 3600)
	s.dns.TXT(selector+"._domainkey."+senderDomain, record)
	s.dns.TXT(senderDomain, "v=spf1 ip4:5.45.1.0/24 ip4:5.46.0.0/15 ip4:5.48.0.0/16 -all")
	s.dns.MX(senderDomain, 10, "mx."+senderDomain)
	s.dns.A("mx."+senderDomain, "5.45.2.1")
	for _, zone := range []string{"one.net", "two.net"} {
		s.dns.A("2.0.0.127."+zone, "127.0.0.2")
	}
	for i := range Clients {
		s.origins = append(s.origins, s.addOrigin(i, netip.AddrFrom4([4]byte{5, 45, 1, byte(i + 1)})))
	}
	return s, nil
}

// addOrigin gives an address a name, in both directions.
func (s *Senders) addOrigin(n int, addr netip.Addr) load.Origin {
	o := load.Origin{Addr: addr, Name: fmt.Sprintf("mail%d.%s", n, senderDomain)}
	s.dns.PTR(addr.String(), o.Name)
	s.dns.A(o.Name, addr.String())
	s.dns.TXT(o.Name, "v=spf1 a -all")
	return o
}

// Close stops the DNS.
func (s *Senders) Close() { s.dns.Close() }

// Dress makes a load one of these clients.
func (s *Senders) Dress(l *load.Load) {
	l.From, l.Origins, l.Seal = "load@"+senderDomain, s.origins, s.seal
}

// Questions is how many questions the DNS has had; none without Senders.
func (s *Senders) Questions() int {
	if s == nil {
		return 0
	}
	return s.dns.Queries()
}

// seal returns the DKIM-Signature of a message.
func (s *Senders) seal(message []byte) ([]byte, error) {
	return dkim.Sign(mail.Memory{message}, senderDomain, []dkim.Key{s.key}, &dkim.Signing{
		Headers: []string{"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"},
		Sealed:  []string{"From"}, Header: canon.Relaxed, Body: canon.Relaxed,
	}, time.Now().Add(-time.Minute))
}

// Launch starts a server in dir with these files.
type Launch func(dir string, files map[string]string) (*instance.Server, error)

// StartRelay starts a relay to port of 127.0.0.1, with plugins that check the mail to a
// domain, in dir, where it has been on trial before.
func (s *Senders) StartRelay(ctx context.Context, plugins, domain, dir string, port int, launch Launch) (*instance.Server, error) {
	files := maps.Clone(settings)
	maps.Copy(files, map[string]string{
		"config/plugins":          strings.ReplaceAll(plugins, " ", "\n") + "\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"config/host_list":        domain + "\n",
		"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
		"config/log.ini":          "[main]\nlevel=info\n",
	})
	trial, err := launch(filepath.Join(dir, "trial"), files)
	if err != nil {
		return nil, err
	}
	err = s.prove(ctx, plugins, domain, trial)
	stop, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	trial.Stop(stop)
	if err != nil {
		return nil, err
	}

	// What proves the checks is not logged while the server is measured.
	files["config/log.ini"] = "[main]\nlevel=warn\n"
	return launch(dir, files)
}

// prove sends messages from each address until the log says that every check was made
// for all of them: a server that has just started may not have all of its lists yet. Then it
// does what the checks without a line in the log must see.
func (s *Senders) prove(ctx context.Context, plugins, domain string, server *instance.Server) error {
	var err error
	for began := time.Now(); time.Since(began) < proofTime; time.Sleep(200 * time.Millisecond) {
		before := len(server.Log())
		l := load.Load{Addr: server.Addr(), Clients: Clients, Messages: Clients, PerSession: 1, Domain: domain}
		s.Dress(&l)
		if report := l.Send(ctx); report.Accepted != Clients {
			err = fmt.Errorf("%d of %d messages were accepted: %w", report.Accepted, Clients, report.Err)
			continue
		}
		if err = findChecks(plugins, server.Log()[before:]); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	for i, p := range probes {
		if err := s.probe(ctx, Clients+i, p, domain, server.Addr()); err != nil {
			return fmt.Errorf("%s: %w", p.plugin, err)
		}
	}
	return nil
}

// proofTime is how long a server may take until all checks are made.
const proofTime = 15 * time.Second

// marks are what the checks of a message that passes them leave in the logs of both servers.
var marks = map[string]*regexp.Regexp{
	"dns-list":                regexp.MustCompile(`\[dns-list\] pass:(one|two)\.net, (one|two)\.net`),
	"fcrdns":                  regexp.MustCompile(`\[fcrdns\].*(pass:fcrdns| fcrdns="mail)`),
	"helo.checks":             regexp.MustCompile(`\[helo\.checks\].* pass:.*rdns_match, forward_dns, host_mismatch`),
	"mail_from.is_resolvable": regexp.MustCompile(`\[mail_from\.is_resolvable\] pass:has_fwd_dns`),
	"spf":                     regexp.MustCompile(`\[spf\].*\bmfrom\b.*result(=|: )[Pp]ass`),
	"dkim":                    regexp.MustCompile(`\[dkim\].*result=pass`),
}

// findChecks reports the first of plugins that a log lacks.
func findChecks(plugins, log string) error {
	for plugin := range strings.FieldsSeq(plugins) {
		if mark := marks[plugin]; mark != nil && len(mark.FindAllString(log, -1)) < Clients {
			return fmt.Errorf("%s has not passed %d messages", plugin, Clients)
		}
	}
	return nil
}

// probe is two messages, one after the other, each on a connection of its own.
type probe struct {
	plugin  string
	addr    string // of the client
	domain  string // of the recipients; "": the one that is the server's
	field   string // on top of the messages
	refusal string // part of the first refusal; "": both are accepted
}

// probes are for the checks that need not say in a log that they have passed something.
var probes = []probe{
	{plugin: "relay", addr: "5.46.1.1", domain: "elsewhere.test"},
	{plugin: "access", addr: "5.48.1.1", refusal: "You are not allowed to connect"},
	{plugin: "limit", addr: "5.48.2.1", refusal: "connection rate limit exceeded"},
	{plugin: "headers", addr: "5.48.3.1", field: "Subject: another\r\n", refusal: "Only one Subject"},
}

// probe makes a probe. Its client has the name with number n.
func (s *Senders) probe(ctx context.Context, n int, p probe, domain, server string) error {
	report := load.Load{
		Addr: server, Messages: 2, PerSession: 1, Domain: cmp.Or(p.domain, domain), From: "load@" + senderDomain,
		Origins: []load.Origin{s.addOrigin(n, netip.MustParseAddr(p.addr))},
		Seal:    func([]byte) ([]byte, error) { return []byte(p.field), nil },
	}.Send(ctx)
	switch {
	case report.Err == nil && p.refusal != "":
		return errors.New("it refuses nothing")
	case report.Err != nil && (p.refusal == "" || !strings.Contains(report.Err.Error(), p.refusal)):
		return report.Err
	}
	return nil
}

// StartRedis starts the store of Haraka's limit, with its files in dir.
func StartRedis(ctx context.Context, dir string) (*instance.Process, error) {
	cmd := exec.Command(RedisServer, "--save", "", "--dir", dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p, err := instance.Start(cmd)
	if err != nil {
		return nil, err
	}
	return p, p.Await(ctx, func(log string) bool { return strings.Contains(log, "Ready to accept connections") })
}
