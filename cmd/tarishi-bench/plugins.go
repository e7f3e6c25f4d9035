package main

import (
	"context"
	"errors"
	"fmt"
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

// The plugins that check mail, in the order of config/plugins: those of part plugins, and
// of them those that need no signature and no record of the sender.
const (
	allChecks   = "relay access limit dns-list fcrdns helo.checks mail_from.is_resolvable spf headers dkim"
	cheapChecks = "relay access limit dns-list fcrdns helo.checks mail_from.is_resolvable headers"
)

// checkSettings are config files of the checks, the same for both servers. Every check is
// on, and every limit is counted and out of reach.
var checkSettings = map[string]string{
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

// redisServer keeps what Haraka's limit counts. It listens on its usual port of loopback.
const redisServer = "redis-server"

// Where the mail of part plugins comes from.
const (
	nameserver   = "127.0.0.1"
	senderDomain = "letters-by-courier.com"
	selector     = "nov2026"
	originCount  = 20
)

// senders are the clients of part plugins, and what the DNS says of them.
type senders struct {
	dns     *dnstest.Server
	origins []load.Origin
	key     dkim.Key
}

// newSenders starts the DNS, which is the system's in the network of their own.
func newSenders() (*senders, error) {
	private, err := rsaKey.generate()
	if err != nil {
		return nil, err
	}
	s := &senders{key: dkim.Key{Selector: selector, Private: private}}
	record, err := s.key.Record()
	if err != nil {
		return nil, err
	}
	if s.dns, err = dnstest.StartAt(nameserver + ":53"); err != nil {
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
	for i := range originCount {
		s.origins = append(s.origins, s.addOrigin(i, netip.AddrFrom4([4]byte{5, 45, 1, byte(i + 1)})))
	}
	return s, nil
}

// addOrigin gives an address a name, in both directions.
func (s *senders) addOrigin(n int, addr netip.Addr) load.Origin {
	o := load.Origin{Addr: addr, Name: fmt.Sprintf("mail%d.%s", n, senderDomain)}
	s.dns.PTR(addr.String(), o.Name)
	s.dns.A(o.Name, addr.String())
	s.dns.TXT(o.Name, "v=spf1 a -all")
	return o
}

// send makes a load one of these clients.
func (s *senders) send(l *load.Load) {
	l.From, l.Origins, l.Seal = "load@"+senderDomain, s.origins, s.seal
}

// questions is how many questions the DNS of part plugins has had.
func (b *bench) questions() int {
	if b.senders == nil {
		return 0
	}
	return b.senders.dns.Queries()
}

// startSenders starts what the clients of part plugins need, until the fleet ends.
func (f *fleet) startSenders() error {
	s, err := newSenders()
	if err != nil {
		return err
	}
	f.bench.senders = s
	f.stops = append(f.stops, func() { s.dns.Close(); f.bench.senders = nil })
	if f.bench.missing[harakaChecked] != "" {
		return nil
	}
	return f.startRedis()
}

// seal returns the DKIM-Signature of a message.
func (s *senders) seal(message []byte) ([]byte, error) {
	return dkim.Sign(mail.Memory{message}, senderDomain, []dkim.Key{s.key}, &dkim.Signing{
		Headers: []string{"From", "To", "Subject", "Date", "Message-ID", "MIME-Version", "Content-Type"},
		Sealed:  []string{"From"}, Header: canon.Relaxed, Body: canon.Relaxed,
	}, time.Now().Add(-time.Minute))
}

// checksOf are the plugins of a system that check mail; "": none.
func checksOf(system string) string {
	switch strings.TrimSuffix(system, before) {
	case tarishiChecked, harakaChecked:
		return allChecks
	case tarishiCheap:
		return cheapChecks
	}
	return ""
}

// startChecked starts a system of part plugins, after it has shown in a log that every plugin
// does its work: a plugin that is skipped would be a fast one.
func (f *fleet) startChecked(name, binary, dir string, port int, prefix []string) (*instance.Server, error) {
	trial, err := f.launchChecked(name, binary, filepath.Join(dir, "trial"), port, "info", nil)
	if err != nil {
		return nil, err
	}
	err = f.proveChecks(name, trial)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if stopped := trial.Stop(ctx); err == nil && isTarishi(name) {
		err = stopped
	}
	if err != nil {
		return nil, err
	}
	return f.launchChecked(name, binary, dir, port, "warn", prefix)
}

// launchChecked starts such a system with a log of some level.
func (f *fleet) launchChecked(name, binary, dir string, port int, level string, prefix []string) (*instance.Server, error) {
	files := map[string]string{
		"config/plugins":          strings.ReplaceAll(checksOf(name), " ", "\n") + "\nrcpt_to.in_host_list\nqueue/smtp_forward\n",
		"config/host_list":        domain + "\n",
		"config/smtp_forward.ini": fmt.Sprintf("host=127.0.0.1\nport=%d\n", port),
		"config/log.ini":          "[main]\nlevel=" + level + "\n",
	}
	for path, text := range checkSettings {
		files[path] = text
	}
	if name == harakaChecked {
		return instance.Haraka(f.ctx, f.bench.program, dir, files, prefix...)
	}
	files["config/smtp.ini"] = "listen=127.0.0.1:0\n"
	files["config/connection.ini"] = "[max]\nconnections=20000\nconnections_per_ip=0\n"
	if err := instance.WriteFiles(dir, files); err != nil {
		return nil, err
	}
	return instance.Tarishi(f.ctx, binary, dir, 1, prefix...)
}

// proveChecks sends messages from each address until the log says that every check was made
// for all of them: a server that has just started may not have all of its lists yet. Then it
// does what the checks without a line in the log must see.
func (f *fleet) proveChecks(name string, server *instance.Server) error {
	var err error
	for began := time.Now(); time.Since(began) < proofTime; time.Sleep(200 * time.Millisecond) {
		before := len(server.Log())
		l := load.Load{Addr: server.Addr(), Clients: originCount, Messages: originCount, PerSession: 1, Domain: domain}
		f.bench.senders.send(&l)
		if report := l.Send(f.ctx); report.Accepted != originCount {
			err = fmt.Errorf("%d of %d messages were accepted: %w", report.Accepted, originCount, report.Err)
			continue
		}
		if err = findChecks(name, server.Log()[before:]); err == nil {
			break
		}
	}
	if err != nil {
		return err
	}
	for i, p := range probes {
		if err := f.probe(originCount+i, p, server.Addr()); err != nil {
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

// findChecks reports the first check of a system that a log lacks.
func findChecks(name, log string) error {
	for plugin := range strings.FieldsSeq(checksOf(name)) {
		if mark := marks[plugin]; mark != nil && len(mark.FindAllString(log, -1)) < originCount {
			return fmt.Errorf("%s has not passed %d messages", plugin, originCount)
		}
	}
	return nil
}

// probe is two messages, one after the other, each on a connection of its own.
type probe struct {
	plugin  string
	addr    string // of the client
	domain  string // of the recipients
	field   string // on top of the messages
	refusal string // part of the first refusal; "": both are accepted
}

// probes are for the checks that need not say in a log that they have passed something.
var probes = []probe{
	{plugin: "relay", addr: "5.46.1.1", domain: "elsewhere.test"},
	{plugin: "access", addr: "5.48.1.1", domain: domain, refusal: "You are not allowed to connect"},
	{plugin: "limit", addr: "5.48.2.1", domain: domain, refusal: "connection rate limit exceeded"},
	{plugin: "headers", addr: "5.48.3.1", domain: domain, field: "Subject: another\r\n", refusal: "Only one Subject"},
}

// probe makes a probe. Its client has the name with number n.
func (f *fleet) probe(n int, p probe, server string) error {
	report := load.Load{
		Addr: server, Messages: 2, PerSession: 1, Domain: p.domain, From: "load@" + senderDomain,
		Origins: []load.Origin{f.bench.senders.addOrigin(n, netip.MustParseAddr(p.addr))},
		Seal:    func([]byte) ([]byte, error) { return []byte(p.field), nil },
	}.Send(f.ctx)
	switch {
	case report.Err == nil && p.refusal != "":
		return errors.New("it refuses nothing")
	case report.Err != nil && (p.refusal == "" || !strings.Contains(report.Err.Error(), p.refusal)):
		return report.Err
	}
	return nil
}

// startRedis starts the store of Haraka's limit, which ends with the fleet.
func (f *fleet) startRedis() error {
	cmd := exec.Command(redisServer, "--save", "", "--dir", f.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	redis, err := instance.Start(cmd)
	if err != nil {
		return err
	}
	f.stops = append(f.stops, func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		redis.Stop(ctx)
	})
	return redis.Await(f.ctx, func(log string) bool { return strings.Contains(log, "Ready to accept connections") })
}
