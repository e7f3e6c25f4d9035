package mail

import (
	"strings"
	"testing"
)

// TestIsASCII: wherever the one byte stands that is not, and without a copy.
func TestIsASCII(t *testing.T) {
	for n := range 20 {
		plain := strings.Repeat("a", n)
		if !IsASCII(plain) || !IsASCII([]byte(plain)) {
			t.Errorf("%q", plain)
		}
		for i := range n {
			b := []byte(plain)
			if b[i] = 0x80; IsASCII(b) || IsASCII(string(b)) {
				t.Errorf("%q", b)
			}
		}
	}
	long := strings.Repeat("a", 1000)
	if n := testing.AllocsPerRun(10, func() { IsASCII(long) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
