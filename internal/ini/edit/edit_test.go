package edit

import "testing"

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{a: "", b: "", want: 0},
		{a: "", b: "tls", want: 3},
		{a: "listen", b: "listen", want: 0},
		{a: "lisen", b: "listen", want: 1},
		{a: "listten", b: "listen", want: 1},
		{a: "lisden", b: "listen", want: 1},
		{a: "lsiten", b: "listen", want: 1},
		{a: "ca", b: "abc", want: 3}, // a swapped pair is not changed again
		{a: "port", b: "user", want: 4},
	} {
		if got := Distance(c.a, c.b); got != c.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := Distance(c.b, c.a); got != c.want {
			t.Errorf("Distance(%q, %q) = %d, want %d", c.b, c.a, got, c.want)
		}
	}
}
