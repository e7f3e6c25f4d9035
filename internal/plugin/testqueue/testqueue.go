// Package testqueue is the plugin queue/test: it writes each message that comes
// in for our domains to a file in the temporary folder and accepts it. See
// README.md.
//
// A reload makes a new instance, which holds nothing.
package testqueue

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"go.uber.org/zap"

	"tarishi/internal/hook"
	"tarishi/internal/mail"
	"tarishi/internal/plugin"
	"tarishi/internal/reply"
)

// Name is the plugin's name in config/plugins.
const Name = "queue/test"

// New is the plugin's factory.
func New(env plugin.Env) (plugin.Plugin, error) {
	env.Log.Warn("for trying out only: accepted messages for our domains become files and are delivered to nobody", zap.String("folder", os.TempDir()))
	return &writer{env.Log}, nil
}

// writer is the plugin.
type writer struct{ log *zap.Logger }

// Register implements plugin.Plugin.
func (w *writer) Register(h plugin.Host) {
	h.Timeout(0)
	h.On(hook.OnQueue, "queue", 0, w.queue)
}

func (w *writer) queue(_ context.Context, e *hook.Event) hook.Verdict {
	path, err := write(os.TempDir(), e.Tx.ID(), e.Tx.Final())
	if err != nil {
		r := reply.New(451, "4.3.0", "Message not written, please try again later").Because(err)
		w.log.Error("message not written", zap.String("uuid", string(e.Tx.ID())), zap.Error(err))
		return hook.Verdict{Code: hook.DenySoft, Reply: r}
	}
	w.log.Info("message written", zap.String("uuid", string(e.Tx.ID())), zap.String("file", path))
	return hook.Answer(hook.OK, "Queued to "+path)
}

// write makes dir/mail_ID.eml, which exists only when it is whole.
func write(dir string, id mail.ID, content mail.Content) (path string, err error) {
	if !id.Valid() {
		return "", fmt.Errorf("id %q is no file name", id)
	}

	// Opened first, so that a message that cannot be read leaves no file.
	src, err := content.Open()
	if err != nil {
		return "", err
	}
	defer src.Close()
	// A name that nobody looks for, until the message is whole.
	f, err := os.CreateTemp(dir, ".mail_*")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	if _, err = io.Copy(f, src); err != nil {
		f.Close()
		return "", err
	}

	// A full disk may show only now.
	if err = f.Close(); err != nil {
		return "", err
	}
	path = filepath.Join(dir, "mail_"+string(id)+".eml")
	return path, os.Rename(f.Name(), path)
}
