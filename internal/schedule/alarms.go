package schedule

// alarms is the sites with something ready that only time keeps from running,
// the earliest first: a binary heap in which each knows its place.
type alarms []*site

func (a *alarms) set(t *site, at int64) {
	if t.alarm != 0 {
		if t.alarmAt == at {
			return
		}
		a.remove(t)
	}
	t.alarmAt = at
	*a = append(*a, t)
	a.up(len(*a) - 1)
}

func (a *alarms) remove(t *site) {
	if t.alarm == 0 {
		return
	}
	i, end := int(t.alarm-1), len(*a)-1
	t.alarm = 0
	last := (*a)[end]
	(*a)[end] = nil
	*a = (*a)[:end]
	if i < end {
		(*a)[i] = last
		last.alarm = int32(i + 1)
		a.down(i)
		a.up(int(last.alarm - 1))
	}
}

func (a alarms) up(i int) {
	for ; i > 0 && a[(i-1)/2].alarmAt > a[i].alarmAt; i = (i - 1) / 2 {
		a[i], a[(i-1)/2] = a[(i-1)/2], a[i]
		a[i].alarm = int32(i + 1)
	}
	a[i].alarm = int32(i + 1)
}

func (a alarms) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(a) {
			break
		}
		if child+1 < len(a) && a[child+1].alarmAt < a[child].alarmAt {
			child++
		}
		if a[i].alarmAt <= a[child].alarmAt {
			break
		}
		a[i], a[child] = a[child], a[i]
		a[i].alarm = int32(i + 1)
		i = child
	}
	a[i].alarm = int32(i + 1)
}
