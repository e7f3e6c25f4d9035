package kv

import (
	"context"
	"errors"
	"os"
	"time"

	"go.uber.org/zap"
)

// reopenAfter is how long a file that could not be opened is left alone.
const reopenAfter = 10 * time.Second

// sweepStep is how many entries of the file one tick looks at for expired ones: a
// few milliseconds of work.
const sweepStep = 10_000

// Run writes new entries to the disk, every Interval, and removes expired ones, until
// ctx ends. Close flushes later writes.
func (s *Store) Run(ctx context.Context) error {
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.sweepExpired()
		_ = s.Flush() // it logs its errors, and the next one tries again
	}
}

// Flush writes all that waits to the disk and returns when it is synced there.
func (s *Store) Flush() error {
	s.flushing.Lock()
	defer s.flushing.Unlock()
	s.mu.Lock()
	if len(s.pending) == 0 {
		s.mu.Unlock()
		return nil
	}
	f, err := s.openedFile() // again, if the file was lost
	if err != nil {
		s.mu.Unlock()
		return err
	}
	batch := s.pending
	s.writing, s.pending, s.unsaved = batch, map[string]map[string]entry{}, 0
	s.mu.Unlock()

	// Readers and writers go on meanwhile: they see the batch in writing.
	err = f.writeBatch(batch)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = nil
	if err == nil {
		if s.failing {
			s.failing = false
			s.options.Log.Info("plugin store can be written again", zap.String("file", s.options.Path))
		}
		return nil
	}

	// The batch is not lost with the disk, nor with a file that is damaged: it is
	// written with the next one.
	s.restoreBatch(batch)
	if errors.Is(err, errDamaged) {
		return s.abandonDamaged(err)
	}
	if !s.failing {
		s.failing = true
		s.options.Log.Error("plugin store cannot be written, the next flush tries again", zap.String("file", s.options.Path), zap.Error(err))
	}
	return err
}

// restoreBatch puts a batch that was not written back behind what has come since. The
// caller holds mu.
func (s *Store) restoreBatch(batch map[string]map[string]entry) {
	for bucket, keys := range batch {
		for key, kept := range keys {
			// A value that was written since is newer than the one in the batch.
			if _, newer := s.pending[bucket][key]; newer {
				continue
			}
			if s.pending[bucket] == nil {
				s.pending[bucket] = map[string]entry{}
			}
			s.pending[bucket][key] = kept
			s.unsaved += kept.size(key)
		}
	}
}

// sweepExpired deletes entries of the file that have expired, some with each call.
func (s *Store) sweepExpired() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil || s.closed {
		return
	}
	expired, next, err := s.file.findExpired(s.sweepPos, sweepStep, s.options.Now())
	if err != nil {
		_ = s.abandonDamaged(err) // it logs
		return
	}
	s.sweepPos = next
	for _, at := range expired {
		// A newer value waits for the disk: the one in the file is no matter.
		if _, newer := s.pending[at.bucket][at.key]; newer {
			continue
		}
		if _, newer := s.writing[at.bucket][at.key]; newer {
			continue
		}
		if err := s.replaceEntry(at.bucket, at.key, entry{value: make([]byte, at.length)}, entry{deleted: true}); err != nil {
			return // too much waits for the disk already
		}
	}
}

// openedFile returns the file, which it opens at the first call. The caller holds mu.
func (s *Store) openedFile() (*file, error) {
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.file != nil:
		return s.file, nil
	case s.openErr != nil && s.options.Now().Before(s.retry):
		return nil, s.openErr
	}

	// A damaged file makes way for an empty one, once.
	f, stored, err := openFile(s.options.Path)
	if errors.Is(err, errDamaged) {
		if err = s.setAside(err); err == nil {
			f, stored, err = openFile(s.options.Path)
		}
	}
	if err != nil {
		s.openErr, s.retry = err, s.options.Now().Add(reopenAfter)
		s.options.Log.Error("plugin store cannot be opened", zap.String("file", s.options.Path), zap.Error(err))
		return nil, err
	}
	s.file, s.stored, s.openErr, s.sweepPos = f, stored+s.unsaved, nil, position{}
	return f, nil
}

// abandonDamaged gives up a file that turned out to be damaged: the next call opens a new
// one, for which the writes that wait are kept. Other errors it only returns. The
// caller holds mu.
func (s *Store) abandonDamaged(err error) error {
	if !errors.Is(err, errDamaged) || s.file == nil {
		return err
	}
	s.file = nil // its pages cannot be trusted: it is not even closed
	if moved := s.setAside(err); moved != nil {
		return moved
	}
	return err
}

// setAside moves a damaged file out of the way.
func (s *Store) setAside(cause error) error {
	aside := s.options.Path + ".damaged-" + s.options.Now().UTC().Format("20060102T150405.000")
	err := os.Rename(s.options.Path, aside)
	if err != nil {
		s.options.Log.Error("plugin store is damaged and cannot be moved aside", zap.String("file", s.options.Path), zap.NamedError("cause", cause), zap.Error(err))
		return err
	}
	s.options.Log.Error("plugin store is damaged: it was moved aside and replaced by an empty one", zap.String("file", s.options.Path), zap.String("moved", aside), zap.Error(cause))
	return nil
}

// Close writes what waits and closes the file. Buckets then return ErrClosed. A
// Run must have ended.
func (s *Store) Close() error {
	err := s.Flush()

	// Buckets that are used after this do not open the file again.
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.file == nil {
		return err
	}
	f := s.file
	s.file = nil
	return errors.Join(err, f.closeFile())
}
