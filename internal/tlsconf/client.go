package tlsconf

import (
	"crypto/tls"
	"sync/atomic"
)

// Client is the configuration of connections to other servers, made of the files
// as they are now. It may be used from any goroutine.
type Client struct {
	current atomic.Pointer[configs]
}

type configs struct{ shown, bare *tls.Config }

// Config returns the configuration of a new connection. With show a server that
// asks for a certificate gets ours, if there is one. The result must not be
// changed. It is the same pointer as long as the files say the same, so that it
// tells connections made with old files from those made with new ones.
func (c *Client) Config(show bool) *tls.Config {
	now := c.current.Load()
	if show {
		return now.shown
	}
	return now.bare
}

// Client makes the configuration of connections to other servers: the roots to
// trust (the system's unless CA names a PEM file), the pair of PEM files to show
// to servers that ask for a client certificate, the lowest version (0: TLS 1.2)
// and the cipher suites below TLS 1.3. The lists of hosts, and whether a server's
// certificate is verified at all, are the caller's policy.
func (f *Files) Client(o Outbound) (*Client, error) {
	client := &Client{}
	var roots, pair *source
	if o.CA != "" {
		roots = f.source(place{ca: o.CA})
	}
	if o.Key != "" || o.Cert != "" {
		pair = f.source(place{key: o.Key, cert: o.Cert})
	}
	return client, f.use(func() {
		bare := &tls.Config{MinVersion: lowest(o.MinVersion), CipherSuites: o.Ciphers}
		if roots != nil {
			bare.RootCAs = roots.roots
		}
		shown := bare
		if pair != nil {
			shown = bare.Clone()
			shown.Certificates = []tls.Certificate{pair.pair}
		}
		client.current.Store(&configs{shown, bare})
	}, roots, pair)
}
