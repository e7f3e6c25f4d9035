package grammar

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// dump writes a parsed file in a form to compare: section.key=values.
func dump(f *File) string {
	var b strings.Builder
	for _, s := range f.Sections {
		if s.Name != "main" {
			fmt.Fprintf(&b, "[%s]@%d ", s.Name, s.Line)
		}
		for _, k := range s.Keys {
			switch {
			case k.Bare:
				fmt.Fprintf(&b, "%s@%d ", k.Name, k.Line)
			case k.Array:
				fmt.Fprintf(&b, "%s[]=%q@%d ", k.Name, k.Values, k.Line)
			default:
				fmt.Fprintf(&b, "%s=%s@%d ", k.Name, strings.Join(k.Values, "||"), k.Line)
			}
		}
	}
	for _, bad := range f.Bad {
		fmt.Fprintf(&b, "BAD@%d ", bad.Line)
	}
	return strings.TrimSpace(b.String())
}

func TestGrammar(t *testing.T) {
	for _, test := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"line breaks", "a=1\r\nb=2\rc=3\nd=4", "a=1@1 b=2@2 c=3@3 d=4@4"},
		{"comments", "; x\n # y\n\ta=1\n  ;z", "a=1@3"},
		{"no trailing comments", "a=1 ; x # y\nb=2#3", "a=1 ; x # y@1 b=2#3@2"},
		{"section", "[s]\na=1\n[ t.u=v w ]\nb=2", "[s]@1 a=1@2 [t.u=v w]@3 b=2@4"},
		{"empty section", "[]\na=1", "[]@1 a=1@2"},
		{"section with more behind it", "[x] ; note\na=1", "a=1@2 BAD@1"},
		{"brackets", "[x]]\n[[y]\na=1", "[x]]@1 [[y]@2 a=1@3"},
		{"section appends", "[s]\na=1\n[t]\nb=2\n[s]\nc=3", "[s]@1 a=1@2 c=3@6 [t]@3 b=2@4"},
		{"main is the top", "a=1\n[s]\nb=2\n[main]\nc=3", "a=1@1 c=3@5 [s]@2 b=2@3"},
		{"case matters", "[S]\nA=1\n[s]\na=2", "[S]@1 A=1@2 [s]@3 a=2@4"},
		{"no inheritance by name", "[a]\nx=1\n[a.b]\ny=2", "[a]@1 x=1@2 [a.b]@3 y=2@4"},
		{"names ini.v1 takes for its own", "a=1\n[DEFAULT]\nb=2\n[main]\n-=3", "a=1@1 -=3@5 [DEFAULT]@2 b=2@3"},
		{"key characters", "a@b:c._+-/d[1]=x\n[y]=z", "a@b:c._+-/d[1]=x@1 [y]=z@2"},
		{"bad keys", "a b=1\n=2\né=3\na;b=4\nok=5", "ok=5@5 BAD@1 BAD@2 BAD@3 BAD@4"},
		{"bare key", "a\n b \nc=", "a@1 b@2 c=@3"},
		{"bare after value", "a=1\na", "a@2"},
		{"value after bare", "a\na=1", "a=1@2"},
		{"value", "a =  b=c \t\nb=\"q\"\nc='q'\nd=`q`\ne=\"\"\"q\"\"\"\nf=%(a)s", "a=b=c@1 b=\"q\"@2 c='q'@3 d=`q`@4 e=\"\"\"q\"\"\"@5 f=%(a)s@6"},
		{"colon is no delimiter", "a:b=c", "a:b=c@1"},
		{"the last wins", "a=1\na=2\na=2", "a=2@3"},
		{"array", "a[]=1\na[]=\na[]=1\na[] = x y", `a[]=["1" "" "1" "x y"]@1`},
		{"array after plain", "a=1\na[]=2\na[]=3", `a[]=["2" "3"]@2`},
		{"plain after array", "a[]=1\na[]=2\na=3", "a=3@3"},
		{"array, plain, array", "a[]=1\na=2\na[]=3", `a[]=["3"]@3`},
		{"continuation", "a=b \\\n  c\\ \t\nd\ne=f", "a=b   cd@1 e=f@4"},
		{"comments within a continuation", "a=b\\\n; no\n\nc", "a=bc@1"},
		{"section within a continuation", "a=b\\\n[s]\nc", "[s]@2 a=bc@1"},
		{"continued key", "ab\\\nc=d", "abc=d@1"},
		{"continuation of nothing", "a=1\nb=2\\", "a=1@1 BAD@2"},
		{"backslash inside", `a=b\c` + "\n" + `d=\\x`, `a=b\c@1 d=\\x@2`},
		{"unsafe names", "__proto__=1\nconstructor[]=1\n[prototype]\na=1\n[s]\nb=1", "[s]@5 b=1@6 BAD@1 BAD@2 BAD@3"},
		{"byte order mark", "\ufeffa=1\n", "a=1@1"},
		{"bad UTF-8", "a=\xff", "a=\ufffd@1"},
		{"NUL", "a=b\x00c", "a=b\x00c@1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := dump(Parse([]byte(test.in))); got != test.want {
				t.Errorf("\n got %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestLists(t *testing.T) {
	for _, test := range []struct {
		in   string
		want []Line
	}{
		{"", nil},
		{"# a\n\n  b # c \r; d\r\n12\re", []Line{{Text: "b # c", No: 3}, {Text: "12", No: 5}, {Text: "e", No: 6}}},
	} {
		if got := ParseList([]byte(test.in)); !slices.Equal(got, test.want) {
			t.Errorf("%q: %v", test.in, got)
		}
	}
	if got := ParseText([]byte("# a\n\n b \n")); !slices.Equal(got, []string{"# a", "", " b "}) {
		t.Errorf("%q", got)
	}
}

// FuzzINI holds what ini.v1 makes of a normalised file against the statements
// that were found in it.
func FuzzINI(f *testing.F) {
	for _, s := range []string{
		"a=1\n[s]\nb[]=2\nb[]=\nc\n", "[main]\n-=`x`\n-=\"\"\"\n[]\n[DEFAULT]\nx=%(y)s", "a=b\\\n[x]\nc", "\ufeff[é]\n#\n;\n[x", "k=\"`\"\r[x]\rk[]=`",
		"__proto__\n[constructor]\nx=1\n[y]\nx", "a=\\\n\\\n\\\nb", "[a.b]\nc=1\n[a]\nd=1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		statements, _ := scanLines(data)
		markOverridden(statements)
		want := map[[2]string][]string{}
		for _, s := range statements {
			if s.key == "" || s.overridden {
				continue
			}
			n := [2]string{s.section, s.key}
			if s.bare {
				want[n] = append(want[n], []string{}...)
			} else {
				want[n] = append(want[n], s.value)
			}
		}
		file := Parse(data)
		for _, s := range file.Sections {
			for _, k := range s.Keys {
				n := [2]string{s.Name, k.Name}
				values, ok := want[n]
				if !ok || !slices.Equal(values, k.Values) || k.Line == 0 || k.Bare != (values == nil && !k.Array) {
					t.Fatalf("[%s] %s: got %q, want %q (bare %v)", s.Name, k.Name, k.Values, values, k.Bare)
				}
				delete(want, n)
			}
		}
		if len(want) > 0 {
			t.Fatalf("lost: %v", want)
		}
		for _, b := range file.Bad {
			if b.Line == 0 {
				t.Fatal(b.Text)
			}
		}
	})
}

func FuzzList(f *testing.F) {
	f.Add([]byte("# a\n b # c\r\n\rd"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, l := range ParseList(data) {
			if l.Text == "" || l.No < 1 || strings.ContainsAny(l.Text, "\r\n") || l.Text[0] == '#' || l.Text[0] == ';' {
				t.Fatalf("%q", l.Text)
			}
		}
	})
}
