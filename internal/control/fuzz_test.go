package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tarishi/internal/mail"
)

// guarded fails the test when an ID gets through that is none.
type guarded struct {
	*memory
	t *testing.T
}

func (g guarded) check(id mail.ID) {
	if !id.Valid() {
		g.t.Errorf("the queue was asked for %q", id)
	}
}

func (g guarded) Load(id mail.ID) (*mail.Envelope, mail.Content, error) {
	g.check(id)
	return g.memory.Load(id)
}

func (g guarded) Remove(id mail.ID) error {
	g.check(id)
	return g.memory.Remove(id)
}

// FuzzRequest sends a request of any form. It is answered, as JSON where it is
// one of ours, and never with a server's error; the queue sees valid IDs only.
func FuzzRequest(f *testing.F) {
	for _, line := range []string{
		"GET /v1/queue", "GET /v1/queue?destinations=10", "GET /v1/queue/messages?domain=x.test&sender=%3C%3E&limit=1",
		"GET /v1/queue/messages/A.1", "DELETE /v1/queue/messages/A.1", "GET /v1/queue/messages/A.1/content",
		"POST /v1/queue/flush?domain=x.test", "GET /v1/queue/messages/..%2f..%2fetc", "PUT /v1/queue/messages/%00%ff",
		"GET http://x:99999/v1/queue", "OPTIONS *", "GET //v1///queue/../messages", "GET /v1/queue?a=%zz;b", "CONNECT x:1",
		"GET /v1/queue/messages/" + strings.Repeat("A", 5000), "GET /v1/queue?destinations=99999999999999999999",
	} {
		f.Add([]byte(line + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	f.Add([]byte("POST /v1/queue/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"a\":"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		s := NewServer(NewLocal(guarded{three(t), t}, &flushes{}, nil), nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("no JSON: %q", w.Body)
		}
	})
}

// FuzzAnswer reads whatever a server may send.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		`{"messages":1}`, `{"error":"unknown","text":"x"}`, `{"id":"A.1","from":"a@b.test","recipients":[{}]}` + "\n{", "null", "[]", "",
	} {
		f.Add(200, []byte(body))
		f.Add(404, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c := &Client{http.Client{Transport: canned{status, body}}}
		_, err := c.Stat(t.Context(), 0)
		if err == nil && status/100 != 2 {
			t.Error("a failure passed for an answer")
		}
		n := 0
		if err := c.List(t.Context(), Filter{}, func(*Message) error { n++; return nil }); err == nil && n == 0 && status == 200 && len(bytes.TrimSpace(body)) > 0 {
			t.Errorf("%q is an empty list", body)
		}
		c.Show(t.Context(), "A.1")
	})
}

// canned answers every request the same.
type canned struct {
	status int
	body   []byte
}

func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.status < 200 || c.status > 599 || c.status/100 == 3 {
		return nil, errors.New("no answer")
	}
	text := fmt.Sprintf("HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s", c.status, len(c.body), c.body)
	return http.ReadResponse(bufio.NewReader(strings.NewReader(text)), r)
}
