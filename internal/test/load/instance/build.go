package instance

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Build returns the absolute path of the binary under test: what TARISHI_BIN
// names, or one that it builds in dir.
func Build(dir string) (string, error) {
	if bin := os.Getenv("TARISHI_BIN"); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("TARISHI_BIN: %w", err)
		}
		return filepath.Abs(bin)
	}
	bin := filepath.Join(dir, "tarishi")
	out, err := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "tarishi/cmd/tarishi").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return bin, nil
}
