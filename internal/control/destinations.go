package control

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"tarishi/internal/mail"
	"tarishi/internal/outbound"
	"tarishi/internal/schedule"
)

// DSNs counts reports since the daemon's start.
type DSNs struct {
	Queued int64 `json:"queued"`
	Failed int64 `json:"failed"` // that could not be queued; what they are about stays in the queue
	Double int64 `json:"double"` // failures of mail from the null sender, of which nobody is told
}

// DestinationState is what the daemon knows of a domain that it has mail for.
// Domains with the same MX are one site: from Limit on the fields are about that.
type DestinationState struct {
	Domain  string    `json:"domain"`
	Site    string    `json:"site"` // the domain, unless it shares its MX
	Waiting int       `json:"waiting"`
	Ready   int       `json:"ready"`
	Running int       `json:"running"`
	Oldest  time.Time `json:"oldest,omitzero"` // arrival of the oldest message

	Limit          int       `json:"limit,omitempty"` // attempts at a time, now; 0: none
	Rate           string    `json:"rate,omitempty"`  // as in outbound.ini; "": none
	SuspendedUntil time.Time `json:"suspended_until,omitzero"`
	LastError      string    `json:"last_error,omitempty"`
}

// Delivery is one delivery of a message and what it waits for.
type Delivery struct {
	Domain     string    `json:"domain"`
	Recipients []int     `json:"recipients"` // places in the envelope
	Attempts   int       `json:"attempts"`   // that ended in a deferral
	Next       time.Time `json:"next,omitzero"`
	Reason     string    `json:"reason"`
	Host       string    `json:"host,omitempty"` // that is being tried, if the delivery runs
	Last       string    `json:"last,omitempty"` // the reply that deferred it last
}

// Destinations implements Commands.
func (l *Local) Destinations(_ context.Context, limit int) ([]DestinationState, error) {
	if l.outbound == nil {
		return nil, ErrStopped
	}
	all := []DestinationState{}
	for _, d := range l.outbound.Destinations(limit) {
		all = append(all, DestinationState{
			Domain: d.Domain, Site: d.Site, Waiting: d.Waiting, Ready: d.Ready, Running: d.Running, Oldest: d.Oldest.UTC(),
			Limit: d.Limit, Rate: formatRate(d.Rate), SuspendedUntil: d.SuspendedUntil.UTC(), LastError: d.LastError,
		})
	}
	return all, nil
}

func formatRate(r schedule.Rate) string {
	if r.Count == 0 {
		return ""
	}
	for unit, per := range map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
		if r.Per == per {
			return fmt.Sprintf("%d/%s", r.Count, unit)
		}
	}
	return fmt.Sprintf("%d/%v", r.Count, r.Per)
}

// Why implements Commands.
func (l *Local) Why(_ context.Context, id mail.ID) ([]Delivery, error) {
	if err := l.present(id); err != nil {
		return nil, err
	}
	waiting := l.outbound.Explain(id)
	last := map[int]string{}
	if p, ok := l.queue.Find(id); ok {
		for _, r := range p.Recipients {
			last[r.Index] = r.Last
		}
	}
	slices.SortFunc(waiting, func(a, b outbound.Waiting) int {
		return cmp.Or(strings.Compare(a.Domain, b.Domain), slices.Compare(a.Recipients, b.Recipients))
	})
	type delivery struct {
		domain   string
		attempts int
		next     int64
	}
	held := map[delivery]int{} // places in all: outbound tells of each recipient
	all := []Delivery{}
	for _, w := range waiting {
		if w.Reason == "held" {
			key := delivery{w.Domain, w.Attempts, w.Next.UnixNano()}
			if i, ok := held[key]; ok {
				all[i].Recipients = append(all[i].Recipients, w.Recipients...)
				continue
			}
			held[key] = len(all)
		}
		d := Delivery{Domain: w.Domain, Recipients: w.Recipients, Attempts: w.Attempts, Reason: w.Reason, Host: w.Host}
		for _, i := range w.Recipients {
			if d.Last = last[i]; d.Last != "" {
				break
			}
		}
		if w.Next.Unix() > 0 { // else at once
			d.Next = w.Next.UTC()
		}
		all = append(all, d)
	}
	return all, nil
}

// present fails if a message is not in the queue, or if there is no daemon.
func (l *Local) present(id mail.ID) error {
	if !id.Valid() {
		return fmt.Errorf("%w: %q is no ID", ErrInvalid, id)
	}
	if l.outbound == nil {
		return ErrStopped
	}
	if _, ok := l.queue.Find(id); !ok {
		return ErrUnknown
	}
	return nil
}

// Hold implements Commands.
func (l *Local) Hold(_ context.Context, id mail.ID) error {
	return l.steer(id, "message held on request", Outbound.Hold)
}

// Release implements Commands.
func (l *Local) Release(_ context.Context, id mail.ID) error {
	return l.steer(id, "message released on request", Outbound.Release)
}

func (l *Local) steer(id mail.ID, done string, do func(o Outbound, id mail.ID, recipients []int) error) error {
	if err := l.present(id); err != nil {
		return err
	}
	if err := do(l.outbound, id, nil); err != nil {
		return known(err)
	}
	l.log.Info(done, zap.String("uuid", string(id)))
	return nil
}

// The server's side.

// someDestinations is how many are told when nobody says how many.
const someDestinations = 20

func (s *Server) destinations(w http.ResponseWriter, r *http.Request) {
	limit, err := top(r, "limit", someDestinations)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	all, err := s.commands.Destinations(r.Context(), limit)
	s.reply(w, r, destinations{all}, err)
}

// destinations is the answer to a question for them.
type destinations struct {
	Destinations []DestinationState `json:"destinations"`
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) {
	all, err := s.commands.Why(r.Context(), mail.ID(r.PathValue("id")))
	s.reply(w, r, reasons{all}, err)
}

// reasons is the answer to why.
type reasons struct {
	Deliveries []Delivery `json:"deliveries"`
}

func (s *Server) hold(w http.ResponseWriter, r *http.Request) {
	s.done(w, r, s.commands.Hold(r.Context(), mail.ID(r.PathValue("id"))))
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) {
	s.done(w, r, s.commands.Release(r.Context(), mail.ID(r.PathValue("id"))))
}

// done answers a request that there is nothing to tell about.
func (s *Server) done(w http.ResponseWriter, r *http.Request, err error) {
	if err != nil {
		s.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// The client's side.

// Destinations implements Commands.
func (c *Client) Destinations(ctx context.Context, limit int) ([]DestinationState, error) {
	q := url.Values{}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	var d destinations
	err := c.ask(ctx, http.MethodGet, "/v1/destinations", q, &d)
	return d.Destinations, err
}

// Why implements Commands.
func (c *Client) Why(ctx context.Context, id mail.ID) ([]Delivery, error) {
	path, err := message(id)
	if err != nil {
		return nil, err
	}
	var r reasons
	err = c.ask(ctx, http.MethodGet, path+"/why", nil, &r)
	return r.Deliveries, err
}

// Hold implements Commands.
func (c *Client) Hold(ctx context.Context, id mail.ID) error { return c.steer(ctx, id, "/hold") }

// Release implements Commands.
func (c *Client) Release(ctx context.Context, id mail.ID) error { return c.steer(ctx, id, "/release") }

func (c *Client) steer(ctx context.Context, id mail.ID, what string) error {
	path, err := message(id)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodPost, path+what, nil, nil)
}
