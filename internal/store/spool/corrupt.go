package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"tarishi/internal/mail"
	"tarishi/internal/vfs"
)

// Quarantine moves the files of a message that cannot be served to corrupt/.
func (s *Spool) Quarantine(id mail.ID, reason string) error {
	var errs []error
	for _, ext := range []string{extState, extContent, extNew} {
		err := s.setAside(s.fileName(id, ext), string(id)+ext, reason)
		if !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Keep moves a file that is none of a message's to corrupt/. Sync makes it durable.
func (s *Spool) Keep(name, reason string) error { return s.setAside(name, filepath.Base(name), reason) }

// Kept reports whether corrupt/ has something of this name.
func (s *Spool) Kept(base string) bool {
	_, err := s.fs.Size(filepath.Join(s.corruptDir(), base))
	return err == nil
}

// Quarantined returns the names of the files in corrupt/, sorted, without those
// that say why.
func (s *Spool) Quarantined() ([]string, error) {
	list, err := s.fs.List(s.corruptDir())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		if !e.Dir && !strings.HasSuffix(e.Name, extReason) {
			names = append(names, e.Name)
		}
	}
	return names, nil
}

// OpenQuarantined opens a file in corrupt/.
func (s *Spool) OpenQuarantined(base string) (vfs.File, error) {
	return s.openFile(filepath.Join(s.corruptDir(), base))
}

// recoveredDir is where what was brought back from corrupt/ goes, below that.
const recoveredDir = "recovered"

// Recovered moves a file, and what says why it was in corrupt/, to
// corrupt/recovered/: its messages are in the queue again. Sync makes it durable.
func (s *Spool) Recovered(base string) error {
	for _, name := range []string{base, base + extReason} {
		from, to := filepath.Join(s.corruptDir(), name), filepath.Join(s.corruptDir(), recoveredDir, name)
		err := s.moveFile(from, to)

		// The file with the reason may have been removed by an administrator.
		if errors.Is(err, fs.ErrNotExist) && name != base {
			continue
		}
		if err != nil {
			return err
		}
		s.markDirty(from)
		s.markDirty(to)
	}
	return nil
}

// setAside moves something to corrupt/ under a name like base.
func (s *Spool) setAside(from, base, reason string) error {
	to, err := s.freeName(base)
	if err == nil {
		err = s.moveFile(from, to)
	}
	if err != nil {
		return err
	}
	s.markDirty(from)
	s.markDirty(to)
	return s.writeReason(to, from, reason)
}

// Preserve copies what could not be read elsewhere to corrupt/ under a name, or
// one like it if other data has that. Data that is there already is not copied again.
// data may be nil.
func (s *Spool) Preserve(base, reason string, data io.ReadSeeker) error {
	name := filepath.Join(s.corruptDir(), base)
	for i := 1; ; i++ {
		f, err := s.fs.Open(name + extReason)
		if err != nil {
			break
		}
		f.Close()
		if kept, err := s.isPreserved(name, data); kept || err != nil {
			return err
		}
		name = filepath.Join(s.corruptDir(), fmt.Sprintf("%s.%d", base, i))
	}

	// The copy gets its name when it is whole and durable.
	if data != nil {
		// Unfinished files are removed from there.
		f, temp, err := s.createTemp(filepath.Join(s.messageDir(), base))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, data)
		if err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err == nil {
			err = s.moveFile(temp, name)
		}
		if err != nil {
			_ = s.fs.Remove(temp)
			return err
		}
	}

	// The reason comes last: it says that the copy is complete.
	if err := s.writeReason(name, filepath.Base(name), reason); err != nil {
		return err
	}
	return s.fs.SyncDir(s.corruptDir())
}

// isPreserved reports whether a file in corrupt/ is what data has. It leaves data at
// its beginning.
func (s *Spool) isPreserved(name string, data io.ReadSeeker) (bool, error) {
	if data == nil {
		return true, nil
	}
	var summer Summer
	if _, err := io.Copy(&summer, data); err != nil {
		return false, err
	}
	if _, err := data.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	sum, err := s.sumOfFile(name)
	return err == nil && sum == summer.Sum(), nil
}

// freeName returns a name in corrupt/ that is not taken.
func (s *Spool) freeName(base string) (string, error) {
	name := filepath.Join(s.corruptDir(), base)
	for i := 1; ; i++ {
		// Whatever has the name keeps it, be it a file or not.
		if _, err := s.fs.Size(name); errors.Is(err, fs.ErrNotExist) {
			return name, nil
		} else if err != nil && i > 1000 {
			return "", err
		}
		name = filepath.Join(s.corruptDir(), fmt.Sprintf("%s.%d", base, i))
	}
}

func (s *Spool) writeReason(name, from, reason string) error {
	f, err := s.createFile(name + extReason)

	// An earlier reason stays: it is the first one, and nearer to the cause.
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "time: %s\nfrom: %s\nreason: %s\n", time.Now().UTC().Format(time.RFC3339), from, reason)
	if err == nil {
		err = f.Sync()
	}
	s.markDirty(name)
	return errors.Join(err, f.Close())
}
