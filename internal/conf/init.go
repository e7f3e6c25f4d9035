package conf

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"tarishi/internal/ini"
)

// Init makes the instance dir: the folders config, plugins and queue, the files
// of shipped (other than Go source) in config, and config/me with this host's
// name. Only its owner can read a file that may hold secrets, by what own, the
// settings of plugins, and all others declare. No file that exists is touched. wrote and kept are the files made and
// found, relative to dir, in order.
func Init(dir string, shipped fs.FS, own map[string]ini.Declarer) (wrote, kept []string, err error) {
	for _, folder := range []struct {
		name string
		mode fs.FileMode
	}{{"config", 0o755}, {"plugins", 0o755}, {"queue", 0o700}} {
		if err := os.MkdirAll(filepath.Join(dir, folder.name), folder.mode); err != nil {
			return nil, nil, err
		}
	}

	// Files are written one by one: what exists is the administrator's.
	secret := ini.SecretFiles((&Config{Own: own}).Tables())
	write := func(name string, data []byte) error {
		mode := fs.FileMode(0o644)
		if slices.Contains(secret, name) {
			mode = 0o600
		}
		err := create(filepath.Join(dir, "config", filepath.FromSlash(name)), data, mode)
		switch {
		case err == nil:
			wrote = append(wrote, path.Join("config", name))
		case errors.Is(err, fs.ErrExist):
			kept = append(kept, path.Join("config", name))
		default:
			return err
		}
		return nil
	}
	err = fs.WalkDir(shipped, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || strings.HasSuffix(name, ".go") {
			return err
		}
		data, err := fs.ReadFile(shipped, name)
		if err != nil {
			return err
		}
		return write(name, data)
	})
	if err == nil {
		err = write("me", []byte(hostname()+"\n"))
	}
	return wrote, kept, err
}

// create writes a new file, or leaves none behind.
func create(name string, data []byte, mode fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(name)
	}
	return err
}
