package mail

import (
	"bytes"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func TestID(t *testing.T) {
	id := NewID(NewConnectionID(), 3)
	if !id.Valid() || !strings.HasSuffix(string(id), ".3") {
		t.Errorf("%q", id)
	}
	for _, bad := range []ID{"", ".x", "a/b", "a b", "../x", ID(strings.Repeat("a", 65))} {
		if bad.Valid() {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestNotes(t *testing.T) {
	n := Notes{}
	n.Set("queue.wants", "outbound")
	n.Set("queue.next_hop", "smtp://x")
	n.Set("flag", true)
	if n.String("queue.wants") != "outbound" || n.String("queue.next_hop") != "smtp://x" || !n.Bool("flag") {
		t.Errorf("%v", n)
	}
	c := n.Clone()
	c.Set("queue.wants", "x")
	if n.String("queue.wants") != "outbound" || Notes(nil).Get("a.b") != nil || n.String("flag.deeper") != "" {
		t.Error("clone shares maps, or a missing path is not empty")
	}
}

func TestHeader(t *testing.T) {
	const raw = "Received: a\r\n\tby b\r\nSubject : Hi\r\nX-Long: one\r\n two\r\nreceived: c\r\n\r\nbody: no\r\n"
	h, size, complete := ParseHeader([]byte(raw))
	if !complete || raw[size:] != "body: no\r\n" || h.Len() != 4 || h.Changed() {
		t.Fatalf("size %d complete %v len %d", size, complete, h.Len())
	}
	if h.Get("subject") != "Hi" || h.Get("X-Long") != "one two" || h.Count("Received") != 2 || h.Get("received") != "a\tby b" {
		t.Errorf("%q %q %q", h.Get("subject"), h.Get("x-long"), h.Get("received"))
	}
	if got := string(h.Bytes()); got != raw[:size] {
		t.Errorf("unchanged header became %q", got)
	}
	h.Add("X-Evil", "a\r\nBcc: x@y\n\nbody")
	h.AddLeading("X-First", "1")
	h.Rename("Subject", "X-Subject")
	want := "X-First: 1\r\nReceived: a\r\n\tby b\r\nX-Long: one\r\n two\r\nreceived: c\r\nX-Evil: a\r\n\tBcc: x@y\r\n\tbody\r\nX-Subject: Hi\r\n\r\n"
	if got := string(h.Bytes()); got != want || !h.Changed() {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A renamed field keeps its folds: on one line it could be longer than SMTP
// allows.
func TestHeaderRename(t *testing.T) {
	h, _, _ := ParseHeader([]byte("X-Long : one\r\n two\r\n\tthree\r\nTo: a\r\nx-long:four\r\n\r\n"))
	if h.Rename("Y-Long", "Z"); h.Changed() {
		t.Error("nothing to rename is a change")
	}
	h.Rename("X-Long", "Y")
	want := "To: a\r\nY: one\r\n two\r\n\tthree\r\nY:four\r\n\r\n"
	if got := string(h.Bytes()); got != want || !h.Changed() {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestHeaderWithoutEmptyLine(t *testing.T) {
	for in, body := range map[string]string{
		"A: b\r\nno field here\r\n": "no field here\r\n",
		"just text\r\n":             "just text\r\n",
		" fold first\r\nA: b\r\n":   " fold first\r\nA: b\r\n",
		"A: b\r\n":                  "",
		"":                          "",
		"A: b":                      "",
	} {
		_, size, complete := ParseHeader([]byte(in))
		if complete || in[size:] != body {
			t.Errorf("%q: complete %v, body %q", in, complete, in[size:])
		}
	}
	if _, size, complete := ParseHeader([]byte("\r\nbody")); !complete || size != 2 {
		t.Error("an empty header section is complete")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte("A: b\r\n c\r\n\r\nx"))
	f.Add([]byte("\n:\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, size, complete := ParseHeader(b)
		if size > len(b) {
			t.Fatal("beyond the end")
		}
		n := h.Len()
		out := h.Bytes()
		h2, size2, complete2 := ParseHeader(out)
		if !complete2 || size2 != len(out) || h2.Len() != n {
			t.Fatalf("%q → %q: %d fields of %d", b, out, h2.Len(), n)
		}
		_ = complete
		h.Add("X", string(b))
		h3, _, ok := ParseHeader(h.Bytes())
		if !ok || h3.Len() != n+1 {
			t.Fatalf("a value made %d fields of %d", h3.Len(), n+1)
		}
	})
}

type reopenable struct{ b []byte }

func (r reopenable) Size() int64                  { return int64(len(r.b)) }
func (r reopenable) Open() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(r.b)), nil }

func TestWithHead(t *testing.T) {
	for name, c := range map[string]Content{
		"memory": Memory{[]byte("old "), []byte("head|"), []byte("body")},
		"stream": reopenable{[]byte("old head|body")},
	} {
		joined := WithHead([]byte("new|"), c, 9)
		if joined.Size() != 8 {
			t.Errorf("%s: size %d", name, joined.Size())
		}
		for range 2 {
			r, err := joined.Open()
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(struct{ io.Reader }{r}, []byte("new|body")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	var b bytes.Buffer
	r, _ := Memory{[]byte("a"), nil, []byte("b")}.Open()
	if _, err := io.Copy(&b, r); err != nil || b.String() != "ab" {
		t.Errorf("%q %v", b.String(), err)
	}
}

func TestPlainNotes(t *testing.T) {
	n := Notes{"s": "x", "n": 1.0, "list": []any{1.0, map[string]any{"a": "b"}}, "strings": []string{"x"}, "sub": Notes{"deep": map[string]any{"d": 1}}, "nil": nil}
	c := n.Plain()
	if !reflect.DeepEqual(c, n) {
		t.Errorf("%v", c)
	}
	c.Set("sub.deep.d", 2)
	c["list"].([]any)[1].(map[string]any)["a"] = "changed"
	c["strings"].([]string)[0] = "changed"
	if n.Get("sub.deep.d") != 1 || n["list"].([]any)[1].(map[string]any)["a"] != "b" || n["strings"].([]string)[0] != "x" {
		t.Errorf("the copy shares something: %v", n)
	}
	for name, v := range map[string]any{"pointer": &struct{}{}, "list": []any{func() {}}, "channel": make(chan int)} {
		if c := (Notes{"x": v, "y": 1}).Plain(); len(c) != 1 {
			t.Errorf("%s: %v", name, c)
		}
	}
	if Notes(nil).Plain() != nil {
		t.Error("nil")
	}
}
