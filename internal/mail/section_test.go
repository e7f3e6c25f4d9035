package mail

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// short is a content that has less than it says.
type short struct{ Memory }

func (s short) Size() int64 { return s.Memory.Size() + 1 }

func TestReadHeader(t *testing.T) {
	const limit = 1 << 20
	long := "X-Long: " + strings.Repeat("x", 50_000) + "\r\n"
	huge := strings.Repeat(long, limit/len(long)+1)
	edge := "A: " + strings.Repeat("x", firstRead-7) + "\r\n" // one read ends in the CR of the empty line
	half := "A: " + strings.Repeat("x", firstRead-8) + "\r\n" // or in a name
	for _, c := range []struct {
		name, content, want string
		complete, cut       bool
	}{
		{"empty", "", "", false, false},
		{"only header", "A: b\r\n", "A: b\r\n", false, false},
		{"no body", "A: b\r\n\r\n", "A: b\r\n\r\n", true, false},
		{"no header", "Hello\r\n", "", false, false},
		{"no empty line", "A: b\r\nHello\r\n", "A: b\r\n", false, false},
		{"no empty line, long body", "A: b\r\nHello\r\n" + huge, "A: b\r\n", false, false},
		{"long", long + "A: b\r\n\r\n" + huge, long + "A: b\r\n\r\n", true, false},
		{"huge", huge + "\r\nbody", huge[:limit], false, true},
		{"read in the end", edge + "A\r\n\r\nbody", edge, false, false},
		{"read in the empty line", edge + "\r\nbody", edge + "\r\n", true, false},
		{"read in a name", half + "Subject: x\r\n\r\nbody", half + "Subject: x\r\n\r\n", true, false},
	} {
		s, err := ReadHeader(Memory{[]byte(c.content)}, limit)
		if string(s.Bytes) != c.want || s.Complete != c.complete || s.Cut != c.cut || err != nil {
			t.Errorf("%s: %d bytes, %v, %v, %v; want %d", c.name, len(s.Bytes), s.Complete, s.Cut, err, len(c.want))
		}
		if !c.cut && string(s.Header.Bytes()) != strings.TrimSuffix(c.want, "\r\n\r\n")+"\r\n\r\n" && s.Complete {
			t.Errorf("%s: %q", c.name, s.Header.Bytes())
		}
	}
	for _, content := range []string{"A: b\r\n", ""} {
		if _, err := ReadHeader(short{Memory{[]byte(content)}}, limit); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%q: %v", content, err)
		}
	}
}
