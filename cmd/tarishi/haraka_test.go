package main

import (
	"strings"
	"testing"
)

func TestHarakaOptions(t *testing.T) {
	for in, want := range map[string]string{
		"--qlist -c DIR":                "qlist -c DIR",
		"-c DIR --qstat":                "qstat -c DIR",
		"--qunstick example.com -c DIR": "queue flush example.com -c DIR",
		"--qunstick -c DIR":             "queue flush -c DIR",
		"queue list -c DIR":             "queue list -c DIR",
		"":                              "--help",
		"help":                          "--help",
		"-v":                            "version",
		"-c DIR":                        "-c DIR",
	} {
		if got := strings.Join(harakaOptions(strings.Fields(in)), " "); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
