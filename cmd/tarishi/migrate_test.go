package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tarishi/internal/command"
)

func TestQueueImportExport(t *testing.T) {
	instance, old, out := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "out")
	const name = "1795317931989_1795319732012_1_10654_3mu5hh_2_vm"
	sample, err := os.ReadFile(filepath.Join("../../internal/qfile/testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	for file, b := range map[string][]byte{name: sample, "1_1_0_1_aaaaaa_1_h": nil, "notes.txt": nil} {
		if err := os.WriteFile(filepath.Join(old, file), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(instance, "config"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args        []string
		exit        int
		out, stderr string
	}{
		{[]string{"import", "-c", instance, old, "--dry-run"}, exitFailure, "would import 1 file, skipped 1, failed 1", "failed 1_1_0_1_aaaaaa_1_h: "},
		{[]string{"export", "-c", instance, "--haraka", out}, exitFailure, "", "queue"}, // there is none
		{[]string{"import", "-c", instance, old, "--hold"}, exitFailure, "imported and held 1 file, skipped 1, failed 1", "skipped notes.txt: "},
		{[]string{"import", "-c", instance, old, "--dry-run"}, exitFailure, "would import 0 files, skipped 1, failed 1", ""},
		{[]string{"import", "-c", instance, filepath.Join(old, "nowhere")}, exitFailure, "", "no such file"},
		{[]string{"export", "-c", instance, "--haraka", out}, exitOK, "wrote 1 file to " + out + ", skipped 0, failed 0; the queue is unchanged", ""},
		{[]string{"export", "-c", instance, "--haraka", out}, exitFailure, "", "would deliver twice"},
		{[]string{"export", "-c", instance}, exitUsage, "", "--haraka"},
		{[]string{"import", "-c", instance}, exitUsage, "", "<dir>"},
	} {
		var stdout, stderr bytes.Buffer
		exit := run(append([]string{"queue"}, tc.args...), command.Streams{Out: &stdout, Err: &stderr})
		if exit != tc.exit || !strings.Contains(stdout.String(), tc.out) || !strings.Contains(stderr.String(), tc.stderr) {
			t.Errorf("%q: exit %d\n%s\n%s", tc.args, exit, stdout.String(), stderr.String())
		}
	}
}
