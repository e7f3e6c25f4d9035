package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
	"tarishi/internal/web"
)

// Client is Commands over the control socket of a running daemon.
type Client struct {
	http http.Client
}

var _ Commands = (*Client)(nil)

// startTime is how long Dial waits for a daemon that holds the queue and does not
// answer: it reads the queue, or has just ended.
const startTime = 10 * time.Second

// Dial returns a Client of the daemon whose queue is in dir, for which it waits a
// while if that is starting. ErrStopped: none runs there.
func Dial(ctx context.Context, dir string) (*Client, error) {
	first, err := web.Dial(ctx, dir)
	for end := time.Now().Add(startTime); errors.Is(err, ErrStopped); first, err = web.Dial(ctx, dir) {
		pid := vfs.OS{}.Holder(filepath.Join(dir, "lock"))
		if pid == 0 {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("the daemon (pid %d) does not answer yet: it is starting, or stopping", pid)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, err
	}
	first.Close()
	return &Client{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return web.Dial(ctx, dir) },
	}}}, nil
}

// Close implements Commands.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Stat implements Commands.
func (c *Client) Stat(ctx context.Context, top int) (*Stat, error) {
	q := url.Values{}
	if top > 0 {
		q.Set("destinations", strconv.Itoa(top))
	}
	var s Stat
	return &s, c.ask(ctx, http.MethodGet, "/v1/queue", q, &s)
}

// List implements Commands.
func (c *Client) List(ctx context.Context, f Filter, fn func(*Message) error) error {
	body, _, err := c.do(ctx, http.MethodGet, "/v1/queue/messages", f.query())
	if err != nil {
		return err
	}
	defer body.Close()
	in := json.NewDecoder(body)
	for {
		var m Message
		err := in.Decode(&m)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("the list ended early: %w", err)
		}
		if err := fn(&m); err != nil {
			return err
		}
	}
}

// Show implements Commands.
func (c *Client) Show(ctx context.Context, id mail.ID) (*Message, error) {
	path, err := message(id)
	if err != nil {
		return nil, err
	}
	var m Message
	return &m, c.ask(ctx, http.MethodGet, path, nil, &m)
}

// Content implements Commands.
func (c *Client) Content(ctx context.Context, id mail.ID) (io.ReadCloser, int64, error) {
	path, err := message(id)
	if err != nil {
		return nil, 0, err
	}
	return c.do(ctx, http.MethodGet, path+"/content", nil)
}

// Flush implements Commands.
func (c *Client) Flush(ctx context.Context, domain string) (int, error) {
	q := url.Values{}
	if domain != "" {
		q.Set("domain", domain)
	}
	var f flushed
	err := c.ask(ctx, http.MethodPost, "/v1/queue/flush", q, &f)
	return f.Deliveries, err
}

// FlushMessage implements Commands.
func (c *Client) FlushMessage(ctx context.Context, id mail.ID) (int, error) {
	path, err := message(id)
	if err != nil {
		return 0, err
	}
	var f flushed
	err = c.ask(ctx, http.MethodPost, path+"/flush", nil, &f)
	return f.Deliveries, err
}

// Remove implements Commands.
func (c *Client) Remove(ctx context.Context, id mail.ID) error {
	path, err := message(id)
	if err != nil {
		return err
	}
	return c.ask(ctx, http.MethodDelete, path, nil, nil)
}

// Metrics returns the daemon's metrics in Prometheus' text format.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	body, _, err := c.do(ctx, http.MethodGet, "/metrics", nil)
	return body, err
}

func message(id mail.ID) (path string, err error) {
	if !id.Valid() {
		return "", fmt.Errorf("%w: %q is no ID", ErrInvalid, id)
	}
	return "/v1/queue/messages/" + string(id), nil
}

// ask sends a request and reads the object in the answer, if there is to be
// one.
func (c *Client) ask(ctx context.Context, method, path string, q url.Values, answer any) error {
	body, _, err := c.do(ctx, method, path, q)
	if err != nil {
		return err
	}
	defer body.Close()
	if answer == nil {
		return nil
	}
	return json.NewDecoder(body).Decode(answer)
}

// do sends a request and returns the body of a good answer and its length, -1
// if that is not known.
func (c *Client) do(ctx context.Context, method, path string, q url.Values) (io.ReadCloser, int64, error) {
	u := url.URL{Scheme: "http", Host: "tarishi", Path: path, RawQuery: q.Encode()}
	r, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, 0, err
	}
	res, err := c.http.Do(r)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err // the URL means nothing to anybody
		}
		return nil, 0, fmt.Errorf("no answer from the daemon: %w", err)
	}
	if res.StatusCode/100 == 2 {
		return res.Body, res.ContentLength, nil
	}
	defer res.Body.Close()
	var p problem
	if err := json.NewDecoder(io.LimitReader(res.Body, 64<<10)).Decode(&p); err != nil {
		return nil, 0, fmt.Errorf("the daemon does not understand %s %s: %s", method, path, res.Status)
	}
	for _, known := range problems {
		if p.Code == known.code {
			return nil, 0, &remoteError{p.Text, known.err}
		}
	}
	return nil, 0, errors.New(p.Text)
}

// remoteError is an error of the daemon in its own words.
type remoteError struct {
	text string
	is   error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.is }
