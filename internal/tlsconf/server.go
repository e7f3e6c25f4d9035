package tlsconf

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"tarishi/internal/tlsconf/clientcert"
)

// Server is what our ports do with TLS, with the files as they are now. It may be used from any
// goroutine.
type Server struct {
	Config  *tls.Config // asks no client for a certificate
	Clients *Clients    // nil: none is asked
}

// Clients is the request for certificates of clients.
type Clients struct {
	Config *tls.Config // asks for a certificate, and leaves it to Verify

	everywhere bool  // they are asked on each port, and not on those of ports alone
	required   bool  // without one that verifies they are refused, and not on those of ports alone
	ports      []int // on which they are asked and refused in any case
	verifier   atomic.Pointer[clientcert.Verifier]
}

// clients makes what is asked of clients, with the configuration that asks.
func (f *Files) clients(o *Settings, config *tls.Config) (*Clients, error) {
	c := &Clients{Config: config, everywhere: o.RequestCert || o.RejectUnauthorized, required: o.RejectUnauthorized, ports: o.RequireAuthorized}
	var roots *source
	if o.CA != "" {
		roots = f.source(place{ca: o.CA})
	}
	var lists []*source
	for _, file := range o.CRL {
		lists = append(lists, f.source(place{crl: file}))
	}
	err := f.use(func() {
		var trusted *x509.CertPool
		if roots != nil {
			trusted = roots.roots
		}
		var revoked []*x509.RevocationList
		for _, l := range lists {
			revoked = append(revoked, l.revoked...)
		}
		c.verifier.Store(clientcert.New(trusted, revoked))
	}, append(lists, roots)...)
	return c, err
}

// Asks reports whether the clients of a connection are asked for a certificate; ports are those
// that they have reached.
func (c *Clients) Asks(ports ...int) bool {
	return c != nil && (c.everywhere || c.isListed(ports))
}

// Requires reports whether they are refused without one that verifies.
func (c *Clients) Requires(ports ...int) bool {
	return c != nil && (c.required || c.isListed(ports))
}

// RequiresTLS reports whether they are refused without TLS.
func (c *Clients) RequiresTLS(ports ...int) bool { return c != nil && c.isListed(ports) }

func (c *Clients) isListed(ports []int) bool {
	return slices.ContainsFunc(ports, func(port int) bool { return slices.Contains(c.ports, port) })
}

// Verify returns nil if the certificates that a client has shown are good now.
func (c *Clients) Verify(chain []*x509.Certificate) error {
	return c.verifier.Load().Verify(chain, time.Now())
}
