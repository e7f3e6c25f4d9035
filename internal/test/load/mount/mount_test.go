package mount

import (
	"strings"
	"testing"
)

func TestFindMount(t *testing.T) {
	const table = `27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard,resuid=65534
28 27 0:30 / /data rw,noatime shared:5 - xfs /dev/vdb rw,attr2
29 28 0:31 / /data/with\040blank rw - tmpfs none rw,size=1k
nonsense
30 27 0:32 / /da rw - btrfs /dev/vdc rw
`
	for path, want := range map[string]string{
		"/":                "/dev/vda (ext4, with discard)",
		"/tmp/x":           "/dev/vda (ext4, with discard)",
		"/data":            "/dev/vdb (xfs, without discard)",
		"/data/x":          "/dev/vdb (xfs, without discard)",
		"/database":        "/dev/vda (ext4, with discard)",
		"/data/with blank": "none (tmpfs, without discard)",
	} {
		if m, ok := Find(table, path); !ok || m.String() != want {
			t.Errorf("%s: %s, %v, want %s", path, m, ok, want)
		}
	}
	if _, ok := Find("", "/x"); ok {
		t.Error("a mount was found in nothing")
	}
	// A chroot may be on a disk that the kernel does not show.
	if m, err := Of(t.TempDir()); err != nil || m.Kind == "" {
		t.Errorf("%+v, %v", m, err)
	}
	if Unknown.HasOption("discard") || !strings.Contains(Unknown.String(), "unknown") {
		t.Errorf("unknown is %s", Unknown)
	}
}
