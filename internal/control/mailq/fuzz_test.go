package mailq

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"tarishi/internal/control"
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
		"DELETE /v1/queue/messages?sender=*@*.test&older=0s&state=ready", "POST /v1/queue/hold?id=A.1&id=..", "POST /v1/queue/release?reason=^4..%20",
		"POST /v1/queue/flush?which=A.1&attempts=2", "GET /v1/queue/messages?site=mx1*&recipient=@y.test&newer=1w", "DELETE /v1/queue/messages",
	} {
		f.Add([]byte(line + " HTTP/1.1\r\nHost: x\r\n\r\n"))
	}
	f.Add([]byte("POST /v1/queue/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n{\"a\":"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		s := control.NewHandler(New(guarded{three(t), t}, &flushes{}, nil).Operations(), nil)
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
