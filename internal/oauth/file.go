package oauth

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.uber.org/zap"

	"tarishi/internal/vfs"
)

// readSecret returns what stands in a file, without the blanks around it. Errors name the file.
func readSecret(path string) (string, error) {
	// A pipe would be waited for, and a device may never end.
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAnswer))
	secret := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", err
	case !isVisible(secret):
		return "", fmt.Errorf("%s holds no line of text that can be a secret", path)
	}
	return secret, nil
}

// refreshToken is the refresh token of a grant. The server may replace it at each request.
type refreshToken struct {
	path   string // of the file that it stands in; "": it is in the settings
	token  string // the one that was given last
	stored string // what stood in the file when it was last read or written
	warned bool   // that it is kept in memory only
}

// current returns the token; "": there is none. A file that somebody has changed counts more than
// what a server has given.
func (r *refreshToken) current() (string, error) {
	if r.path == "" {
		return r.token, nil
	}
	written, err := readSecret(r.path)
	switch {
	case err != nil && r.token != "": // it was there before
		return r.token, nil
	case err != nil:
		return "", err
	case written != r.stored:
		r.token, r.stored = written, written
	}
	return r.token, nil
}

var errNoFile = errors.New("it stands in the settings: auth_refresh_token_file is a place where it can be kept")

// replace keeps a token in the place of the one before.
func (r *refreshToken) replace(token string, log *zap.Logger) {
	r.token = token
	err := errNoFile
	if r.path != "" {
		err = replaceFile(r.path, token+"\n")
	}
	if err == nil {
		r.stored = token
	}

	// What is in memory serves until the daemon ends. Somebody has to know that before.
	if err != nil && !r.warned {
		log.Error("the server replaces the refresh token, and the new one is lost when the daemon ends", zap.Error(err))
	}
	r.warned = err != nil
}

// replaceFile writes a file of mode 0600 so that it is there as a whole or as it was, also after a
// crash. A link stays one.
func replaceFile(path, text string) error {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	w, err := os.CreateTemp(filepath.Dir(path), ".tarishi-*") // of mode 0600
	if err != nil {
		return err
	}
	_, err = w.WriteString(text)
	if err == nil {
		err = w.Sync()
	}
	if e := w.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(w.Name(), path)
	}
	if err != nil {
		os.Remove(w.Name())
		return err
	}
	return vfs.OS{}.SyncDir(filepath.Dir(path))
}
