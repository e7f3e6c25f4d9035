package pattern

import (
	"errors"
	"testing"
)

func TestWhole(t *testing.T) {
	for _, test := range []struct {
		expression string
		yes, no    []string
	}{
		{`.*spamexperts.com`, []string{"a@spamexperts.com", "A@SPAMEXPERTSxCOM"}, []string{"a@spamexperts.com.org"}},
		{`a|b`, []string{"a", "B"}, []string{"ab", ""}},
		{``, []string{""}, []string{"a"}},
		{`[^]+`, []string{"a\nb"}, []string{""}},
		{`a[]`, nil, []string{"a", "a[]"}},
		{`\u0061\-\/\e\_`, []string{"a-/e_"}, nil},
		{`x.y`, []string{"x-y"}, []string{"x\ny", "x\ry", "x\u2028y"}},
		{`a\sb`, []string{"a b", "a\u00a0b", "a\ufeffb"}, []string{"ab"}},
		{`[\s.]+`, []string{" .\u2003"}, []string{"a"}},
		{`a\Sb`, []string{"axb"}, []string{"a\u00a0b"}},
		{`\cJ\0`, []string{"\n\x00"}, nil},
		{`[[a]+`, []string{"[a["}, nil},
		{`(?i)abc`, []string{"ABC"}, nil},
		{`(?:dsl|cable)-\d{1,3}\.example\.net`, []string{"dsl-12.example.net"}, []string{"dsl-x.example.net"}},
	} {
		p, err := Whole(test.expression)
		if err != nil {
			t.Errorf("%s: %v", test.expression, err)
			continue
		}
		for _, s := range test.yes {
			if !p.MatchString(s) {
				t.Errorf("%s does not match %q", test.expression, s)
			}
		}
		for _, s := range test.no {
			if p.MatchString(s) {
				t.Errorf("%s matches %q", test.expression, s)
			}
		}
	}
}

func TestCannotBeExpressed(t *testing.T) {
	for expression, want := range map[string]error{
		`a(?=b)`: ErrLookAround, `(?!a)b`: ErrLookAround, `(?<=a)b`: ErrLookAround, `(?<!a)b`: ErrLookAround,
		`(a)\1`: ErrBackReference, `(?<n>a)\k<n>`: ErrBackReference,
	} {
		if _, err := Whole(expression); !errors.Is(err, want) {
			t.Errorf("%s: %v", expression, err)
		}
		if _, err := PartFold(expression); !errors.Is(err, want) {
			t.Errorf("%s: %v", expression, err)
		}
		if _, err := Part(expression); !errors.Is(err, want) {
			t.Errorf("%s: %v", expression, err)
		}
	}
	for _, broken := range []string{`(`, `a\`, `[a`, `a{2000}`, `*`} {
		if _, err := Whole(broken); err == nil {
			t.Errorf("%s compiles", broken)
		}
	}
	if p, err := PartFold(`\.(?:exe|com)$`); err != nil || !p.MatchString("a.EXE") || p.MatchString("a.exe.txt") {
		t.Error(p, err)
	}
	if p, err := Part(`^(?:0\.0\.0\.0|127\.)`); err != nil || !p.MatchString("127.0.0.1") || p.MatchString("1.127.0.0") {
		t.Error(p, err)
	}
}

// FuzzWhole: whatever is written, it compiles or is an error.
func FuzzWhole(f *testing.F) {
	for _, s := range []string{`a(?=b)`, `[\s.]+`, `\u00e4`, `[^]`, `\`, `(?i)x`} {
		f.Add(s, "text")
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		if p, err := Whole(expression); err == nil {
			p.MatchString(text)
		}
	})
}
