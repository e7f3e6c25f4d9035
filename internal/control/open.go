package control

import (
	"context"
	"errors"
	"io"

	"go.uber.org/zap"

	"tarishi/internal/maillog"
	"tarishi/internal/store/disk"
)

// Open returns Commands on the queue in dir: those of the daemon that runs
// there, or else of its files, which are only read. What cannot be read in them
// is told to stderr.
func Open(ctx context.Context, dir string, stderr io.Writer) (Commands, error) {
	c, err := Dial(ctx, dir)
	if err == nil {
		return c, nil
	}
	if !errors.Is(err, ErrStopped) {
		return nil, err
	}
	q, err := disk.OpenReadOnly(disk.Options{Dir: dir, Log: zap.New(maillog.NewCore("", false, zap.ErrorLevel, stderr))})
	if err != nil {
		return nil, err
	}
	l := NewLocal(q, nil, nil)
	l.close = q.Close
	return l, nil
}
