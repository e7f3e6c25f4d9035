package result

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"unicode/utf8"

	"tarishi/internal/ini"
)

// The line has the values first, in their order, and then the lists, as Haraka collates
// them.
func TestLine(t *testing.T) {
	r := new(Store).For("p")
	r.Set("helo_host", "mx.example.com")
	r.Set("_skip_hooks", []string{"a"})
	r.Set("empty", []string{})
	r.Set("names", []string{"a", "b"})
	r.Set("map", map[string]any{"a": 1})
	r.Set("isa", true)
	r.Set("score", 1.5)
	r.Set("count", 3)
	r.Set("helo_host", "again.example.com") // keeps its place
	r.Set("mixed", []any{"x", 2.0, nil})
	r.Pass = append(r.Pass, "one", "two")
	r.Fail = append(r.Fail, "three")
	r.Msg = append(r.Msg, "four")

	for _, test := range []struct {
		format Format
		want   string
	}{
		{Format{}, "helo_host: again.example.com, names: a,b, isa: true, score: 1.5, count: 3, mixed: x,2,, msg:four, pass:one, two, fail:three"},
		{Format{Order: []string{"fail", "pass"}, Hide: []string{"names", "score", "count", "mixed", "isa"}}, "helo_host: again.example.com, fail:three, pass:one, two"},
		{Format{Hide: []string{"pass", "helo_host", "names", "score", "count", "mixed", "isa"}}, "msg:four, fail:three"},
	} {
		if got := r.Line(test.format); got != test.want {
			t.Errorf("%+v:\n got %q\nwant %q", test.format, got, test.want)
		}
	}
	if got := new(Store).Of("p").Line(Format{}); got != "" {
		t.Errorf("nothing is %q", got)
	}
}

// A copy shares nothing with what it was made of.
func TestClone(t *testing.T) {
	var s Store
	if s.Of("p") != nil || s.Of("p").Clone() != nil || s.Of("p").Value("n") != nil {
		t.Error("an empty store has findings")
	}
	r := s.For("p")
	r.Pass = append(make([]string, 0, 4), "a")
	r.Set("list", []string{"x"})
	c := s.Of("p").Clone()
	c.Pass = append(c.Pass, "b")
	c.Value("list").([]string)[0] = "y"
	c.Set("more", 1)
	r.Pass = append(r.Pass, "c")
	if !slices.Equal(c.Pass, []string{"a", "b"}) || r.Value("list").([]string)[0] != "x" || r.Value("more") != nil {
		t.Errorf("%+v and %+v share something", r, c)
	}
}

func TestFormats(t *testing.T) {
	var formats Formats
	r := ini.NewReader(fstest.MapFS{"results.ini": {Data: []byte("redis_publish=true\n[helo.checks]\norder=fail,pass\nhide=helo_host, multi;ips\n[fcrdns]\nhide=pass\n[p]\norder=fail,pas\nshow=x\n")}}, "")
	r.Load(formats.Tables())
	if got, want := formats["helo.checks"], (Format{[]string{"fail", "pass"}, []string{"helo_host", "multi", "ips"}}); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}

	usual := Format{Hide: []string{"ptr_names"}, Order: []string{"fail"}}
	if got := formats["fcrdns"].Or(usual); !slices.Equal(got.Hide, []string{"pass"}) || !slices.Equal(got.Order, usual.Order) {
		t.Errorf("%+v", got)
	}
	if got := formats["other"].Or(usual); !reflect.DeepEqual(got, usual) {
		t.Errorf("%+v", got)
	}
	var lines []int
	for _, p := range r.Problems() {
		if !p.Warning {
			lines = append(lines, p.Line)
		}
	}
	if !slices.Equal(lines, []int{8, 9}) {
		t.Errorf("problems: %v", r.Problems())
	}
}

// A client can have checks made without end, and choose what they find.
func TestBounds(t *testing.T) {
	s := new(Store)
	v := NewView(nil, s, "")
	long := strings.Repeat("\u00e4", maxText)
	for range 3 * maxTexts {
		v.Pass("p", "again")
		v.Fail("p", long)
		v.Msg("p", "x")
		v.Err("p", "x")
		v.Skip("p", "x")
	}
	r := s.Of("p")
	for _, name := range usualOrder {
		if got := r.list(name); len(got) != maxTexts {
			t.Errorf("%s has %d texts", name, len(got))
		}
	}
	if got := r.Fail[0]; len(got) > maxText+len("…") || !utf8.ValidString(got) || !strings.HasSuffix(got, "ä…") {
		t.Errorf("%d bytes, %q", len(got), got[len(got)-8:])
	}
}
