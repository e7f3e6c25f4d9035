package load

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Sessions are open sessions of clients that have said EHLO and nothing since.
type Sessions struct{ clients []*client }

// dialers is how many sessions are opened at a time.
const dialers = 20

// OpenSessions opens n sessions at addr, with STARTTLS if secure. They stay open
// until Close. After an error none is.
func OpenSessions(ctx context.Context, addr string, n int, secure bool) (*Sessions, error) {
	s := &Sessions{clients: make([]*client, n)}
	errs := make([]error, n)
	var all sync.WaitGroup
	turns := make(chan struct{}, dialers)
	for i := range n {
		c := &client{load: Load{Addr: addr, StartTLS: secure, Timeout: time.Minute}, origin: anywhere}
		s.clients[i] = c
		all.Go(func() {
			turns <- struct{}{}
			errs[i] = c.dial(ctx)
			<-turns
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close drops the connections.
func (s *Sessions) Close() {
	for _, c := range s.clients {
		c.drop()
	}
}
