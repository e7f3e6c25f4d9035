package domaincheck

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"tarishi/internal/dane"
	"tarishi/internal/mtasts"
	"tarishi/internal/smtpclient"
)

// checkPolicy fetches the domain's MTA-STS policy and holds the mail exchangers against it.
func (k *check) checkPolicy() {
	name := "_mta-sts." + k.domain
	switch texts, err := k.Resolver.TXT(k.ctx, name); {
	case isMissing(err):
		k.add(Note, "MTA-STS", "%s has no policy (RFC 8461)", k.domain)
		return
	case err != nil:
		k.add(Error, "MTA-STS", "%v", err)
		return
	case !slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, "v=STSv1;") }):
		k.add(Error, "MTA-STS", "%s has no record that begins with v=STSv1;", name)
		return
	}

	// The first call begins to fetch, and the second has what came of it.
	policy, fetch := k.Policies.Policy(k.ctx, k.domain)
	if fetch != nil {
		done := make(chan struct{})
		fetch.Then(func() { close(done) })
		select {
		case <-done:
		case <-k.ctx.Done():
		}
		policy, _ = k.Policies.Policy(k.ctx, k.domain)
	}
	if policy == nil {
		k.add(Error, "MTA-STS", "%s says that there is a policy, and https://mta-sts.%s/.well-known/mta-sts.txt gives none", name, k.domain)
		return
	}
	k.policy = policy
	days := strconv.FormatFloat(policy.MaxAge.Hours()/24, 'f', -1, 64)
	if policy.Mode != mtasts.Enforce {
		k.add(Note, "MTA-STS", "mode %s: servers that it does not allow get mail all the same", policy.Mode)
	} else {
		k.add(Good, "MTA-STS", "mode enforce for %s days", days)
	}

	// An exchanger that is not named gets no mail from followers of the policy.
	for _, x := range k.exchangers {
		if !policy.Allows(x.host) {
			k.add(Error, "MTA-STS", "the policy does not allow the mail exchanger %s", x.host)
		}
	}
}

// checkReports looks for the address of reports about TLS.
func (k *check) checkReports() {
	name := "_smtp._tls." + k.domain
	texts, err := k.Resolver.TXT(k.ctx, name)
	switch {
	case isMissing(err):
		k.add(Note, "TLSRPT", "%s wants no reports about TLS (RFC 8460)", k.domain)
	case err != nil:
		k.add(Warning, "TLSRPT", "%v", err)
	case !slices.ContainsFunc(texts, func(text string) bool { return strings.HasPrefix(text, "v=TLSRPTv1;") }):
		k.add(Error, "TLSRPT", "%s has no record that begins with v=TLSRPTv1;", name)
	default:
		k.add(Good, "TLSRPT", "%s", name)
	}
}

// checkServers looks at the certificates of the mail exchangers: the one that TLSA records
// ask for, and the one that MTA-STS and careful senders do.
func (k *check) checkServers() {
	for i := range k.exchangers {
		x := &k.exchangers[i]
		if x.secure {
			k.lookUpTLSA(x)
		}
		if k.Dial != nil {
			k.connect(x)
		}
		if x.session == nil {
			continue
		}
		k.checkCertificate(x)
		k.checkTLSA(x)
	}
	if k.DNSSEC && len(k.exchangers) > 0 && !slices.ContainsFunc(k.exchangers, func(x exchanger) bool { return x.records != nil }) {
		k.add(Note, "DANE", "no mail exchanger has TLSA records that DNSSEC vouches for")
	}
}

func (k *check) lookUpTLSA(x *exchanger) {
	records, err := k.Resolver.TLSA(k.ctx, "_25._tcp."+x.host)
	switch {
	case isMissing(err):
	case err != nil:
		k.add(Error, "DANE", "%s: %v: senders that use DANE wait", x.host, err)
	default:
		x.records = records
		if k.Dial == nil {
			k.add(Good, "DANE", "%s has %d TLSA record(s)", x.host, len(records))
		}
	}
}

// connect asks a mail exchanger for its certificate, at its first address that answers.
func (k *check) connect(x *exchanger) {
	err := errors.New("it has no address")
	for _, addr := range x.addresses.List {
		if x.session, err = k.upgrade(net.JoinHostPort(addr.String(), "25"), x.host); err == nil {
			return
		}
	}
	level := Error
	if errors.Is(err, errNoTLS) && x.records == nil && k.policy == nil {
		level = Warning // mail comes in clear
	}
	k.add(level, "TLS", "%s: %v", x.host, err)
}

var errNoTLS = errors.New("no STARTTLS")

// connectTime is how long one connection may take.
const connectTime = 20 * time.Second

// upgrade returns what a server shows in the handshake of TLS. The certificate is not
// verified here.
func (k *check) upgrade(address, host string) (*tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(k.ctx, connectTime)
	defer cancel()
	conn, err := k.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	var shown *tls.ConnectionState
	client, err := smtpclient.Open(ctx, conn, smtpclient.Options{
		Addr: address, Host: host, Helo: k.Me, TLS: smtpclient.TLSEncrypt,
		Verify: func(state tls.ConnectionState) error { // checkCertificate and checkTLSA do
			shown = &state
			return nil
		},
	})
	if err == nil {
		client.Quit()
	}

	// What a server says behind the handshake does not matter.
	var f *smtpclient.Failure
	switch {
	case shown != nil:
		return shown, nil
	case !errors.As(err, &f):
		return nil, err
	case f.LacksTLS():
		return nil, errNoTLS
	case f.Stage == smtpclient.StageTLS && f.Reply != nil:
		return nil, fmt.Errorf("%w: %w", errNoTLS, f.Reply)
	case f.Reply != nil:
		return nil, fmt.Errorf("%s: %w", f.Stage, f.Reply)
	}
	return nil, fmt.Errorf("%s: %w", f.Stage, f.Err)
}

// checkCertificate looks at a certificate as senders that verify names do: followers of
// MTA-STS, and senders that must have TLS.
func (k *check) checkCertificate(x *exchanger) {
	leaf := x.session.PeerCertificates[0]
	between := x509.NewCertPool()
	for _, c := range x.session.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{DNSName: x.host, Roots: k.Roots, Intermediates: between})

	// Most senders do not look; a policy makes them.
	left := time.Until(leaf.NotAfter)
	switch {
	case err != nil && k.policy != nil && k.policy.Mode == mtasts.Enforce:
		k.add(Error, "TLS", "%s: %v: the MTA-STS policy keeps mail away from it", x.host, err)
	case err != nil && x.records != nil:
		k.add(Note, "TLS", "%s: %v: only senders without DANE mind", x.host, err)
	case err != nil:
		k.add(Warning, "TLS", "%s: %v", x.host, err)
	case left < soon:
		k.add(Warning, "TLS", "%s: its certificate ends in %.0f days", x.host, left.Hours()/24)
	default:
		k.add(Good, "TLS", "%s: %s, certificate until %s", x.host, tls.VersionName(x.session.Version), leaf.NotAfter.Format(time.DateOnly))
	}
}

// soon is how long before its end a certificate should have been renewed.
const soon = 14 * 24 * time.Hour

// checkTLSA holds a certificate against the TLSA records of its server.
func (k *check) checkTLSA(x *exchanger) {
	if x.records == nil {
		return
	}
	records := make([]dane.Record, len(x.records))
	for i, r := range x.records {
		records[i] = dane.Record(r)
	}
	policy := dane.New(records, x.addresses.Name, x.host, k.domain)
	if policy == nil {
		k.add(Error, "DANE", "%s: none of its %d TLSA records can be used (usages 2 and 3 can)", x.host, len(records))
		return
	}
	if err := policy.Verify(*x.session); err != nil {
		k.add(Error, "DANE", "%s: %v: senders that use DANE keep their mail", x.host, err)
		return
	}
	k.add(Good, "DANE", "%s: its certificate matches a TLSA record", x.host)
}
