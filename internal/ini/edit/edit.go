// Package edit measures how far a misspelt name is from a known one.
package edit

// Distance returns the optimal string alignment distance of a and b: how many bytes have
// to be changed, added, dropped or swapped with their neighbour to make one of the
// other, with no part changed twice. Its time is the product of the lengths.
func Distance(a, b string) int {
	// Three rows of the table suffice: a swap looks back two.
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitute := last[j-1]
			if a[i-1] != b[j-1] {
				substitute++
			}
			row[j] = min(last[j]+1, row[j-1]+1, substitute)

			// The neighbours' swap is the most common slip of fingers, and costs one step instead
			// of two.
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
