package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
)

// binaryHeader is a header of version 2 with the length of its block.
func binaryHeader(command, family byte, block ...[]byte) string {
	all := bytes.Join(block, nil)
	return signature + string([]byte{command, family}) + string(binary.BigEndian.AppendUint16(nil, uint16(len(all)))) + string(all)
}

var (
	block4 = []byte{192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x34, 0, 25}
	block6 = bytes.Join([][]byte{
		netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("::ffff:198.51.100.2").AsSlice(), {0xff, 0xff, 0x02, 0x4b},
	}, nil)
)

func TestRead(t *testing.T) {
	long6 := "PROXY TCP6 " + strings.Repeat("ffff:", 7) + "fffe " + strings.Repeat("ffff:", 7) + "ffff 65535 65535\r\n"
	for _, c := range []struct {
		in           string
		version      int
		source, dest string // "": none is named
	}{
		{"PROXY TCP4 192.0.2.1 198.51.100.2 4660 25\r\n", 1, "192.0.2.1:4660", "198.51.100.2:25"},
		{"PROXY TCP4 1.1.1.1 2.2.2.2 0 1\r\n", 1, "1.1.1.1:0", "2.2.2.2:1"},
		{"PROXY TCP4 255.255.255.254 255.255.255.255 65535 65535\r\n", 1, "255.255.255.254:65535", "255.255.255.255:65535"},
		{"PROXY TCP6 :: ::1 1 2\r\n", 1, "[::]:1", "[::1]:2"},
		{"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.9 1 2\r\n", 1, "[2001:db8::1]:1", "192.0.2.9:2"},
		{long6, 1, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
		{"PROXY UNKNOWN\r\n", 1, "", ""},
		{"PROXY UNKNOWN " + strings.Repeat("x", 91) + "\r\n", 1, "", ""},
		{binaryHeader(0x21, 0x11, block4), 2, "192.0.2.1:4660", "198.51.100.2:25"},
		{binaryHeader(0x21, 0x11, block4, []byte("\x03\x00\x04abcd\x04\x00\x01x")), 2, "192.0.2.1:4660", "198.51.100.2:25"},
		{binaryHeader(0x21, 0x11, block4, bytes.Repeat([]byte{1}, 65000)), 2, "192.0.2.1:4660", "198.51.100.2:25"},
		{binaryHeader(0x21, 0x21, block6), 2, "[2001:db8::1]:65535", "198.51.100.2:587"},
		{binaryHeader(0x21, 0x31, bytes.Repeat([]byte{'/'}, 216)), 2, "", ""},
		{binaryHeader(0x21, 0x00), 2, "", ""},
		{binaryHeader(0x20, 0x00), 2, "", ""},
		{binaryHeader(0x20, 0x11, block4), 2, "", ""},
		{binaryHeader(0x20, 0x77, []byte("ignored")), 2, "", ""},
	} {
		want := Header{Version: c.version}
		if c.source != "" {
			want.Source, want.Destination = netip.MustParseAddrPort(c.source), netip.MustParseAddrPort(c.dest)
		}
		for _, cut := range []func(io.Reader) io.Reader{
			func(r io.Reader) io.Reader { return r }, iotest.OneByteReader, iotest.HalfReader, iotest.DataErrReader,
		} {
			r := strings.NewReader(c.in + "EHLO x\r\n")
			got, err := Read(cut(r))
			rest, _ := io.ReadAll(r)
			if got != want || err != nil || string(rest) != "EHLO x\r\n" && string(rest) != "" {
				t.Errorf("%q: %+v, %v, left is %q", c.in, got, err, rest)
			}
		}
	}
}

func TestReadMalformed(t *testing.T) {
	for _, in := range []string{
		"QUIT\r\n", "EHLO client.test\r\n", "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "\x16\x03\x01\x02\x00\x01\x00\x01", "\r\nEHLO x\r\n",
		"PROXY\r\nEHLO x\r\n", "PROXY \r\nEHLO xy\r\n", "PROXY UNKNOWN\nEHLO\r\n", "PROXY UNKNOWNS\r\n ", "PROXY TCP4\r\n        ",
		"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n ", "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n ", "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
		"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
		"PROXY TCP4 1.1.1.01 2.2.2.2 1 2\r\n", "PROXY TCP4 1.1.1 2.2.2.22 1 25\r\n", "PROXY TCP4 ::1 2.2.2.2 1 2\r\n        ",
		"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", "PROXY TCP4 a b c d\r\nEHLO client.test\r\n",
		"PROXY UNKNOWN " + strings.Repeat("x", 92) + "\r\n", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n",
		binaryHeader(0x11, 0x11, block4), binaryHeader(0x22, 0x11, block4), binaryHeader(0x31, 0x11, block4),
		binaryHeader(0x21, 0x12, block4), binaryHeader(0x21, 0x13, block4), binaryHeader(0x21, 0x41, block4), binaryHeader(0x21, 0x11, block4[:11]),
		binaryHeader(0x21, 0x21, block6[:35]), binaryHeader(0x21, 0x21, block4), binaryHeader(0x21, 0x11),
	} {
		if got, err := Read(strings.NewReader(in)); err != ErrFormat || got != (Header{}) {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

// A header that ends early is the reader's error.
func TestReadShort(t *testing.T) {
	gone := errors.New("gone")
	for _, in := range []string{"PROXY TCP4 192.0.2.1 198.51.100.2 4660 25\r\n", "PROXY UNKNOWN\r\n", binaryHeader(0x21, 0x11, block4, []byte("more"))} {
		for n := range len(in) {
			if _, err := Read(strings.NewReader(in[:n])); !errors.Is(err, io.ErrUnexpectedEOF) && !(err == io.EOF && n > 0) {
				t.Errorf("%q: %v", in[:n], err)
			}
			if _, err := Read(io.MultiReader(strings.NewReader(in[:n]), iotest.ErrReader(gone))); err != gone {
				t.Errorf("%q: %v", in[:n], err)
			}
		}
	}
}

func TestConn(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	raw, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	h := Header{1, netip.MustParseAddrPort("192.0.2.1:5"), netip.MustParseAddrPort("[2001:db8::1]:25")}
	c := NewConn(raw.(*net.TCPConn), h)
	proxy, own := c.Socket()
	if c.RemoteAddr().String() != "192.0.2.1:5" || c.LocalAddr().String() != "[2001:db8::1]:25" || proxy.String() != peer.LocalAddr().String() || own.String() != ln.Addr().String() {
		t.Errorf("%v %v %v %v", c.RemoteAddr(), c.LocalAddr(), proxy, own)
	}
	c = NewConn(raw.(*net.TCPConn), Header{Version: 2})
	if c.RemoteAddr().String() != peer.LocalAddr().String() || c.LocalAddr().String() != ln.Addr().String() {
		t.Errorf("%v %v", c.RemoteAddr(), c.LocalAddr())
	}
}

// FuzzRead: the result does not depend on how the bytes arrive, nothing behind the header
// is taken, and a header of version 1 is what its addresses say.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"PROXY TCP4 192.0.2.1 198.51.100.2 4660 25\r\nEHLO x\r\n", "PROXY TCP6 2001:db8::1 ::1 1 2\r\n", "PROXY UNKNOWN x\r\n\x16\x03",
		binaryHeader(0x21, 0x11, block4, []byte("tlv")) + "QUIT", binaryHeader(0x21, 0x21, block6), binaryHeader(0x20, 0), "PROXY \r\n", signature,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bytes.NewReader(in)
		h, err := Read(whole)
		pieces := bytes.NewReader(in)
		again, err2 := Read(iotest.OneByteReader(pieces))
		if h != again || (err == nil) != (err2 == nil) {
			t.Fatalf("%q: %+v %v, in pieces %+v %v", in, h, err, again, err2)
		}
		if err != nil {
			return
		}
		if whole.Len() != pieces.Len() {
			t.Fatalf("%q: %d bytes are left, in pieces %d", in, whole.Len(), pieces.Len())
		}
		used := in[:len(in)-whole.Len()]
		if h.Version == 1 && (len(used) > maxLine || used[len(used)-1] != '\n') || h.Source.IsValid() != h.Destination.IsValid() {
			t.Fatalf("%q: %+v, used %q", in, h, used)
		}
	})
}
