// Package namespace gives programs a network in which every address is a local one, so
// that clients have addresses of the world although nothing leaves the machine. It needs
// Linux, root or user namespaces, and the program ip.
//
// A program starts another one, or itself, with a command that went through Isolate; in it
// Prepare comes before all else.
package namespace

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Isolate makes cmd run with a network and mounts of its own. It ends with the thread that
// has started it.
func Isolate(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		return
	}
	// Other users may do that where they are root.
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
}

// Run runs a command of exec.CommandContext in such a network. When its context ends it gets
// SIGTERM, and time to end what it has started.
func Run(cmd *exec.Cmd) error {
	runtime.LockOSThread() // the command would end with the thread that has started it
	defer runtime.UnlockOSThread()
	Isolate(cmd)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd.Run()
}

// Try reports why there can be no such network.
func Try() error {
	if _, err := exec.LookPath("ip"); err != nil {
		return err
	}
	trial := exec.Command("ip", "link", "set", "lo", "up")
	Isolate(trial)
	if out, err := trial.CombinedOutput(); err != nil {
		return fmt.Errorf("no network namespaces, as root or with user namespaces: %w %s", err, out)
	}
	return nil
}

// NonlocalBind is where the system can be asked to let clients have addresses of IPv6
// that no interface has. Haraka takes those that one has for its own.
const NonlocalBind = "/proc/sys/net/ipv6/ip_nonlocal_bind"

// Prepare makes every address of IPv4, and with both those of IPv6, one of this host, and
// nameserver, an address, the system's DNS. The folder dir keeps a file for that.
func Prepare(dir, nameserver string, both bool) error {
	lines := []string{"link set lo up", "route add local 0.0.0.0/0 dev lo"}
	if both {
		lines = append(lines, "-6 route add local ::/0 dev lo")
		if err := os.WriteFile(NonlocalBind, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	for _, line := range lines {
		if out, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w: %s", line, err, out)
		}
	}
	file := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver "+nameserver+"\noptions timeout:2 attempts:1\n"), 0o644); err != nil {
		return err
	}

	// The mounts of this namespace must not reach the one it was made from.
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	real, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		return err
	}
	if err := syscall.Mount(file, real, "", syscall.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", real, err)
	}
	return nil
}
