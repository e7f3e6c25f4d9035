package archive

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"tarishi/internal/mail"
)

// item is a file of an archive that a test makes.
type item struct{ name, content string }

// must fails a test.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeZip(t testing.TB, items ...item) string {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, one := range items {
		w, err := z.Create(one.name)
		must(t, err)
		_, err = io.WriteString(w, one.content)
		must(t, err)
	}
	must(t, z.Close())
	return b.String()
}

// encrypt says in the directory of a zip archive that its entries are encrypted.
func encrypt(archive string) string {
	parts := strings.SplitAfter(archive, "PK\x01\x02")
	for i := 1; i < len(parts); i++ {
		b := []byte(parts[i])
		b[4] |= zipEncrypted
		parts[i] = string(b)
	}
	return strings.Join(parts, "")
}

func makeTar(t testing.TB, items ...item) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, one := range items {
		h := &tar.Header{Name: one.name, Size: int64(len(one.content)), Mode: 0o600}
		if strings.HasSuffix(one.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		must(t, w.WriteHeader(h))
		_, err := io.WriteString(w, one.content)
		must(t, err)
	}
	must(t, w.Close())
	return b.String()
}

// squeeze compresses a text with a writer.
func squeeze(t testing.TB, content string, open func(io.Writer) (io.WriteCloser, error)) string {
	t.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	must(t, err)
	_, err = io.WriteString(w, content)
	must(t, err)
	must(t, w.Close())
	return b.String()
}

func makeGzip(t testing.TB, name, content string) string {
	t.Helper()
	return squeeze(t, content, func(w io.Writer) (io.WriteCloser, error) {
		z := gzip.NewWriter(w)
		z.Name = name
		return z, nil
	})
}

func makeXZ(t testing.TB, content string) string {
	t.Helper()
	return squeeze(t, content, func(w io.Writer) (io.WriteCloser, error) {
		return xz.WriterConfig{DictCap: 1 << 16, BlockSize: 4000}.NewWriter(w)
	})
}

func makeZstd(t testing.TB, content string) string {
	t.Helper()
	return squeeze(t, content, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) })
}

// makeRar makes an archive of version 5 without compression.
func makeRar(items ...item) string {
	number := func(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }
	block := func(header []byte, content string) string {
		whole := append(number(nil, len(header)), header...)
		return string(binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(whole))) + string(whole) + content
	}
	archive := "Rar!\x1a\x07\x01\x00" + block([]byte{1, 0, 0}, "")
	for _, one := range items {
		h := number([]byte{2, 2}, len(one.content))
		h = number(append(h, 0), len(one.content)) // nothing is known but the size
		h = number(append(h, 0, 0, 1), len(one.name))
		archive += block(append(h, one.name...), one.content)
	}
	return archive + block([]byte{5, 0, 0}, "")
}

// makeSevenZip makes an archive with all files in one folder. pack is how it is packed: a
// method with its properties, as a coder is written.
func makeSevenZip(pack func(string) (packed, coder string), packHeader bool, items ...item) string {
	var names, sizes []byte
	var all string
	for i, one := range items {
		for _, unit := range utf16.Encode([]rune(one.name + "\x00")) {
			names = binary.LittleEndian.AppendUint16(names, unit)
		}
		if all += one.content; i < len(items)-1 {
			sizes = append(sizes, sevenNumber(len(one.content))...)
		}
	}
	packed, coder := pack(all)
	streams := func(at int, packed, coder string, unpacked int) string {
		return string([]byte{propPack}) + string(sevenNumber(at)) + "\x01\x09" + string(sevenNumber(len(packed))) + "\x00" +
			"\x07\x0b\x01\x00\x01" + coder + "\x0c" + string(sevenNumber(unpacked)) + "\x00"
	}
	header := "\x01\x04" + streams(0, packed, coder, len(all)) + "\x08\x0d" + string(sevenNumber(len(items))) + "\x09" + string(sizes) + "\x00\x00" +
		"\x05" + string(sevenNumber(len(items))) + "\x11" + string(sevenNumber(len(names)+1)) + "\x00" + string(names) + "\x00\x00"
	if packHeader {
		small, coder := packLZMA(header)
		header = "\x17" + streams(len(packed), small, coder, len(header)) + "\x00"
		packed += small
	}

	// Checksums are of no interest here.
	start := sevenZipSignature + "\x00\x04" + strings.Repeat("\x00", 4)
	start += string(binary.LittleEndian.AppendUint64(nil, uint64(len(packed)))) + string(binary.LittleEndian.AppendUint64(nil, uint64(len(header))))
	return start + strings.Repeat("\x00", 4) + packed + header
}

// sevenNumber writes a number below 1<<14, or in five bytes.
func sevenNumber(n int) []byte {
	if n < 1<<14 {
		return []byte{0x80 | byte(n>>8), byte(n)}
	}
	return binary.LittleEndian.AppendUint32([]byte{0xf0}, uint32(n))
}

func packCopy(s string) (string, string) { return s, "\x01\x00" }

func packEncrypted(s string) (string, string) { return s, "\x04" + methodAES }

func packLZMA(s string) (string, string) {
	var b bytes.Buffer
	w, _ := lzma.WriterConfig{EOSMarker: true}.NewWriter(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String()[13:], "\x23" + methodLZMA + "\x05" + b.String()[:5]
}

func packLZMA2(s string) (string, string) {
	var b bytes.Buffer
	w, _ := lzma.Writer2Config{DictCap: 1 << 20}.NewWriter2(&b)
	_, _ = io.WriteString(w, s)
	_ = w.Close()
	return b.String(), "\x21" + methodLZMA2 + "\x01\x10"
}

// memory is a Body that fails beyond a size.
type memory struct {
	text []byte
	most int // 0: none
	open *int
}

var errFull = errors.New("the disk is full")

func (m *memory) Write(p []byte) (int, error) {
	if m.most > 0 && len(m.text)+len(p) > m.most {
		return 0, errFull
	}
	m.text = append(m.text, p...)
	return len(p), nil
}

func (m *memory) Content() (mail.Content, error) { return mail.Memory{m.text}, nil }

func (m *memory) Discard() { *m.open-- }
