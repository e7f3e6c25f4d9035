// Package mount finds the file system that a folder is on, as figures about durable
// writes mean little without it.
package mount

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Mount is the file system that a folder is on.
type Mount struct {
	Point, Kind, Source string
	Options             []string // of the mount and of the file system
}

func (m Mount) HasOption(option string) bool { return slices.Contains(m.Options, option) }

func (m Mount) String() string {
	discard := "without discard"
	if m.HasOption("discard") {
		discard = "with discard"
	}
	return fmt.Sprintf("%s (%s, %s)", m.Source, m.Kind, discard)
}

// Unknown stands for a mount that the kernel does not show, as in a chroot.
var Unknown = Mount{Kind: "kind unknown", Source: "a disk that cannot be told"}

// Of finds the mount of a folder, or Unknown.
func Of(dir string) (Mount, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return Mount{}, err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return Mount{}, err
	}
	m, ok := Find(string(table), dir)
	if !ok {
		return Unknown, nil
	}
	return m, nil
}

// Find looks for the longest mount point above path; a later line covers
// an earlier one.
func Find(table, path string) (found Mount, ok bool) {
	for line := range strings.Lines(table) {
		// id parent device root POINT OPTIONS [tags] - KIND SOURCE OPTIONS
		left, right, cut := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !cut || len(l) < 6 || len(r) < 3 {
			continue
		}
		point := unescape.Replace(l[4])
		under := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if under && len(point) >= len(found.Point) {
			found = Mount{point, r[0], r[1], append(strings.Split(l[5], ","), strings.Split(r[2], ",")...)}
			ok = true
		}
	}
	return found, ok
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
