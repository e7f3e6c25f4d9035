package conf

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// look is a digest of the folder config/ as the file system describes it: names, sizes,
// times and inodes, no contents. As long as two of them are equal, nothing has been
// written in between that would be noticed, and nothing needs to be read.
type look [sha256.Size]byte

// maxDepth bounds how deep folders are followed.
const maxDepth = 8

// survey makes one look.
type survey struct {
	digest  hash.Hash
	folders []folder      // those that were seen, config/ first
	above   []fs.FileInfo // folders that are being visited
}

// folder is one of the folders that settings may be in.
type folder struct {
	path string
	info fs.FileInfo
}

// picture is what a Live has seen.
type picture struct {
	folder look
	named  look // of the files that a refused configuration names; zero: there is none
}

// lookAt surveys a folder.
func lookAt(dir string) (look, []folder) {
	s := survey{digest: sha256.New()}
	s.visit(dir, "", 0)
	return look(s.digest.Sum(nil)), s.folders
}

// lookAtFiles surveys some files. That one is not there is part of the look.
func lookAtFiles(paths []string) look {
	s := survey{digest: sha256.New()}
	for _, path := range paths {
		s.visit(path, path, maxDepth)
	}
	return look(s.digest.Sum(nil))
}

// visit adds a file, or a folder with all below it, under a name. Links are followed,
// since it counts what stands at their end.
func (s *survey) visit(path, name string, depth int) {
	io.WriteString(s.digest, name+"\x00")
	info, err := os.Stat(path)
	if err != nil {
		io.WriteString(s.digest, "?")
		return
	}

	// A file that is renamed over another one may have its size and time.
	about := [4]uint64{uint64(info.Size()), uint64(info.ModTime().UnixNano()), uint64(info.Mode())}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		about[3] = uint64(stat.Ino)
	}
	if info.IsDir() {
		about[0], about[1] = 0, 0 // editors' backups come and go in it
	}
	binary.Write(s.digest, binary.LittleEndian, about) // to a hash: it cannot fail
	if !info.IsDir() || depth >= maxDepth {
		return
	}

	// Hidden entries are no settings; a ConfigMap's dated folder is hidden too, and its
	// files are seen through links.
	if slices.ContainsFunc(s.above, func(one fs.FileInfo) bool { return os.SameFile(one, info) }) {
		return // a link to a folder above: several of them would be followed into each other
	}
	s.above = append(s.above, info)
	defer func() { s.above = s.above[:len(s.above)-1] }()
	s.folders = append(s.folders, folder{path, info})
	entries, err := os.ReadDir(path)
	if err != nil {
		io.WriteString(s.digest, "?")
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			s.visit(filepath.Join(path, e.Name()), filepath.Join(name, e.Name()), depth+1)
		}
	}
}

// namedFiles are the keys, certificates, roots and secrets that settings name.
func (c *Config) namedFiles() []string {
	all := slices.Concat(c.TLS.Files(), []string{
		c.TLS.Outbound.Key, c.TLS.Outbound.Cert, c.TLS.Outbound.CA, c.Forward.TLS.Key, c.Forward.TLS.Cert, c.Forward.TLS.CA,
	})
	all = append(all, c.secretFiles()...)
	return slices.DeleteFunc(all, func(path string) bool { return path == "" })
}
