package e2e

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/test/load"
)

// letterWith is a message with one attachment.
func letterWith(name string, content []byte) string {
	lines := base64.StdEncoding.EncodeToString(content)
	var b strings.Builder
	b.WriteString("Subject: x\r\nContent-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=" + name + "\r\n\r\n")
	for len(lines) > 0 {
		n := min(76, len(lines))
		b.WriteString(lines[:n] + "\r\n")
		lines = lines[n:]
	}
	return b.String()
}

// TestAttachments: archives are looked into, also those that are too large for memory, and
// nothing is left of them.
func TestAttachments(t *testing.T) {
	t.Parallel()
	s := sink(t, load.SinkOptions{})
	dir := folder(t, with(relayTo(s.Port()), "plugins", "rcpt_to.in_host_list\nattachment\nqueue/smtp_forward\n", "attachment.ini", "disallowed_extensions=exe\n"))
	d := startIn(t, dir)

	// What cannot be compressed makes large archives.
	noise := make([]byte, 3<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(noise)
	zipped := func(name string) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, one := range []string{"noise.bin", name} {
			w, err := z.Create(one)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = w.Write(noise)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	var bomb bytes.Buffer
	g := gzip.NewWriter(&bomb)
	for range 101 {
		_, _ = g.Write(make([]byte, 1<<20))
	}
	_ = g.Close()
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"good.zip", zipped("good.txt"), "250 "},
		{"bad.zip", zipped("bad.exe"), "550 5.7.1 Message contains disallowed file extension (exe)"},
		{"one.tgz", bomb.Bytes(), "250 "}, // of a file that is no archive nothing more is read
		{"broken.zip", zipped("good.txt")[:1<<20], "450 4.7.1 Error unpacking archive"},
	} {
		if got, err := letter(d.Addr(), "to@sink.test", letterWith(test.name, test.content)); err != nil || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, %v", test.name, got, err)
		}
	}
	err := filepath.WalkDir(filepath.Join(dir, "queue"), func(path string, _ fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".tmp") {
			t.Errorf("%s is left", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
