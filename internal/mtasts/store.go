package mtasts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.uber.org/zap"
)

const (
	suffix    = ".json"
	temporary = ".new-" // prefix of files that are being written
	version   = 1
	maxFile   = 1 << 20
)

// file is what DOMAIN.json holds.
type file struct {
	Version int       `json:"version"` // 1
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Mode    Mode      `json:"mode"`
	MX      []string  `json:"mx"`
	MaxAge  int64     `json:"max_age"` // seconds
}

// policyFile returns the file of a domain, "" for one too long for a file name or if
// nothing is kept on disk.
func (c *Cache) policyFile(domain string) string {
	if c.options.Dir == "" || len(domain)+len(suffix) > 255 {
		return ""
	}
	return filepath.Join(c.options.Dir, domain+suffix)
}

// loadEntry returns the entry of a domain from disk, an empty one if there is none.
func (c *Cache) loadEntry(domain string) *entry {
	path := c.policyFile(domain)
	if path == "" {
		return &entry{}
	}
	e, err := readEntry(path, domain, c.options.Now())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.options.Log.Warn("stored MTA-STS policy cannot be used", zap.String("file", path), zap.Error(err))
		}
		return &entry{}
	}
	return e
}

// readEntry reads the file of a domain; with domain "", of whichever it is.
func readEntry(path, domain string, now time.Time) (*entry, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxFile))
	if err != nil {
		return nil, err
	}

	// The file may be damaged, or come from a later version. It is used only if all of it makes
	// sense; otherwise the policy is fetched again.
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, err
	}
	switch {
	case f.Version != version:
		return nil, fmt.Errorf("version %d is not %d", f.Version, version)
	case domain != "" && f.Domain != domain:
		return nil, fmt.Errorf("it is about %q", f.Domain)
	case !f.Mode.isKnown() || f.MaxAge < 0 || f.MaxAge > int64(maxAge/time.Second) || len(f.MX) == 0 && f.Mode != None:
		return nil, errors.New("not a policy")
	case f.Fetched.After(now):
		return nil, fmt.Errorf("fetched in the future, %s", f.Fetched)
	}
	return &entry{
		policy: &Policy{Mode: f.Mode, MX: f.MX, MaxAge: time.Duration(f.MaxAge) * time.Second}, id: f.ID, fetched: f.Fetched,
	}, nil
}

// storeEntry writes the file of a domain. A failure is logged and nothing more: the
// policy counts until a restart.
func (c *Cache) storeEntry(domain string, e *entry) {
	path := c.policyFile(domain)
	if path == "" {
		return
	}
	b, err := json.MarshalIndent(file{
		Version: version, Domain: domain, ID: e.id, Fetched: e.fetched.UTC().Round(0), Mode: e.policy.Mode, MX: e.policy.MX,
		MaxAge: int64(e.policy.MaxAge / time.Second),
	}, "", "  ")
	if err == nil {
		err = replaceFile(path, append(b, '\n'))
	}
	if err != nil {
		c.options.Log.Warn("MTA-STS policy cannot be stored", zap.String("file", path), zap.Error(err))
	}
}

// replaceFile writes a file so that it is there as a whole or as it was. It is not
// synced: what a crash takes away can be fetched again.
func replaceFile(path string, b []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}

	// Each writer gets a fresh temporary name, so two of them may store one domain at once.
	w, err := os.CreateTemp(dir, temporary+"*")
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	if e := w.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(w.Name(), path)
	}
	if err != nil {
		os.Remove(w.Name())
	}
	return err
}

// removeExpired removes files that have expired, and those that were never finished.
func (c *Cache) removeExpired(now time.Time) {
	names, err := os.ReadDir(c.options.Dir)
	if err != nil {
		return
	}
	for _, d := range names {
		path := filepath.Join(c.options.Dir, d.Name())
		switch {
		case strings.HasPrefix(d.Name(), temporary):
			if info, err := d.Info(); err == nil && now.Sub(info.ModTime()) > time.Hour {
				os.Remove(path)
			}
		case strings.HasSuffix(d.Name(), suffix):
			if e, err := readEntry(path, "", now); err == nil && !e.isValid(now) {
				os.Remove(path)
			}
		}
	}
}
