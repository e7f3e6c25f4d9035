package delivery

import "tarishi/internal/reply"

// GroupByHost puts recipients with replies of the same host together, in order of
// appearance.
func (r *Result) GroupByHost(recipients []int) [][]int {
	if len(r.By) == 0 {
		return [][]int{recipients}
	}
	var all [][]int
	place := map[*Via]int{}
	for _, i := range recipients {
		via := r.By[i]
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
func (r *Result) TurnTo(i int) {
	if i < len(r.By) && r.By[i] != nil {
		r.Via = *r.By[i]
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

// OnlyTLS reports whether all replies are about TLS that cannot be had.
func OnlyTLS(replies []*reply.Reply) bool {
	for _, r := range replies {
		switch r.Status() {
		case reply.Enhanced{4, 7, 5}, reply.Enhanced{4, 7, 10}, reply.Enhanced{4, 7, 30}, reply.Enhanced{5, 7, 30}:
		default:
			return false
		}
	}
	return true
}
