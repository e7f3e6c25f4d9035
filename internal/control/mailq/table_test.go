package mailq

import (
	"errors"
	"flag"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"tarishi/internal/control"
	"tarishi/internal/control/view"
)

var update = flag.Bool("update", false, "write the reference that is made of the table")

const page = "../../../docs/queue-commands.md"

// TestReference holds the tables in docs/queue-commands.md equal to the rows. With
// -update it writes them.
func TestReference(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for name, want := range control.Reference(Rows(), "filter") {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
		before, rest, ok := strings.Cut(text, begin)
		got, after, closed := strings.Cut(rest, end)
		if !ok || !closed {
			t.Fatalf("%s has no part %q", page, name)
		}
		if got != want && !*update {
			t.Errorf("%s: the part %s is not what the table says; go test ./internal/control/mailq -run Reference -update writes it", page, name)
		}
		text = before + begin + want + end + after
	}
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// wrong are values that are not of a kind, by its placeholder.
var wrong = map[string][]string{
	"N": {"x", "-1", "99999999999999999999", "1.5"}, "DOMAIN": {"a b", "..", "a@b.test"}, "ADDR": {"nobody", "@", "a b"}, "AGE": {"12", "h", "-1h", "1y", "99999999w"},
	"RE": {"(", strings.Repeat("a", 1001), "a{1001}"}, "STATE": {"dead"}, "DOMAIN|ID": {"a b", "a@b.test"},
	"ID":   nil, // is checked for each message, see TestSelectedByID
	"SITE": nil, // can be anything
}

// TestTable: each row has a command, a route, a place in the docs, and a check of
// its parameters.
func TestTable(t *testing.T) {
	docs, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	o := &flushes{}
	h := control.NewHandler(New(three(t), o, nil).Operations(), nil)
	ask := func(method, path string, q url.Values) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, path+"?"+q.Encode(), nil))
		return w
	}
	names := map[string]bool{}
	for _, op := range Rows() {
		if names[op.Name] || op.Text == "" || op.Prints == "" || op.Answer == "" || !strings.HasSuffix(op.Text, ".") {
			t.Errorf("%s is twice in the table, or lacks its texts", op.Name)
		}
		names[op.Name] = true
		for _, want := range []string{"\ntarishi " + op.Name + " -c DIR", "| `" + op.Method + " " + strings.NewReplacer("{id}", "ID").Replace(op.Path) + "`"} {
			if !strings.Contains(string(docs), want) {
				t.Errorf("%s lacks %q", page, want)
			}
		}
		path := strings.ReplaceAll(op.Path, "{id}", "A.1")
		if w := ask(op.Method, path, url.Values{"no-such": {"1"}}); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "unknown parameter") {
			t.Errorf("%s: an unknown parameter: %d %s", op.Name, w.Code, w.Body)
		}
		if strings.Contains(op.Path, "{id}") {
			if w := ask(op.Method, strings.ReplaceAll(op.Path, "{id}", "..%2fA"), nil); w.Code != http.StatusBadRequest {
				t.Errorf("%s: a wrong ID: %d %s", op.Name, w.Code, w.Body)
			}
		}
		for _, p := range op.Parameters {
			if p.Text == "" || !strings.HasSuffix(p.Text, ".") {
				t.Errorf("%s: %s has no text", op.Name, p.Name)
			}
			values, known := wrong[p.Kind.Placeholder]
			if !known {
				t.Errorf("%s: no wrong value of the kind %s is known to this test", op.Name, p.Kind.Placeholder)
			}
			if strings.Contains(op.Path, "{"+p.Name+"}") {
				continue
			}
			for _, v := range append(values, "") {
				if w := ask(op.Method, path, url.Values{p.Name: {v}}); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"error":"invalid"`) {
					t.Errorf("%s: %s=%q: %d %s", op.Name, p.Name, v, w.Code, w.Body)
				}
			}
			if p.Several {
				continue
			}
			if w := ask(op.Method, path, url.Values{p.Name: {"1", "2"}}); w.Code != http.StatusBadRequest {
				t.Errorf("%s: %s twice: %d %s", op.Name, p.Name, w.Code, w.Body)
			}
		}
	}
	if len(o.steered)+len(o.domains)+len(o.forgotten) > 0 {
		t.Errorf("a wrong request did something: %v", o)
	}
}

// stirred is three, of which one message waits, with one recipient that is being
// attempted, one is for a suspended destination, and one is held.
func stirred(t *testing.T) *memory {
	q := three(t)
	did(t, q.Defer("A.1", []int{0, 2}, 2, born.Add(time.Hour), "451 4.3.2 busy"), q.Hold("C.1", []int{0}))
	return q
}

// TestFilteredActions: each action takes the filter, and does what it does to the
// messages that list shows with it and to no others.
func TestFilteredActions(t *testing.T) {
	for _, c := range []struct {
		conditions, want string // parameters, IDs
	}{
		{"sender=*@client.test", "A.1 B.1"},
		{"sender=@client.test&domain=x.test", "A.1"},
		{"sender=T*@*.test", "B.1"},
		{"sender=*", "A.1 B.1 C.1"},
		{"sender=<>", "C.1"},
		{"recipient=a@*.test", "A.1 B.1"},
		{"recipient=@xn--bcher-kva.test", "C.1"},
		{"domain=*.test", "A.1 B.1 C.1"},
		{"domain=*x*", "A.1 C.1"}, // xn--…
		{"domain=b*cher.test", ""},
		{"domain=y.test&recipient=b@x.test", ""}, // not one recipient
		{"site=mx1.test*", "A.1"},
		{"site=y.test", "A.1 B.1"},
		{"older=80m", "B.1"},
		{"newer=80m", "A.1 C.1"},
		{"attempts=2", "A.1"},
		{"attempts=3", ""},
		{"reason=^4[25]1 .*busy", "A.1"},
		{"reason=.", "A.1"},
		{"state=held", "C.1"},
		{"state=active", "A.1"},
		{"state=deferred", "A.1"},
		{"state=suspended", "B.1"},
		{"state=ready", ""},
		{"state=deferred&domain=y.test", "A.1"},
		{"state=active&domain=y.test", ""},
		{"id=B.1&id=A.1", "A.1 B.1"},
		{"id=B.1&id=A.1&domain=x.test", "A.1"},
		{"sender=*&limit=2", "A.1 B.1"},
	} {
		a, err := url.ParseQuery(c.conditions)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"queue list", "queue hold", "queue release", "queue remove", "queue flush"} {
			o := &flushes{}
			l := New(stirred(t), o, nil)
			l.now = func() time.Time { return born.Add(30 * time.Minute) }
			got := map[string]bool{}
			err := local(l).Call(t.Context(), Row(name), control.Arguments(a), func(v any) error {
				switch v := v.(type) {
				case *view.Message:
					got[string(v.ID)] = true
				case *view.Removal:
					got[string(v.ID)] = v.Removed
				case *view.Holding:
					got[string(v.ID)] = v.Held != nil && *v.Held == (name == "queue hold")
				}
				return nil
			})
			if name == "queue flush" {
				for _, id := range o.domains {
					got[id] = true
				}
			}
			if all := slices.Sorted(maps.Keys(got)); strings.Join(all, " ") != c.want || err != nil {
				t.Errorf("%s %s: %v, %v, want %s", name, c.conditions, got, err, c.want)
			}
		}
	}
}

// TestSelectedByID: each of several IDs is answered for, wrong and unknown ones
// too; damaged messages can be removed, if nothing is asked of them but the ID.
func TestSelectedByID(t *testing.T) {
	both(t, func(t *testing.T) (Queue, Outbound) {
		q := three(t)
		q.damaged = "B.1"
		return q, &flushes{}
	}, func(t *testing.T, c *caller) {
		perform := func(name string, a control.Arguments) string {
			t.Helper()
			var all []string
			err := c.Call(t.Context(), Row(name), a, func(v any) error {
				switch v := v.(type) {
				case *view.Removal:
					all = append(all, string(v.ID)+" "+v.Error)
				case *view.Holding:
					all = append(all, string(v.ID)+" "+v.Error)
				}
				return nil
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return strings.Join(all, "; ")
		}
		ids := []string{"A.1", "Z.9", "../x", "B.1"}
		const want = `A.1 ; Z.9 not in the queue; ../x invalid request: "../x" is no ID; B.1 `
		if got := perform("queue hold", control.Arguments{"id": ids}); got != want+errDamage.Error() {
			t.Error(got)
		}
		if got := perform("queue remove", control.Arguments{"id": ids[3:], "sender": {"*"}}); got != "B.1 "+errDamage.Error() {
			t.Error(got)
		}
		if got := perform("queue remove", control.Arguments{"id": ids}); got != want {
			t.Error(got)
		}
	})
}

// TestManyIDs: more IDs than a request has room for are several requests, in order.
func TestManyIDs(t *testing.T) {
	c := serve(t, t.TempDir(), three(t), &flushes{}).dial()
	var ids, got []string
	for range 1000 {
		ids = append(ids, strings.Repeat("Z", 60), "A.1")
	}
	err := control.Each(t.Context(), c, Row("queue hold"), control.Arguments{"id": ids}, func(h *view.Holding) error {
		got = append(got, string(h.ID))
		return nil
	})
	if err != nil || !slices.Equal(got, ids) {
		t.Errorf("%d of %d, %v", len(got), len(ids), err)
	}
}

// TestFlushWhich: an ID that is in the queue is a message, even if it looks like a
// domain; what begins like an ID is never a domain.
func TestFlushWhich(t *testing.T) {
	const known, unknown = "F47AC10B-58CC-4372-A567-0E02B2C3D479.1", "F47AC10B-58CC-4372-A567-0E02B2C3D479.2"
	for _, c := range []struct {
		which, flushed string
		err            error
	}{
		{known, known, nil},
		{"mail.test", "mail.test", nil}, // is both
		{"X.Test.", "x.test", nil},
		{unknown, "", control.ErrUnknown},
		{strings.ToLower(unknown) + "1", "", control.ErrUnknown},
		{"a b", "", control.ErrInvalid},
	} {
		o := &flushes{}
		q := newMemory(t, envelope(t, known, "s@x.test", "r@x.test"), envelope(t, "mail.test", "s@x.test", "r@x.test"))
		_, err := one[view.Flushed](t.Context(), local(New(q, o, nil)), "queue flush", control.Arguments{"which": {c.which}})
		if !errors.Is(err, c.err) || strings.Join(o.domains, " ") != c.flushed {
			t.Errorf("%s: %q, %v", c.which, o.domains, err)
		}
	}
	_, err := one[view.Flushed](t.Context(), local(New(three(t), &flushes{}, nil)), "queue flush", control.Arguments{"which": {"x.test"}, "domain": {"y.test"}})
	if !errors.Is(err, control.ErrInvalid) {
		t.Error(err)
	}
}
