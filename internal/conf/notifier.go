package conf

import (
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/zap"
)

// notifier passes the file system's notifications on. Without one, on a file system or in
// a container that has none, its channels stay silent.
type notifier struct {
	w       *fsnotify.Watcher // nil: there is none
	dir     string            // config/
	watched map[string]os.FileInfo
	events  <-chan fsnotify.Event
	errors  <-chan error
	log     *zap.Logger
}

// newNotifier watches config/ and the folder above, in which config/ may be replaced.
func (l *Live) newNotifier() *notifier {
	n := &notifier{dir: l.o.Config.ConfigDir, watched: map[string]os.FileInfo{}, log: l.o.Log}
	if l.o.PollOnly {
		return n
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		n.log.Warn("changes are noticed a little later: the system does not notify of them", zap.Error(err))
		return n
	}
	n.w, n.events, n.errors = w, w.Events, w.Errors
	return n
}

// concerns reports whether an event is about settings.
func (n *notifier) concerns(e fsnotify.Event) bool {
	return filepath.Dir(e.Name) != filepath.Dir(n.dir) || e.Name == n.dir
}

// follow watches these folders and no others. One that was replaced by another with the
// same name is watched anew.
func (n *notifier) follow(folders []folder) {
	if n.w == nil {
		return
	}
	// The folder above sees config/ being replaced.
	above := filepath.Dir(n.dir)
	now := map[string]os.FileInfo{}
	if info, err := os.Stat(above); err == nil {
		now[above] = info
	}
	for _, f := range folders {
		now[f.path] = f.info
	}

	// The system forgets a folder that is removed, and then Remove fails.
	for path, info := range n.watched {
		if is, ok := now[path]; !ok || !os.SameFile(info, is) {
			_ = n.w.Remove(path)
			delete(n.watched, path)
		}
	}
	for path, info := range now {
		if n.watched[path] != nil {
			continue
		}
		if err := n.w.Add(path); err != nil {
			n.log.Debug("a folder is looked at without notification", zap.String("folder", path), zap.Error(err))
			continue
		}
		n.watched[path] = info
	}
}

// close ends the notifications.
func (n *notifier) close() {
	if n.w != nil {
		n.w.Close()
	}
}
