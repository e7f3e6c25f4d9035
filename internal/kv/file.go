package kv

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// errDamaged is in the chain of errors about a file that cannot be read as one of
// ours.
var errDamaged = errors.New("damaged")

const (
	fileMode = fs.FileMode(0o600)
	// lockWait is how long the opening waits for another process that has the
	// file. The queue's lock makes that a mistake, not a turn to be waited for.
	lockWait = time.Second
	// stampSize is the length of an entry's expiry, which stands before its value:
	// Unix nanoseconds, big-endian; 0: never.
	stampSize = 8
)

// file is the opened database: a bbolt bucket for each Bucket, in which each key has
// a stamp and a value.
type file struct{ db *bbolt.DB }

// openFile opens the file, or makes it, and reads all of it once: damage must be known
// before plugins build on it. stored is the size of its entries, as Options.MaxBytes
// counts it.
func openFile(path string) (opened *file, stored int64, err error) {
	err = guardPanics(func() error {
		db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return err
		}
		opened = &file{db: db}
		if stored, err = opened.verifyFile(path); err != nil {
			_ = db.Close()
		}
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	return opened, stored, nil
}

// guardPanics runs what reads or writes the database. It turns a panic of the library
// over pages that make no sense, and a fault where the file is shorter than it
// says, into errDamaged.
func guardPanics(work func() error) (err error) {
	previous := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(previous)
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%w: %v", errDamaged, cause)
		}
	}()
	err = work()

	// These are the library's words for the same.
	for _, sign := range []error{bbolterrors.ErrInvalid, bbolterrors.ErrChecksum, bbolterrors.ErrVersionMismatch, bbolterrors.ErrInvalidMapping} {
		if errors.Is(err, sign) {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return err
}

// verifyFile reads the whole file.
func (f *file) verifyFile(path string) (stored int64, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	err = f.db.View(func(tx *bbolt.Tx) error {
		// The library maps the file into memory, where a missing end is a fault
		// and no error, and its own check runs in a goroutine that no guard
		// reaches: the length has to be right before that.
		if tx.Size() > info.Size() {
			return fmt.Errorf("%w: %d bytes, not %d", errDamaged, info.Size(), tx.Size())
		}
		for problem := range tx.Check() {
			if err == nil {
				err = fmt.Errorf("%w: %w", errDamaged, problem)
			}
		}
		if err != nil {
			return err
		}
		return tx.ForEach(func(name []byte, bucket *bbolt.Bucket) error {
			return bucket.ForEach(func(key, stamped []byte) error {
				found, err := decodeEntry(stamped)
				stored += found.size(string(key))
				return err
			})
		})
	})
	return stored, err
}

// decodeEntry reads what stands under a key. The value is a part of the database's
// memory, for as long as the transaction lasts.
func decodeEntry(stamped []byte) (entry, error) {
	if len(stamped) < stampSize {
		return entry{}, fmt.Errorf("%w: an entry of %d bytes", errDamaged, len(stamped))
	}
	found := entry{value: stamped[stampSize:]}
	if at := int64(binary.BigEndian.Uint64(stamped)); at != 0 {
		found.expires = time.Unix(0, at)
	}
	return found, nil
}

// encodeEntry is the opposite of decode.
func (e entry) encodeEntry() []byte {
	at := int64(0)
	if !e.expires.IsZero() {
		at = e.expires.UnixNano()
	}
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, stampSize+len(e.value)), uint64(at)), e.value...)
}

// lookup returns what stands under a key, a deleted entry if nothing does.
func (f *file) lookup(bucket, key string) (found entry, err error) {
	found.deleted = true
	err = guardPanics(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			in := tx.Bucket([]byte(bucket))
			if in == nil {
				return nil
			}
			stamped := in.Get([]byte(key))
			if stamped == nil {
				return nil
			}
			found, err = decodeEntry(stamped)
			found.value = bytes.Clone(found.value)
			return err
		})
	})
	return found, err
}

// collect returns what stands under the keys that begin with prefix.
func (f *file) collect(bucket, prefix string) (map[string]entry, error) {
	all := map[string]entry{}
	err := guardPanics(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			in := tx.Bucket([]byte(bucket))
			if in == nil {
				return nil
			}
			cursor := in.Cursor()
			for key, stamped := cursor.Seek([]byte(prefix)); bytes.HasPrefix(key, []byte(prefix)) && key != nil; key, stamped = cursor.Next() {
				found, err := decodeEntry(stamped)
				if err != nil {
					return err
				}
				found.value = bytes.Clone(found.value)
				all[string(key)] = found
			}
			return nil
		})
	})
	return all, err
}

// writeBatch makes all changes of a batch in one transaction and returns when it is on
// stable storage.
func (f *file) writeBatch(batch map[string]map[string]entry) error {
	return guardPanics(func() error {
		return f.db.Update(func(tx *bbolt.Tx) error {
			for name, changes := range batch {
				bucket, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				for key, changed := range changes {
					if changed.deleted {
						err = bucket.Delete([]byte(key))
					} else {
						err = bucket.Put([]byte(key), changed.encodeEntry())
					}
					if err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// position is where a sweep goes on: behind this key of this bucket.
type position struct{ bucket, key string }

// outdated is an entry of the file that has expired.
type outdated struct {
	bucket, key string
	length      int // of its value, in bytes
}

// findExpired looks at the next entries behind a position, limit at most, and returns
// those that have expired, and the position for the next call: the beginning again
// after the last entry.
func (f *file) findExpired(from position, limit int, now time.Time) (found []outdated, next position, err error) {
	err = guardPanics(func() error {
		return f.db.View(func(tx *bbolt.Tx) error {
			names := tx.Cursor()
			for name, _ := names.Seek([]byte(from.bucket)); name != nil; name, _ = names.Next() {
				// The first bucket goes on where the last call ended,
				// the others begin anew.
				cursor := tx.Bucket(name).Cursor()
				key, stamped := cursor.First()
				if string(name) == from.bucket && from.key != "" {
					key, stamped = cursor.Seek([]byte(from.key))
				}
				for ; key != nil; key, stamped = cursor.Next() {
					// The position stays on the entry that was not looked at any more.
					if limit--; limit < 0 {
						next = position{string(name), string(key)}
						return nil
					}
					one, err := decodeEntry(stamped)
					if err != nil {
						return err
					}
					if one.isGone(now) {
						found = append(found, outdated{string(name), string(key), len(one.value)})
					}
				}
			}
			return nil
		})
	})
	return found, next, err
}

func (f *file) closeFile() error { return guardPanics(f.db.Close) }
