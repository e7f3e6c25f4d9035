package canon

import (
	"strings"
	"testing"
)

func TestParseTags(t *testing.T) {
	tags, err := ParseTags(" v=1; a = rsa-sha256 ;\r\n\tb=ab\r\n\t cd= ; h=from :\r\n to; x=;")
	if err != nil || len(tags) != 5 {
		t.Fatal(tags, err)
	}
	if tags.Text("a") != "rsa-sha256" || tags.Text("b") != "abcd=" || strings.Join(tags.List("h"), "|") != "from|to" || !tags.Has("x") || tags.Has("y") || tags.List("y") != nil {
		t.Errorf("%+v", tags)
	}
	for text, want := range map[string]error{
		"a=1; a=2": errTwice, "a": errTag, "=1": errTag, "1=1": errTag, "a=1;;b=2": errTag, "a-b=1": errTag, strings.Repeat("a", 3): errTag,
		manyTags(): errManyTags,
	} {
		if got, err := ParseTags(text); err != want {
			t.Errorf("%.20q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "a=1", "a=1; ", "A_1=x"} {
		if got, err := ParseTags(text); err != nil {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func manyTags() string {
	var b strings.Builder
	for i := range maxTags + 1 {
		b.WriteString("a" + strings.Repeat("b", i) + "=1;")
	}
	return b.String()
}

// The places of a value cut it out of the text.
func FuzzParseTags(f *testing.F) {
	f.Add("v=1; b= x y ; h=a:b")
	f.Fuzz(func(t *testing.T, text string) {
		tags, err := ParseTags(text)
		if err != nil {
			return
		}
		for _, one := range tags {
			if got := text[one.Start:one.End]; trimSpace(got) != one.Value || text[one.Start-1] != '=' {
				t.Errorf("%q of %q, want %q", got, text, one.Value)
			}
		}
	})
}
