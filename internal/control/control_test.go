package control

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// thing is the element of the sample's answers.
type thing struct {
	N     int    `json:"n"`
	Error string `json:"error,omitempty"`
}

// Failure implements the interface of that name.
func (t *thing) Failure() error {
	if t.Error == "" {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrUnknown, t.Error)
}

// sample is a table with a row of each form. Its operations fail with sick behind
// their first element.
func sample(sick error) []Operation {
	print := func(o *Output) (func(*thing), func()) {
		return func(t *thing) { fmt.Fprintln(o, t.N) }, func() { fmt.Fprintln(o, "end") }
	}
	count := Parameter{Name: "n", Kind: Number(1, 9), Text: "How many."}
	return []Operation{
		Object(Operation{Name: "sample one", Method: "GET", Path: "/v1/one", Files: true}, func(context.Context, Arguments) (*thing, error) {
			return &thing{N: 1}, sick
		}, print),
		Lines(Operation{Name: "sample all", Method: "GET", Path: "/v1/all", Parameters: []Parameter{count}}, func(_ context.Context, a Arguments, emit func(*thing) error) error {
			for i := range a.Number("n", 3) {
				if err := emit(&thing{N: i}); err != nil {
					return err
				}
				if sick != nil {
					return sick
				}
			}
			return nil
		}, print),
		List(Operation{Name: "sample few", Method: "GET", Path: "/v1/few"}, "few", func(context.Context, Arguments) ([]thing, error) {
			return []thing{{N: 1}, {N: 2}}, sick
		}, print),
		Lines(Operation{
			Name: "sample each", Method: "DELETE", Path: "/v1/things", Single: "/v1/things/{id}",
			Parameters: []Parameter{{Name: "id", Kind: Kind{Placeholder: "ID"}, Several: true, Positional: true}, {Name: "old", Kind: count.Kind}},
		}, func(_ context.Context, a Arguments, emit func(*thing) error) error {
			for _, id := range a["id"] {
				one := &thing{}
				if id != "A.1" {
					one.Error = "no " + id
				}
				if err := emit(one); err != nil {
					return err
				}
			}
			return sick
		}, print),
		Content(Operation{Name: "sample text", Method: "GET", Path: "/v1/things/{id}/text", Parameters: []Parameter{{Name: "id", Kind: MessageID, Positional: true, Required: true}}},
			func(_ context.Context, a Arguments) (io.ReadCloser, int64, error) {
				return io.NopCloser(strings.NewReader("text of " + a.Text("id"))), 11, sick
			}),
	}
}

// TestHandler: each form of an answer, and each kind of wrong request.
func TestHandler(t *testing.T) {
	for _, c := range []struct {
		request string
		sick    error
		status  int
		kind    string
		body    string // part of it
	}{
		{"GET /v1/one", nil, 200, "application/json", "{\"n\":1}\n"},
		{"GET /v1/all", nil, 200, "application/x-ndjson", "{\"n\":0}\n{\"n\":1}\n{\"n\":2}\n"},
		{"GET /v1/all?n=1", nil, 200, "application/x-ndjson", "{\"n\":0}\n"},
		{"GET /v1/few", nil, 200, "application/json", "{\"few\":[{\"n\":1},{\"n\":2}]}\n"},
		{"DELETE /v1/things", nil, 200, "application/x-ndjson", ""},
		{"DELETE /v1/things?id=A.1&id=B.1", nil, 200, "application/x-ndjson", "{\"n\":0}\n{\"n\":0,\"error\":\"no B.1\"}\n"},
		{"DELETE /v1/things/A.1", nil, 204, "", ""},
		{"DELETE /v1/things/B.1", nil, 404, "application/json", `{"error":"unknown","text":"not in the queue: no B.1"}`},
		{"DELETE /v1/things/A.1?id=B.1", nil, 400, "application/json", "unknown parameter"},
		{"DELETE /v1/things/..%2fA", nil, 400, "application/json", "is no ID"},
		{"GET /v1/things/A.1/text", nil, 200, "message/rfc822", "text of A.1"},
		{"GET /v1/things/A.1/text?id=B.1", nil, 400, "application/json", "unknown parameter"},
		{"GET /v1/things/A%20/text", nil, 400, "application/json", "is no ID"},
		{"GET /v1/all?n=", nil, 400, "application/json", "needs one value"},
		{"GET /v1/all?n=1&n=2", nil, 400, "application/json", "needs one value"},
		{"GET /v1/all?n=0", nil, 400, "application/json", "invalid request: n must be at least 1"},
		{"GET /v1/all?n=10", nil, 400, "application/json", "n must be at most 9"},
		{"GET /v1/all?n=x", nil, 400, "application/json", "is no number"},
		{"GET /v1/all?m=1", nil, 400, "application/json", "unknown parameter"},
		{"POST /v1/all", nil, 405, "", ""},
		{"GET /v1/one", ErrBusy, 503, "application/json", `"error":"busy"`},
		{"GET /v1/few", errors.New("broken"), 500, "application/json", `{"error":"failed","text":"broken"}`},
		{"GET /v1/things/A.1/text", ErrUnknown, 404, "application/json", `"error":"unknown"`},
	} {
		method, target, _ := strings.Cut(c.request, " ")
		w := httptest.NewRecorder()
		NewHandler(sample(c.sick), nil).ServeHTTP(w, httptest.NewRequest(method, target, nil))
		if w.Code != c.status || c.kind != "" && w.Header().Get("Content-Type") != c.kind || !strings.Contains(w.Body.String(), c.body) {
			t.Errorf("%s: %d %s %s", c.request, w.Code, w.Header().Get("Content-Type"), w.Body)
		}
	}
}

// TestCutOff: an answer that fails behind its beginning is cut off, and the client
// takes it for an error.
func TestCutOff(t *testing.T) {
	s := httptest.NewServer(NewHandler(sample(errors.New("broken")), nil))
	defer s.Close()
	c := &Client{http.Client{Transport: redirected{s.Listener.Addr().String()}}}
	defer c.Close()
	n := 0
	err := c.Call(t.Context(), findOperation(sample(nil), "sample all"), nil, func(any) error { n++; return nil })
	if err == nil || n > 1 {
		t.Errorf("%d elements, %v", n, err)
	}
}

// redirected sends every request to one address.
type redirected struct{ addr string }

func (r redirected) RoundTrip(q *http.Request) (*http.Response, error) {
	q.URL.Host = r.addr
	return http.DefaultTransport.RoundTrip(q)
}

// TestCallers: a table in this process and a client give the same elements.
func TestCallers(t *testing.T) {
	s := httptest.NewServer(NewHandler(sample(nil), nil))
	defer s.Close()
	var many []string
	for i := range 3 * maxPart {
		many = append(many, "A."+strconv.Itoa(i))
	}
	for _, c := range []Caller{&Client{http.Client{Transport: redirected{s.Listener.Addr().String()}}}, &Table{Operations: sample(nil)}} {
		for _, q := range []struct {
			name string
			a    Arguments
			want string
			err  error
		}{
			{"sample one", nil, "1", nil},
			{"sample all", Arguments{"n": {"4"}}, "0 1 2 3", nil},
			{"sample all", Arguments{"n": {"0"}}, "", ErrInvalid},
			{"sample few", nil, "1 2", nil},
			{"sample each", Arguments{"id": {"A.1"}, "old": {"3"}}, "0", nil},
			{"sample text", Arguments{"id": {"B.2"}}, "text of B.2", nil},
			{"sample text", Arguments{"id": {"../x"}}, "", ErrInvalid},
			{"sample text", nil, "", ErrInvalid},
		} {
			var got []string
			err := c.Call(t.Context(), findOperation(sample(nil), q.name), q.a, func(v any) error {
				switch v := v.(type) {
				case *thing:
					got = append(got, strconv.Itoa(v.N))
				case *Bytes:
					b, err := io.ReadAll(v)
					got = append(got, string(b))
					return err
				}
				return nil
			})
			if !errors.Is(err, q.err) || strings.Join(got, " ") != q.want {
				t.Errorf("%T: %s %v: %q, %v", c, q.name, q.a, got, err)
			}
		}
		var failed []error
		err := c.Call(t.Context(), findOperation(sample(nil), "sample each"), Arguments{"id": many}, func(v any) error {
			failed = append(failed, v.(Failure).Failure())
			return nil
		})
		if err != nil || len(failed) != len(many) || failed[1] != nil || !errors.Is(failed[2], ErrUnknown) {
			t.Errorf("%T: %d elements, %v", c, len(failed), err)
		}
		c.Close()
	}
	if err := (&Table{}).Call(t.Context(), &sample(nil)[0], nil, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("a row that is not in the table: %v", err)
	}
}

// TestPrint: an answer is printed with its end.
func TestPrint(t *testing.T) {
	var b bytes.Buffer
	o := &Output{Writer: bufio.NewWriter(&b)}
	item, end := findOperation(sample(nil), "sample few").Print(o)
	for i := range 2 {
		item(&thing{N: i})
	}
	end()
	o.Flush()
	if b.String() != "0\n1\nend\n" {
		t.Errorf("%q", &b)
	}
	if item, _ := findOperation(sample(nil), "sample text").Print(o); item != nil {
		t.Error("bytes have a printer")
	}
}

// TestSampleReference: rows are described in usage, and flags of a set once.
func TestSampleReference(t *testing.T) {
	rows := sample(nil)
	rows[1].Parameters = append(rows[1].Parameters, Parameter{Name: "a", Kind: Kind{Placeholder: "A"}, Shared: "set", Text: "An a."}, Parameter{Name: "b", Shared: "set"})
	rows[0].Parameters = []Parameter{{Name: "preset", Preset: "1"}}
	parts := Reference(rows, "set")
	usage := strings.Split(parts["usage"], "\n")
	for _, want := range []string{
		"tarishi sample one -c DIR [--json]", "tarishi sample all -c DIR [--json] [--n N] [SET]",
		"tarishi sample each -c DIR [--json] [ID...] [--old N]", "tarishi sample text -c DIR [--json] ID",
	} {
		if !slices.Contains(usage, want) {
			t.Errorf("%q lacks %s", usage, want)
		}
	}
	for part, want := range map[string]string{"set": "| `--a A` | `a` | An a. |", "requests": "| `DELETE /v1/things/ID` | | 204;", "commands": "| `few` |"} {
		if !strings.Contains(parts[part], want) {
			t.Errorf("%s: %s", part, parts[part])
		}
	}
}

// FuzzAnswer reads whatever a server may send.
func FuzzAnswer(f *testing.F) {
	for _, body := range []string{
		`{"n":1}`, `{"error":"unknown","text":"x"}`, `{"n":1}` + "\n{", `{"few":[{"n":1},{"n":2}]}`, `{"few":[`, "null", "[]", "",
	} {
		f.Add(200, []byte(body))
		f.Add(404, []byte(body))
	}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		c := &Client{http.Client{Transport: canned{status, body}}}
		ask := func(name string) (elements int, err error) {
			err = c.Call(t.Context(), findOperation(sample(nil), name), Arguments{}, func(any) error { elements++; return nil })
			return elements, err
		}
		n, err := ask("sample one")
		if err == nil && (status/100 != 2 || n != 1) {
			t.Errorf("%d elements", n)
		}
		n, err = ask("sample all")
		if err == nil && n == 0 && status == 200 && len(bytes.TrimSpace(body)) > 0 {
			t.Errorf("%q is an empty list", body)
		}
		ask("sample few")
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
