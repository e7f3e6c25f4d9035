package attempt

import (
	"slices"

	"tarishi/internal/delivery"
	"tarishi/internal/reply"
)

// byHost puts recipients with replies of the same host together, in order of
// appearance.
func (a *Attempt) byHost(recipients []int) [][]int {
	if len(a.res.By) == 0 {
		return [][]int{recipients}
	}
	var all [][]int
	place := map[*delivery.Via]int{}
	for _, i := range recipients {
		via := a.res.By[i]
		at, ok := place[via]
		if !ok {
			at = len(all)
			place[via] = at
			all = append(all, nil)
		}
		all[at] = append(all[at], i)
	}
	return all
}

// turnTo makes a.res tell of the host that replied about a recipient.
func (a *Attempt) turnTo(i int) {
	if i < len(a.res.By) && a.res.By[i] != nil {
		a.res.Via = *a.res.By[i]
	}
}

// groups puts recipients with the same reply together, in order of appearance.
func groups(recipients []int, replies []*reply.Reply) [][]int {
	var all [][]int
	place := map[string]int{}
	at := 0
	for n, i := range recipients {
		if n == 0 || replies[i] != replies[recipients[n-1]] { // most share one
			key, ok := replies[i].String(), false
			if at, ok = place[key]; !ok {
				at = len(all)
				place[key] = at
				all = append(all, nil)
			}
		}
		all[at] = append(all[at], i)
	}
	return all
}

// without returns all but some.
func without(all, some []int) []int {
	return slices.DeleteFunc(slices.Clone(all), func(i int) bool { return slices.Contains(some, i) })
}
