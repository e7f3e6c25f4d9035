package conf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"io"
	"io/fs"
	"maps"
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

// contents is the digest of what a Config was made from.
type contents [sha256.Size]byte

// recorder is a folder that remembers the contents of the files that were read in it.
type recorder struct {
	fs.FS
	read map[string]content // by name
}

// content is what a file held; zero: it could not be read.
type content struct {
	sum    [sha256.Size]byte
	blank  bool // nothing stands in it
	silent bool // nothing but comments
}

func newRecorder(files fs.FS) *recorder {
	return &recorder{files, map[string]content{}}
}

// inspect returns what is remembered of a file.
func inspect(data []byte) content {
	c := content{sum: sha256.Sum256(data), blank: len(bytes.TrimSpace(data)) == 0, silent: true}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' && line[0] != ';' {
			c.silent = false
			break
		}
	}
	return c
}

// ReadFile implements fs.ReadFileFS.
func (r *recorder) ReadFile(name string) ([]byte, error) {
	data, err := fs.ReadFile(r.FS, name)
	r.read[name] = content{}
	if err == nil {
		r.read[name] = inspect(data)
	}
	return data, err
}

// Stat implements fs.StatFS: nothing is opened, for a pipe would wait for its other end.
func (r *recorder) Stat(name string) (fs.FileInfo, error) { return fs.Stat(r.FS, name) }

// Lstat implements fs.ReadLinkFS.
func (r *recorder) Lstat(name string) (fs.FileInfo, error) { return fs.Lstat(r.FS, name) }

// ReadLink implements fs.ReadLinkFS.
func (r *recorder) ReadLink(name string) (string, error) { return fs.ReadLink(r.FS, name) }

// sum returns the digest of all that c was made from: the files, and the names of those
// that count by being there.
func (r *recorder) sum(c *Config) contents {
	digest := sha256.New()

	// In a certain order: the map has none.
	for _, name := range slices.Sorted(maps.Keys(r.read)) {
		one := r.read[name]
		io.WriteString(digest, name+"\x00")
		digest.Write(one.sum[:])
	}

	// A pair with the default names in config/ counts without a word in tls.ini.
	for _, path := range c.namedFiles() {
		io.WriteString(digest, path+"\x00")
	}
	return contents(digest.Sum(nil))
}

// vanished returns the files, sorted, that were read for before and are not there for c.
func (c *Config) vanished(before *Config) (names []string) {
	for name, was := range before.read {
		now, wanted := c.read[name]
		if wanted && now == (content{}) && was != now {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// emptied returns the files, sorted, that said something to before and are empty for c,
// without a comment even. A program that fails, or a full disk, leaves such files behind.
func (c *Config) emptied(before *Config) (names []string) {
	for name, was := range before.read {
		if c.read[name].blank && was != (content{}) && !was.silent {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// removed returns the files, sorted, that were read for before because they were there, such
// as keys, and are gone: nothing looks for them any more.
func (c *Config) removed(before *Config) (names []string) {
	for name, was := range before.read {
		if _, wanted := c.read[name]; wanted || was == (content{}) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(c.ConfigDir, filepath.FromSlash(name))); errors.Is(err, fs.ErrNotExist) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// namedFiles are the keys, certificates, roots and secrets that settings name.
func (c *Config) namedFiles() []string {
	all := slices.Concat(c.TLS.Files(), []string{
		c.TLS.Outbound.Key, c.TLS.Outbound.Cert, c.TLS.Outbound.CA, c.Forward.TLS.Key, c.Forward.TLS.Cert, c.Forward.TLS.CA,
	})
	all = append(all, c.secretFiles()...)
	return slices.DeleteFunc(all, func(path string) bool { return path == "" })
}
