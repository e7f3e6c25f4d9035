package load

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Usage is what a process and its descendants have used.
type Usage struct {
	CPU time.Duration // user and system, with children that have been waited for
	RSS int64         // bytes, summed: pages that processes share count in each
	PSS int64         // bytes, shared pages divided among the processes that share them; 0 where the kernel does not tell

	Peak int64 // bytes: the largest RSS that each has had, summed
}

// clockTick is the unit of CPU times in /proc: USER_HZ, which is 100 on every
// Linux that Go runs on.
const clockTick = time.Second / 100

// UsageOf reads /proc for the tree of processes below pid, pid included.
func UsageOf(pid int) (Usage, error) {
	parents, err := processTable()
	if err != nil {
		return Usage{}, err
	}
	if _, ok := parents[pid]; !ok {
		return Usage{}, fmt.Errorf("no process %d", pid)
	}
	var u Usage
	for p := range parents {
		for q := p; q > 0; q = parents[q].parent {
			if q == pid {
				u.CPU += parents[p].cpu
				rss, pss, peak := memoryOf(p)
				u.RSS += rss
				u.PSS += pss
				u.Peak += peak
				break
			}
		}
	}
	return u, nil
}

// OwnCPU is the processor time of this process so far.
func OwnCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type processStat struct {
	parent int
	cpu    time.Duration
}

func processTable() (map[int]processStat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	table := make(map[int]processStat)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The command stands in parentheses and may hold blanks: fields count from behind it.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) < 15 {
			continue
		}
		parent, _ := strconv.Atoi(f[1])
		var ticks int64
		for _, s := range f[11:15] { // utime stime cutime cstime
			n, _ := strconv.ParseInt(s, 10, 64)
			ticks += n
		}
		table[pid] = processStat{parent, time.Duration(ticks) * clockTick}
	}
	return table, nil
}

// memoryOf reads a process's resident set; zero when it has ended.
func memoryOf(pid int) (rss, pss, peak int64) {
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	rollup, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	return kilobytes(status, "VmRSS:"), kilobytes(rollup, "Pss:"), kilobytes(status, "VmHWM:")
}

func kilobytes(file []byte, key string) int64 {
	for line := range strings.Lines(string(file)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == key {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}
