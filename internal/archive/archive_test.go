package archive

import (
	"context"
	"errors"
	"io"
	"path"
	"slices"
	"strings"
	"testing"
)

// isArchive is what the plugin attachment has without settings of a site, and two more.
func isArchive(name string) bool {
	return strings.Contains(".zip.tar.tgz.taz.z.gz.rar.7z.xz.bz2.zst", strings.ToLower(path.Ext(name))) && path.Ext(name) != ""
}

// limits are generous.
var limits = Limits{Depth: 5, Entries: 100, Bytes: 1 << 20}

// walker returns a Walker, and how many bodies are open.
func walker(l Limits) (*Walker, *int) {
	open := new(int)
	return NewWalker(Options{Limits: l, IsArchive: isArchive, NewBody: func() (Body, error) {
		*open++
		return &memory{open: open}, nil
	}}), open
}

// walk looks into one archive.
func walk(t *testing.T, l Limits, name, content string) (*Walker, error) {
	t.Helper()
	w, open := walker(l)
	err := w.Walk(t.Context(), name, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil })
	if *open != 0 {
		t.Errorf("%s: %d bodies are left", name, *open)
	}
	return w, err
}

// bzipped is a tar archive with an empty a.exe in it, made by bzip2.
const bzipped = "BZh91AY&SY&\xaf\x86\x87\x00\x00l\xfb\x80\xc8\x80\x00\x10@\x01G\x00\x00\x08b\x00\x1e@\x00\x08 \x00T4\x9ah4\x00\xf5\x04R#M\x1e\xa3 }\x8b\xd0P\x8a\xa2$\xe6v.Z\xc8$\x04\x19\x9a\x8d`LQ\x16\x8e4\xca\xca3\xd3\xcb\x92K\xa2 \x1f\x17rE8P\x90&\xaf\x86\x87"

func TestNames(t *testing.T) {
	inner := item{"d/in.zip", makeZip(t, item{"c.exe", "x"})}
	three := []item{{"a.txt", "text"}, {"d/", ""}, inner, {"b\u00e9.exe", strings.Repeat("y", 20000)}}
	const all = "A/a.txt A/d/ A/d/in.zip A/bé.exe A/d/in.zip/c.exe"
	files := []item{three[0], inner, three[3]} // folders of 7z and rar are marked otherwise
	const some = "A/a.txt A/d/in.zip A/bé.exe A/d/in.zip/c.exe"
	for _, test := range []struct{ name, archive, want string }{
		{"zip", makeZip(t, three...), all},
		{"tar", makeTar(t, three...), all},
		{"tar.gz", makeGzip(t, "", makeTar(t, three...)), all},
		{"tar.xz", makeXZ(t, makeTar(t, three...)), all},
		{"two xz streams", makeXZ(t, makeTar(t, three...)[:1000]) + strings.Repeat("\x00", 8) + makeXZ(t, makeTar(t, three...)[1000:]), all},
		{"tar.bz2", bzipped, "A/a.exe"},
		{"tar.zst", makeZstd(t, makeTar(t, three...)), all},
		{"rar", makeRar(files...), some},
		{"7z copy", makeSevenZip(packCopy, false, files...), some},
		{"7z LZMA", makeSevenZip(packLZMA, true, files...), some},
		{"7z LZMA2", makeSevenZip(packLZMA2, true, files...), some},
		{"zip behind a program", "MZ" + strings.Repeat("program", 1000) + makeZip(t, three...), all},
		{"one file", makeGzip(t, "", "x"), "A/A"},
		{"one file with a name", makeGzip(t, "evil.exe", "x"), "A/evil.exe"},
		{"one archive without a name", makeGzip(t, "", makeZip(t, item{"c.exe", "x"})), "A/A A/A/c.exe"},
		{"nothing", makeGzip(t, "", ""), ""},
		{"empty zip", makeZip(t), ""},
		{"empty tar", makeGzip(t, "", makeTar(t)), "A/A"},
	} {
		w, err := walk(t, limits, "A", test.archive)
		if got := strings.Join(w.Names, " "); err != nil || got != test.want || w.Encrypted || len(w.Opaque) > 0 {
			t.Errorf("%s: %q, %v, %+v", test.name, got, err, w.Opaque)
		}
	}
}

func TestEncrypted(t *testing.T) {
	for name, archive := range map[string]string{
		"zip":             encrypt(makeZip(t, item{"a.txt", "x"}, item{"in.zip", "y"})),
		"7z":              makeSevenZip(packEncrypted, false, item{"a.txt", "x"}, item{"in.zip", "y"}),
		"zip in a tar.gz": makeGzip(t, "", makeTar(t, item{"in.zip", encrypt(makeZip(t, item{"a.txt", "x"}))})),
	} {
		if w, err := walk(t, limits, name, archive); err != nil || !w.Encrypted || len(w.Names) != 2 {
			t.Errorf("%s: %+v, %v", name, w.Names, err)
		}
	}
}

func TestOpaque(t *testing.T) {
	for _, content := range []string{"", "no archive", strings.Repeat("long text ", 1000), "\x1f\x9d\x90 compress", strings.Repeat("\x00", 5000)} {
		if w, err := walk(t, limits, "a.zip", content); err != nil || !slices.Equal(w.Opaque, []string{"a.zip"}) {
			t.Errorf("%.10q: %v, %v", content, w.Opaque, err)
		}
	}
	w, err := walk(t, limits, "a.zip", makeZip(t, item{"b.rar", "none"}, item{"c.exe", ""}))
	if err != nil || !slices.Equal(w.Opaque, []string{"a.zip/b.rar"}) || len(w.Names) != 2 {
		t.Errorf("%v, %v", w.Opaque, err)
	}
}

// TestTwoFormats: a file that is a zip archive for programs that go by its name, and a tar
// archive by its beginning, is the former.
func TestTwoFormats(t *testing.T) {
	both := makeTar(t, item{"harmless.txt", "x"}) + makeZip(t, item{"evil.exe", "y"})
	if w, err := walk(t, limits, "a.zip", both); err != nil || !slices.Equal(w.Names, []string{"a.zip/evil.exe"}) {
		t.Errorf("%v, %v", w.Names, err)
	}
	if w, err := walk(t, limits, "a.tar", both); err != nil || !slices.Equal(w.Names, []string{"a.tar/harmless.txt"}) {
		t.Errorf("%v, %v", w.Names, err)
	}
	if w, err := walk(t, limits, "a.zip", makeTar(t, item{"a.exe", "x"})); err != nil || !slices.Equal(w.Names, []string{"a.zip/a.exe"}) {
		t.Errorf("%v, %v", w.Names, err)
	}
}

// matryoshka is n archives in each other.
func matryoshka(t *testing.T, n int) string {
	t.Helper()
	archive := makeZip(t, item{"core.txt", ""})
	for range n - 1 {
		archive = makeZip(t, item{"in.zip", archive})
	}
	return archive
}

func TestLimits(t *testing.T) {
	many := make([]item, 101)
	for i := range many {
		many[i].name = strings.Repeat("n", i+1)
	}
	zeros := strings.Repeat("\x00", 2<<20)
	// The directory is longer than its end says.
	liar := []byte(makeZip(t, slices.Repeat([]item{{strings.Repeat("long", 1000), ""}}, 300)...))
	end := strings.LastIndex(string(liar), "PK\x05\x06")
	liar[end+8], liar[end+9], liar[end+10], liar[end+11] = 1, 0, 1, 0
	for _, test := range []struct {
		name, archive string
		limits        Limits
		want          error
	}{
		{"deep enough", matryoshka(t, 5), limits, nil},
		{"too deep", matryoshka(t, 6), limits, ErrDepth},
		{"one alone", matryoshka(t, 1), Limits{1, 100, 100}, nil},
		{"one in another", matryoshka(t, 2), Limits{1, 100, 1000}, ErrDepth},
		{"entries of a zip", makeZip(t, many...), limits, ErrEntries},
		{"entries of a tar", makeTar(t, many...), limits, ErrEntries},
		{"entries of a rar", makeRar(many...), limits, ErrEntries},
		{"entries of a 7z", makeSevenZip(packCopy, false, many...), limits, ErrEntries},
		{"entries in all", makeZip(t, item{"1.tar", makeTar(t, many[:60]...)}, item{"2.tar", makeTar(t, many[:60]...)}), limits, ErrEntries},
		{"a directory that lies", string(liar), limits, ErrEntries},
		{"bytes of a zip", makeZip(t, item{"in.zip", zeros}), limits, ErrBytes},
		{"bytes of a zip that are not unpacked", makeZip(t, item{"in.txt", zeros}), limits, nil},
		{"bytes of a gzip", makeGzip(t, "", makeTar(t, item{"in.txt", zeros})), limits, ErrBytes},
		{"bytes of an xz", makeXZ(t, makeTar(t, item{"in.txt", zeros})), limits, ErrBytes},
		{"bytes of a zstd", makeZstd(t, makeTar(t, item{"in.txt", zeros})), limits, ErrBytes},
		{"bytes of a tar", makeTar(t, item{"in.zip", zeros}), limits, ErrBytes},
		{"bytes of a rar", makeRar(item{"in.zip", zeros}), limits, ErrBytes},
		{"bytes of a 7z", makeSevenZip(packLZMA2, true, item{"in.zip", zeros}), limits, ErrBytes},
		{"bytes before a file of a 7z", makeSevenZip(packLZMA, true, item{"a.txt", zeros}, item{"in.zip", "x"}), limits, ErrBytes},
	} {
		if w, err := walk(t, test.limits, "A", test.archive); !errors.Is(err, test.want) || err != nil && errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v with %d names", test.name, err, len(w.Names))
		}
	}
}

func TestDamaged(t *testing.T) {
	big := []byte(makeXZ(t, "x"))
	big[15] = 40 // the dictionary of the first block: 4 GiB
	for name, archive := range map[string]string{
		"zip without a directory": makeZip(t, item{"a.txt", "x"})[:40],
		"tar cut short":           makeTar(t, item{"a.txt", strings.Repeat("x", 5000)})[:2000],
		"gzip cut short":          makeGzip(t, "", makeTar(t, item{"a.txt", "x"}))[:60],
		"xz cut short":            makeXZ(t, makeTar(t, item{"a.txt", "x"}))[:80],
		"7z cut short":            makeSevenZip(packCopy, false, item{"a.txt", "x"})[:50],
		"xz with too much memory": string(big),
		"bzip2":                   "BZh9 is none",
	} {
		if w, err := walk(t, limits, name, archive); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %v", name, err, w.Names)
		}
	}
}

// TestFailures: what is not the archive's fault is no damage.
func TestFailures(t *testing.T) {
	archive := makeZip(t, item{"in.zip", makeZip(t, item{"a.txt", strings.Repeat("x", 100)})})
	for _, one := range []string{archive, makeTar(t, item{"in.zip", archive})} {
		open := 0
		w := NewWalker(Options{Limits: limits, IsArchive: isArchive, NewBody: func() (Body, error) {
			open++
			return &memory{most: 10, open: &open}, nil
		}})
		err := w.Walk(t.Context(), "a", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(one)), nil })
		if !errors.Is(err, errFull) || errors.Is(err, ErrDamaged) || open != 0 {
			t.Errorf("%v, %d bodies left", err, open)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w, _ := walker(limits)
	for _, one := range []string{archive, makeTar(t, item{"a.txt", "x"}), "nothing"} {
		err := w.Walk(ctx, "a.zip", func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(one)), nil })
		if !errors.Is(err, context.Canceled) || errors.Is(err, ErrDamaged) {
			t.Errorf("%v", err)
		}
	}
}

// FuzzWalk: whatever comes, no limit is passed by much and nothing is left behind.
func FuzzWalk(f *testing.F) {
	items := []item{{"a.txt", "text"}, {"in.zip", makeZip(f, item{"c.exe", "x"})}}
	for _, archive := range []string{
		makeZip(f, items...), makeTar(f, items...), makeGzip(f, "", makeTar(f, items...)), makeXZ(f, makeTar(f, items...)), makeZstd(f, makeTar(f, items...)), makeRar(items...),
		makeSevenZip(packCopy, false, items...), makeSevenZip(packLZMA, true, items...), makeSevenZip(packLZMA2, false, items...), makeSevenZip(packEncrypted, true, items...),
		encrypt(makeZip(f, items...)), bzipped, "MZ" + makeZip(f, items...),
	} {
		f.Add("a.zip", []byte(archive))
	}
	f.Fuzz(func(t *testing.T, name string, archive []byte) {
		small := Limits{Depth: 3, Entries: 20, Bytes: 1 << 16}
		written, open := 0, 0
		w := NewWalker(Options{Limits: small, IsArchive: isArchive, NewBody: func() (Body, error) {
			open++
			return &tallied{memory{open: &open}, &written}, nil
		}})
		err := w.Walk(t.Context(), name, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(archive))), nil })
		if open != 0 || len(w.Names) > small.Entries || written > 2*len(archive)+2<<16 || w.bytes > 2<<16 {
			t.Errorf("%d bodies open, %d names, %d bytes written, %d unpacked: %v", open, len(w.Names), written, w.bytes, err)
		}
	})
}

// tallied counts what all bodies together have taken.
type tallied struct {
	memory
	written *int
}

func (b *tallied) Write(p []byte) (int, error) {
	*b.written += len(p)
	return b.memory.Write(p)
}
