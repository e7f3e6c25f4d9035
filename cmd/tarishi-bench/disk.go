package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mount is the file system that a folder is on.
type mount struct {
	point, kind, source string
	options             []string // of the mount and of the file system
}

func (m mount) hasOption(option string) bool { return slices.Contains(m.options, option) }

func (m mount) String() string {
	discard := "without discard"
	if m.hasOption("discard") {
		discard = "with discard"
	}
	return fmt.Sprintf("%s (%s, %s)", m.source, m.kind, discard)
}

// unknown stands for a mount that the kernel does not show, as in a chroot.
var unknown = mount{kind: "kind unknown", source: "a disk that cannot be told"}

// mountOf finds the mount of a folder, or unknown.
func mountOf(dir string) (mount, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return mount{}, err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return mount{}, err
	}
	m, ok := findMount(string(table), dir)
	if !ok {
		return unknown, nil
	}
	return m, nil
}

// findMount looks for the longest mount point above path; a later line covers
// an earlier one.
func findMount(table, path string) (found mount, ok bool) {
	for line := range strings.Lines(table) {
		// id parent device root POINT OPTIONS [tags] - KIND SOURCE OPTIONS
		left, right, cut := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !cut || len(l) < 6 || len(r) < 3 {
			continue
		}
		point := unescape.Replace(l[4])
		under := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if under && len(point) >= len(found.point) {
			found = mount{point, r[0], r[1], append(strings.Split(l[5], ","), strings.Split(r[2], ",")...)}
			ok = true
		}
	}
	return found, ok
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
