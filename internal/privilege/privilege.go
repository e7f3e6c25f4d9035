// Package privilege is the user that the daemon runs as: user and group of smtp.ini, the
// change to them, and whether the queue belongs to that user. The change is for the whole
// process and for good.
package privilege

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"go.uber.org/zap"
)

// Identity is a user and its groups. nil is the user that started the process.
type Identity struct {
	uid, gid int
	groups   []int  // supplementary ones
	name     string // for messages
}

// Find returns the identity of a user and a group, nil if neither is given. Without group
// it is the user's own; without user only the group changes. Names and numbers are
// accepted; a user that is in no database needs a group.
func Find(userName, group string) (*Identity, error) {
	if userName == "" && group == "" {
		return nil, nil
	}
	id := &Identity{uid: os.Geteuid(), gid: -1, name: userName}
	if userName != "" {
		if err := id.find(userName); err != nil {
			return nil, fmt.Errorf("config/smtp.ini: %w", err) // it begins with "user: "
		}
	}

	// A group that is named takes the place of the user's own.
	if group != "" {
		own := id.gid
		gid, err := groupID(group)
		if err != nil {
			return nil, fmt.Errorf("config/smtp.ini: %w", err) // it begins with "group: "
		}
		id.gid = gid
		id.groups = slices.DeleteFunc(id.groups, func(g int) bool { return g == own })
		id.groups = append(id.groups, gid)
	}

	// Guessing a group could give rights away.
	if id.gid < 0 {
		return nil, fmt.Errorf("config/smtp.ini: user: uid %d has no entry that names its group: set group too", id.uid)
	}
	if id.name == "" {
		id.name = nameOf(id.uid)
	}
	return id, nil
}

// UID is the number of the user that the daemon will run as.
func (id *Identity) UID() int {
	if id == nil {
		return os.Geteuid()
	}
	return id.uid
}

// Become changes the process to id, once all addresses are bound and all keys are read,
// and makes it the owner of a queue that is new. A process that stays root says so.
func (id *Identity) Become(queueDir string, log *zap.Logger) error {
	if id != nil {
		if err := id.prepareQueue(queueDir); err != nil {
			return err
		}
		if err := id.assume(); err != nil {
			return err
		}
		log.Info("running as another user", zap.String("user", id.name), zap.Int("uid", id.uid), zap.Int("gid", id.gid))
	}
	if os.Geteuid() == 0 {
		log.Warn("running as root: name a user in config/smtp.ini (user=) who owns the queue", zap.String("queue", queueDir))
	}
	return nil
}

// find fills in what the system knows of a user, given by name or number.
func (id *Identity) find(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		n, notNumber := strconv.ParseUint(name, 10, 31)
		if notNumber != nil {
			return err
		}
		id.uid = int(n)
		if u, err = user.LookupId(name); err != nil {
			return nil // as containers have them
		}
	}

	// Also the supplementary groups: keys are often readable by one of them.
	if id.uid, err = strconv.Atoi(u.Uid); err != nil {
		return err
	}
	if id.gid, err = strconv.Atoi(u.Gid); err != nil {
		return err
	}
	all, err := u.GroupIds()
	if err != nil {
		return err
	}
	for _, g := range all {
		n, err := strconv.Atoi(g)
		if err != nil {
			return err
		}
		id.groups = append(id.groups, n)
	}
	return nil
}

// groupID returns the number of a group, given by name or number.
func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		if n, notNumber := strconv.ParseUint(name, 10, 31); notNumber == nil {
			return int(n), nil
		}
		return 0, err
	}
	return strconv.Atoi(g.Gid)
}

// assumed reports whether the process runs as id already.
func (id *Identity) assumed() bool {
	return id.uid == os.Geteuid() && id.gid == os.Getegid() && id.uid != 0
}

// Possible fails if the process cannot change to id: only root can.
func (id *Identity) Possible() error {
	if id != nil && !id.assumed() && os.Geteuid() != 0 {
		return fmt.Errorf("config/smtp.ini: user and group: only root can change to %s (uid %d, gid %d), and this is started by %s",
			id.name, id.uid, id.gid, nameOf(os.Geteuid()))
	}
	return nil
}

// assume makes the whole process run as id, for good.
func (id *Identity) assume() error {
	if id.assumed() {
		return nil
	}
	// In this order, since only root can change anything. Each call is for all
	// threads.
	err := syscall.Setgroups(id.groups)
	if err == nil {
		err = syscall.Setgid(id.gid)
	}
	if err == nil {
		err = syscall.Setuid(id.uid)
	}
	if err != nil {
		return fmt.Errorf("config/smtp.ini: user and group: cannot change to %s (uid %d, gid %d): %w", id.name, id.uid, id.gid, err)
	}
	if id.uid != 0 && syscall.Setuid(0) == nil {
		return fmt.Errorf("config/smtp.ini: user: the system lets %s become root again", id.name)
	}
	return nil
}

// prepareQueue makes a queue folder that does not exist yet, as root, for the
// user that the process is about to become. An empty one of root's, as 'tarishi
// init' leaves it, is given to that user.
func (id *Identity) prepareQueue(dir string) error {
	if os.Geteuid() != 0 || id.uid == 0 {
		return nil
	}
	if info, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err != nil || !info.IsDir() || !ownedByRoot(info) {
			return nil // CheckOwner judges it, or opening the queue fails
		}
		if used, err := os.ReadDir(dir); err != nil || len(used) > 0 {
			return err
		}
		return os.Lchown(dir, id.uid, id.gid)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return os.Lchown(dir, id.uid, id.gid)
}

func ownedByRoot(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}

// CheckOwner fails if the queue in dir belongs to another user than uid. Root does not
// notice that, and the user's daemon could not read what root's has queued. The
// lock, which the daemon has made, says so. A queue that was never
// used belongs to the owner of its folder, or of the folder above: to root they
// are another user's, while other users may have been given a folder to write in.
func CheckOwner(dir string, uid int) error {
	at := filepath.Join(dir, "lock")
	info, err := os.Stat(at)
	for parent := dir; errors.Is(err, fs.ErrNotExist) && uid == 0; parent = filepath.Dir(parent) {
		at = parent
		if info, err = os.Stat(at); parent == filepath.Dir(parent) {
			break
		}
	}
	if err != nil {
		return nil // opening the queue reports it better
	}

	// Whether the user could read the queue by its mode is no matter: it would write
	// files that the owner cannot read.
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(stat.Uid) == uid {
		return nil
	}
	return &anothersQueue{dir: dir, at: at, owner: nameOf(int(stat.Uid)), user: nameOf(uid)}
}

// anothersQueue says that a queue belongs to another user than would use it.
type anothersQueue struct{ dir, at, owner, user string }

func (e *anothersQueue) Error() string {
	advice := "run it as " + e.owner
	if e.owner == "root" { // nobody is asked to be root
		advice = fmt.Sprintf("give it to %s with chown -R %[1]s %s", e.user, e.dir)
	}
	return fmt.Sprintf("the queue in %s belongs to %s (%s does), and this would run as %s: %s", e.dir, e.owner, e.at, e.user, advice)
}

// Advise adds to CheckOwner's error what else helps a daemon that does not start.
func Advise(err error) error {
	if e := (*anothersQueue)(nil); errors.As(err, &e) && e.owner != "root" {
		return fmt.Errorf("%w, or name that user in config/smtp.ini (user=%s), or give the queue away with chown -R %s %s", e, e.owner, e.user, e.dir)
	}
	return err
}

// nameOf returns the name of a user, or the number of one without.
func nameOf(uid int) string {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return "uid " + strconv.Itoa(uid)
	}
	return u.Username
}
