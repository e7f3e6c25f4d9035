package vfs

import (
	"errors"
	"io/fs"
)

// ErrReadOnly is the error of whatever would change a ReadOnly file system.
var ErrReadOnly = errors.New("opened to read only")

// ReadOnly returns f without the means to change anything: to look at what a
// process left behind. A directory that does not exist lists as empty, and
// Mkdir, Lock and SyncDir do nothing.
func ReadOnly(f FS) FS { return readOnly{f} }

type readOnly struct{ FS }

func (readOnly) Create(name string) (File, error) {
	return nil, &fs.PathError{Op: "create", Path: name, Err: ErrReadOnly}
}

func (readOnly) Rename(from, _ string) error {
	return &fs.PathError{Op: "rename", Path: from, Err: ErrReadOnly}
}

func (readOnly) Remove(name string) error {
	return &fs.PathError{Op: "remove", Path: name, Err: ErrReadOnly}
}

func (readOnly) Mkdir(string) error   { return nil }
func (readOnly) SyncDir(string) error { return nil }

func (r readOnly) List(name string) ([]Entry, error) {
	list, err := r.FS.List(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return list, err
}

func (readOnly) Lock(string) (Lock, error) { return noLock{}, nil }

type noLock struct{}

func (noLock) Close() error { return nil }
func (noLock) Renew() error { return nil }
