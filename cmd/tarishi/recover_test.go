package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// What stands in corrupt/ and can be read comes back, once; the daemon must not run.
func TestQueueRecover(t *testing.T) {
	dir := folder(t, nil)
	stop := fill(t, dir)
	expect(t, 1, ``, `tarishi: recover needs a queue that no daemon works on: spool .* is in use by another tarishi.*\n`, "queue", "recover", "-c", dir)
	stop()
	segment := filepath.Join(dir, "queue/journal/00000001.log")
	b, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(segment); err != nil {
		t.Fatal(err)
	}
	clear(b[:4096])
	for name, b := range map[string][]byte{fmt.Sprintf("00000001.log@0+%d", len(b)): b, "00000007.log@4096+100": make([]byte, 100)} {
		if err := os.WriteFile(filepath.Join(dir, "queue/corrupt", name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := first + `  from 00000001\.log@0\+\d+\n` + second + `  from 00000001\.log@0\+\d+\n`
	stays := `stays 00000007\.log@4096\+100: nothing in it can be read as a message\n`
	expect(t, 1, found+`would recover 2 messages, 0 were in the queue or done with, 1 file to stay in corrupt/\n`, stays, "queue", "recover", "-c", dir, "--dry-run")
	expect(t, 1, found+`recovered 2 messages, 0 were in the queue or done with, 1 file to stay in corrupt/\n`, stays, "queue", "recover", "-c", dir)
	expect(t, 1, `recovered 0 messages, 0 were in the queue or done with, 1 file to stay in corrupt/\n`, stays, "queue", "recover", "-c", dir)
	expect(t, 0, `(?s)ID .*`+first+`.*`+second+`.*2 messages, .*`, `tarishi: no daemon answers, this is from the files\n`, "queue", "list", "-c", dir)
}
