package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tarishi/internal/vfs"
	"tarishi/internal/web"
)

// Client performs operations in a running daemon, over its socket.
type Client struct {
	http http.Client
}

var _ Caller = (*Client)(nil)

// startTime is how long Dial waits for a daemon that holds the queue and does not
// answer: it reads the queue, or has just ended.
const startTime = 10 * time.Second

// Dial returns a Client of the daemon that has the queue in dir, and waits a while
// for one that is starting. ErrStopped: none runs there.
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

// Close implements Caller.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// maxPart is how many values of one parameter a request has: its head is bounded.
const maxPart = 64

// Call implements Caller. A parameter with very many values makes it several
// requests.
func (c *Client) Call(ctx context.Context, op *Operation, a Arguments, emit func(any) error) error {
	if err := op.Check(a, ""); err != nil {
		return err
	}

	// Only a parameter with several values can have so many, and there is one.
	for name, values := range a {
		if len(values) <= maxPart {
			continue
		}
		for part := range slices.Chunk(values, maxPart) {
			some := maps.Clone(a)
			some[name] = part
			if err := c.Call(ctx, op, some, emit); err != nil {
				return err
			}
		}
		return nil
	}

	// What stands in the path is not repeated in the query.
	path, query := op.Path, url.Values{}
	for name, values := range a {
		if in := "{" + name + "}"; strings.Contains(path, in) {
			path = strings.ReplaceAll(path, in, values[0])
		} else {
			query[name] = values
		}
	}
	body, size, err := c.sendRequest(ctx, op.Method, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if op.form == content {
		return emit(&Bytes{size, body})
	}

	// An answer that the caller has cut off himself did not end early.
	err = op.readAnswer(body, emit)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// readAnswer calls emit with each element of an answer.
func (op *Operation) readAnswer(body io.Reader, emit func(any) error) error {
	in := json.NewDecoder(body)
	if op.form == list {
		for _, want := range []json.Token{json.Delim('{'), op.key, json.Delim('[')} {
			if t, err := in.Token(); err != nil || t != want {
				return fmt.Errorf("the daemon's answer is not understood: there is no %v", want)
			}
		}
	}

	// Lines end with the answer, an array with its bracket, an object with itself.
	for {
		if op.form == list && !in.More() {
			_, err := in.Token()
			return err
		}
		v, err := op.decode(in)
		switch {
		case errors.Is(err, io.EOF) && op.form == lines:
			return nil
		case err != nil:
			return fmt.Errorf("the answer ended early: %w", err)
		}
		if err := emit(v); err != nil || op.form == object {
			return err
		}
	}
}

// Get returns what the daemon answers at a path that is no operation's, such as
// /metrics.
func (c *Client) Get(ctx context.Context, path string) (io.ReadCloser, error) {
	body, _, err := c.sendRequest(ctx, http.MethodGet, path, nil)
	return body, err
}

// sendRequest sends a request and returns the body of a good answer and its length, -1
// if that is not known.
func (c *Client) sendRequest(ctx context.Context, method, path string, q url.Values) (io.ReadCloser, int64, error) {
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

	// A failure without our object is not from an operation: the daemon is older
	// or younger than this program.
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
