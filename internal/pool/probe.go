package pool

import (
	"context"
	"errors"
	"net/netip"

	"tarishi/internal/smtpclient"
)

// Probe makes a connection to the first address of t that is ready for a
// transaction, as the pool would, and ends it.
func Probe(ctx context.Context, t Target) error {
	// The addresses are tried one by one: nobody waits for this.
	list := t.Addrs
	if len(list) == 0 {
		list = []netip.AddrPort{{}}
	}
	var err error
	for _, a := range list {
		o := t.Options
		if a.IsValid() {
			o.Addr = a.String()
		}
		var c *smtpclient.Client
		c, err = smtpclient.Dial(ctx, o)
		var f *smtpclient.Failure
		if errors.As(err, &f) && f.Handshake && o.TLS == smtpclient.TLSMay && !o.ImplicitTLS { // as messages go there
			o.TLS = smtpclient.TLSNone
			c, err = smtpclient.Dial(ctx, o)
		}
		if err == nil {
			c.Quit()
			return nil
		}
	}
	return err
}
