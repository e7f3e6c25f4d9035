package server

import (
	"os"
	"path/filepath"
	"testing"
)

// TestPluginsRemember: what a plugin puts into its store is there after a restart, and
// a daemon whose plugins remember nothing has no file.
func TestPluginsRemember(t *testing.T) {
	cfg := instance(t, map[string]string{"me": "me.test\n", "plugins": "", "smtp.ini": "listen=127.0.0.1:0\n"})
	file := filepath.Join(cfg.QueueDir, "plugins.db")
	for run := range 3 {
		stop, s := launch(t, cfg)
		if _, err := os.Stat(file); (err == nil) != (run == 2) {
			t.Errorf("run %d begins with the file: %v", run, err)
		}
		bucket := s.memory.Bucket("greylist")
		if run == 1 {
			if err := bucket.Put("192.0.2.1", []byte("seen"), 0); err != nil {
				t.Error(err)
			}
		}
		if run == 2 {
			if got, ok, err := bucket.Get("192.0.2.1"); !ok || err != nil || string(got) != "seen" {
				t.Errorf("%q, %v, %v", got, ok, err)
			}
		}
		stop()
	}
}
