package instance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Program is the binary under test of one package of tests, whose TestMain calls
// Run. The zero Program is ready.
type Program struct {
	dir  string
	once sync.Once
	path string
	err  error
}

// Run runs the tests and removes what was built for them. It returns their exit code.
func (p *Program) Run(tests interface{ Run() int }) int {
	var err error
	if p.dir, err = os.MkdirTemp("", "tarishi-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(p.dir)
	return tests.Run()
}

// Path returns the absolute path of the binary: what TARISHI_BIN names, or one that is
// built when it is first asked for.
func (p *Program) Path() (string, error) {
	p.once.Do(func() { p.path, p.err = p.find() })
	return p.path, p.err
}

func (p *Program) find() (string, error) {
	if bin := os.Getenv("TARISHI_BIN"); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("TARISHI_BIN: %w", err)
		}
		return filepath.Abs(bin)
	}
	bin := filepath.Join(p.dir, "tarishi")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", bin, "tarishi/cmd/tarishi").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}
