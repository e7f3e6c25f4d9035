package delivery

import "tarishi/internal/reply"

// GroupByHost puts recipients with replies of the same host together, in order of
// appearance.
func (res *Result) GroupByHost(recipients []int) [][]int {
	if res.others == nil { // nearly always: all are from one place
		return [][]int{recipients}
	}
	var all [][]int
	place := map[*Via]int{}
	for _, i := range recipients {
		via := res.From(i)
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

// TurnTo makes Via the one of the host that replied about a recipient.
func (res *Result) TurnTo(i int) {
	if via := res.From(i); via != nil {
		res.Via = *via
	}
}

// GroupByReply puts recipients with the same reply together, in order of appearance.
func GroupByReply(recipients []int, replies []*reply.Reply) [][]int {
	if len(recipients) == 0 {
		return nil
	}
	same := true
	for _, i := range recipients {
		same = same && replies[i] == replies[recipients[0]]
	}
	if same { // nearly always
		return [][]int{recipients}
	}
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
