package main

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// takeTitle returns a function that changes what ps shows of this process, its
// title: the memory of the command line, and of the environment behind it, is
// written over, as it is done by setproctitle(3) of other systems. Linux knows the
// custom and reads on behind the command line if that does not end in a NUL. The
// function is for one goroutine at a time; a title that is too long is cut.
//
// It must be called before anything else has seen os.Args: their strings lie in
// that memory, and it replaces them by copies. The environment has been copied by the
// runtime.
func takeTitle() func(title string) {
	if len(os.Args) == 0 || os.Args[0] == "" {
		return nil
	}
	start := unsafe.StringData(os.Args[0])
	args := make([]string, len(os.Args))
	for i, a := range os.Args {
		args[i] = strings.Clone(a)
	}
	os.Args = args
	var area []byte
	find := sync.OnceFunc(func() { area = titleArea(start) })
	return func(title string) {
		if find(); len(area) > 0 {
			n := copy(area[:len(area)-1], title)
			clear(area[n:])
		}
	}
}

// titleArea returns the memory from start, where the first argument is, to the end
// of the environment; nil if the system does not say where that is, or says
// something else.
func titleArea(start *byte) []byte {
	stat, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil
	}
	// proc_pid_stat(5): field 2 is a name in brackets, which may hold anything;
	// arg_start, arg_end, env_start and env_end are fields 48 to 51.
	rest := string(stat[strings.LastIndexByte(string(stat), ')')+1:])
	fields := strings.Fields(rest)
	const first = 3
	if len(fields) <= 51-first {
		return nil
	}
	var at [4]uint64
	for i := range at {
		if at[i], err = strconv.ParseUint(fields[48-first+i], 10, 64); err != nil {
			return nil
		}
	}
	if at[0] != uint64(uintptr(unsafe.Pointer(start))) || at[1] != at[2] || at[3] <= at[0] {
		return nil
	}
	return unsafe.Slice(start, at[3]-at[0])
}
