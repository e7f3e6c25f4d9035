package mailq

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
	"tarishi/internal/mail"
	"tarishi/internal/store/disk"
	"tarishi/internal/web"
)

// A list that the end of the daemon cuts off is an error for the one who reads
// it, and nobody who reads slowly can hold the daemon up.
func TestStopCutsOff(t *testing.T) {
	q := three(t)
	q.endless = true
	q.contents["C.1"] = endless{}
	r := serve(t, t.TempDir(), q, &flushes{})
	c := r.dial()
	for _, path := range []string{"messages", "messages/C.1/content", "messages", "messages/C.1/content"} { // these never read on
		conn, err := web.Dial(t.Context(), r.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "GET /v1/queue/%s HTTP/1.1\r\nHost: x\r\n\r\n", path); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	err := c.List(t.Context(), conditions{}, func(m *view.Message) error {
		if r.cancel != nil {
			r.stop() // returns only when nobody uses the queue any more
		}
		return nil
	})
	if err == nil {
		t.Error("the list ended as if it were whole")
	}
}

// endless is a Content without an end.
type endless struct{}

func (endless) Size() int64                  { return 1 << 50 }
func (endless) Open() (io.ReadCloser, error) { return io.NopCloser(zeros{}), nil }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Requests as they may come from other programs.
func TestRequests(t *testing.T) {
	r := serve(t, t.TempDir(), three(t), &flushes{})
	for _, c := range []struct {
		request string
		status  int
		body    string // part of it
	}{
		{"GET /v1/queue", 200, `"messages":3`},
		{"HEAD /v1/queue", 200, ""},
		{"GET /v1/queue?destinations=1", 200, `"domain":"y.test"`},
		{"GET /v1/queue?destinations=1001", 400, `"error":"invalid"`},
		{"GET /v1/queue?destinations=-1", 400, `"error":"invalid"`},
		{"GET /v1/queue?destination=1", 400, "unknown parameter"},
		{"GET /v1/queue?%zz", 400, `"error":"invalid"`},
		{"GET /v1/queue?a;b", 400, `"error":"invalid"`},
		{"POST /v1/queue", 405, ""},
		{"GET /v1/queue/messages?limit=1", 200, `"id":"A.1"`},
		{"GET /v1/queue/messages?limit=x", 400, `"error":"invalid"`},
		{"GET /v1/queue/messages?domain=", 400, "needs one value"},
		{"GET /v1/queue/messages?domain=a.test&domain=b.test", 400, "needs one value"},
		{"GET /v1/queue/messages?elder=1h", 400, "unknown parameter"},
		{"GET /v1/queue/messages?domain=nowhere.test", 200, ""},
		{"GET /v1/queue/messages/A.1", 200, `"header":"Subject: A.1\r\n\r\n"`},
		{"GET /v1/queue/messages/A.1/content", 200, "Hello."},
		{"GET /v1/queue/messages/A.9", 404, `"error":"unknown"`},
		{"GET /v1/queue/messages/..%2fA.1", 400, `"error":"invalid"`},
		{"GET /v1/queue/messages/%00", 400, `"error":"invalid"`},
		{"POST /v1/queue/messages/A.1", 405, ""},
		{"POST /v1/queue/flush", 200, `{"deliveries":7}`},
		{"POST /v1/queue/flush?domain=x.test", 200, `{"deliveries":7}`},
		{"POST /v1/queue/flush?domain=", 400, "needs one value"},
		{"POST /v1/queue/flush?domain=x.test&domain=y.test", 400, "needs one value"},
		{"POST /v1/queue/flush?domian=x.test", 400, "unknown parameter"},
		{"GET /v1/queue/flush", 405, ""},
		{"DELETE /v1/queue/messages/B.1?dry=1", 400, `unknown parameter \"dry\"`},
		{"POST /v1/queue/messages/A.1/hold?recipients=0", 400, "unknown parameter"},
		{"POST /v1/queue/messages/A.1/release?recipients=0", 400, "unknown parameter"},
		{"GET /v1/queue/messages/A.1?header=no", 400, "unknown parameter"},
		{"GET /v1/queue/messages/A.1/content?from=1", 400, "unknown parameter"},
		{"GET /v1/queue/messages/A.1/why?x", 400, "unknown parameter"},
		{"GET /v1/destinations?limit=1&limit=2", 400, "needs one value"},
		{"DELETE /v1/queue/messages/B.1", 204, ""},
		{"DELETE /v1/queue/messages/B.1", 404, `"error":"unknown"`},
		{"DELETE /v1/queue/messages", 400, "no message is named"},
		{"PUT /v1/queue/messages", 405, ""},
		{"GET /", 404, ""},
		{"GET /v2/queue", 404, ""},
		{"GET /" + strings.Repeat("x", 16<<10), 431, ""},
	} {
		conn, err := web.Dial(t.Context(), r.dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", c.request); err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(c.request, " ")
		res, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%.60s: %v", c.request, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != c.status || !strings.Contains(string(body), c.body) {
			t.Errorf("%.60s: %d %s, %v; want %d, %s", c.request, res.StatusCode, body, err, c.status, c.body)
		}
		conn.Close()
	}
}

// TestBody: what a body asks for is not known, so nothing is done.
func TestBody(t *testing.T) {
	o := &flushes{}
	r := serve(t, t.TempDir(), three(t), o)
	for _, body := range []string{"Content-Length: 13\r\n\r\ndomain=x.test", "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"} {
		conn, err := web.Dial(t.Context(), r.dir)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := fmt.Fprintf(conn, "POST /v1/queue/flush HTTP/1.1\r\nHost: x\r\n%s", body); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 400 || !strings.Contains(string(text), "no body") {
			t.Errorf("%q: %d %s %v", body, res.StatusCode, text, err)
		}
	}
	if n := len(o.domains); n > 0 {
		t.Errorf("flushed %q", o.domains)
	}
}

// The whole with the real queue: while its daemon runs, and after it.
func TestRealQueue(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "queue")
	q, err := disk.Open(disk.Options{Dir: dir, SegmentSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	content := mail.Memory{[]byte("Subject: real\r\n\r\nbody\r\n")}
	for i := range 5 {
		env := envelope(t, fmt.Sprintf("F47AC10B-58CC-4372-A567-0E02B2C3D479.%d", i+1), "one@client.test", "a@x.test", "b@y.test")
		if err := q.Put(env, content); err != nil {
			t.Fatal(err)
		}
	}
	const first, second, third = mail.ID("F47AC10B-58CC-4372-A567-0E02B2C3D479.1"), mail.ID("F47AC10B-58CC-4372-A567-0E02B2C3D479.2"), mail.ID("F47AC10B-58CC-4372-A567-0E02B2C3D479.3")
	if err := errors.Join(q.Settle(first, []int{0}), q.Defer(first, []int{1}, 2, born, "451 later")); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Path(second); err != nil { // which makes it a file
		t.Fatal(err)
	}
	look := func(c *caller, messages int) {
		t.Helper()
		if n := len(strings.Fields(ids(t, c, conditions{}))); n != messages {
			t.Errorf("%d messages", n)
		}
		m, err := c.Show(t.Context(), first)
		if err != nil || len(m.Recipients) != 2 || m.Recipients[0].Status != view.Settled || m.Recipients[1].Attempts != 2 ||
			m.Recipients[1].Last != "451 later" || !m.Recipients[1].Next.Equal(born) || m.Header != "Subject: real\r\n\r\n" {
			t.Errorf("%+v, %v", m, err)
		}
		for _, id := range []mail.ID{first, second} {
			if got := read(t, c, id); got != string(content[0]) {
				t.Errorf("%s: %q", id, got)
			}
		}
		s, err := c.Stat(t.Context(), 10)
		if err != nil || s.Messages != messages || len(s.Destinations) != 2 || s.Destinations[0].Domain != "y.test" || !s.Oldest.Equal(born) {
			t.Errorf("%+v, %v", s, err)
		}
	}
	r := serve(t, dir, q, &flushes{})
	daemon, stopped, err := Open(t.Context(), dir, t.Output())
	if err != nil || stopped {
		t.Fatal(stopped, err)
	}
	c := &caller{daemon}
	look(c, 5)
	if err := c.Remove(t.Context(), third); err != nil {
		t.Error(err)
	}
	if err := c.Remove(t.Context(), third); !errors.Is(err, control.ErrUnknown) {
		t.Error(err)
	}
	look(c, 4)
	c.Close()
	r.stop()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	spool, stopped, err := Open(t.Context(), dir, t.Output())
	if err != nil || !stopped {
		t.Fatal(stopped, err)
	}
	files := &caller{spool}
	defer files.Close()
	look(files, 4)
	if err := files.Remove(t.Context(), first); !errors.Is(err, control.ErrStopped) {
		t.Error(err)
	}
	if _, _, err := Open(t.Context(), filepath.Join(dir, "missing"), t.Output()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
