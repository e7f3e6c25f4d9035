package authres

import (
	"fmt"
	"testing"
)

func TestParse(t *testing.T) {
	for value, want := range map[string]string{
		"mx.example; none": "[]",
		"mx.example;\r\n dkim=pass (dmarc=pass) header.d=a.example;\r\n\tspf/1=fail reason=\"dmarc=pass; x\" smtp.mailfrom=\"a;b@c.example\" ; DMARC=Pass (p=none) Header.From=a.example": `[dkim=pass header.d=a.example spf=fail smtp.mailfrom="a;b@c.example" dmarc=pass header.from=a.example]`,
		"dmarc=pass header.from=x":                   "[]", // the host's name is missing
		"mx; (a (b) dmarc=pass; dmarc=pass":          "[]",
		"mx; spf=fail smtp.mailfrom=\"a; dmarc=pass": `[spf=fail smtp.mailfrom="\"a; dmarc=pass"]`,
		"mx; =x; dmarc; ; arc=pass x=y":              "[arc=pass]",
		"mx; spf=pass smtp.mailfrom=\"a\\\"b\"":      `[spf=pass smtp.mailfrom="a\"b"]`,
	} {
		if got := fmt.Sprint(Parse(value)); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	r := Parse("mx; dmarc=pass header.from=a.example")[0]
	if r.Property("header.from") != "a.example" || r.Property("header.d") != "" {
		t.Errorf("%+v", r)
	}
}

// What we write can be read, and holds no more results than we wrote.
func FuzzParse(f *testing.F) {
	f.Add("a; dmarc=pass", `"`, "(")
	f.Fuzz(func(t *testing.T, v, reason, comment string) {
		r := Result{Method: "spf", Value: "fail", Reason: reason, Comment: comment, Properties: []Property{{"smtp.mailfrom", v}}}
		got := Parse(Format("mx.example", []string{r.String()}))
		if len(got) != 1 || got[0].Method != "spf" || got[0].Value != "fail" || v != "" && got[0].Property("smtp.mailfrom") != clean(v) {
			t.Errorf("%+v of %s", got, r)
		}
	})
}
