package main

import "testing"

func TestSteeringCommands(t *testing.T) {
	dir := folder(t, nil)
	stop := fill(t, dir)
	defer stop()
	expect(t, 0, `WAITING +READY +RUNNING +OLDEST +LIMIT +RATE +DESTINATION +SITE\n`+
		` +5 +6 +7 +3h +8 +600/m  x\.test +mx\.test\n    suspended, next probe in 10m\n    451 \\x1b\[2J\n`+
		` +0 +0 +0 +- +- +-  y\.test\n`, ``, "queue", "destinations", "-c", dir)
	expect(t, 0, `\{"domain":"x\.test","site":"mx\.test","waiting":5,.*"rate":"600/m","suspended_until":".*\}\n\{"domain":"y\.test".*\}\n`, ``,
		"queue", "destinations", "-c", dir, "--json")
	expect(t, 2, ``, `tarishi: invalid request: --limit must be at least 1\n`, "queue", "destinations", "-c", dir, "--limit", "0")
	expect(t, 0, `x\.test  2 recipients, 1 attempt: evil \\x1b\[2J\n    with \\x1bmx\.test\n    last reply: 451 4.7.1 \\x1b\]0.*\n`, ``, "queue", "why", "-c", dir, first)
	expect(t, 0, `\{"domain":"x\.test","recipients":\[1,2\],"attempts":1,"reason":"evil .*","host":".*mx\.test","last":"451 4.*\}\n`, ``, "queue", "why", "-c", dir, "--json", first)
	expect(t, 1, ``, `tarishi: .*: not in the queue\n`, "queue", "why", "-c", dir, none)
	expect(t, 1, `held `+first+`\nheld `+second+`\n`, `tarishi: `+none+`: not in the queue\n`, "queue", "hold", "-c", dir, first, none, second)
	expect(t, 0, `released `+first+`\n`, ``, "queue", "release", "-c", dir, first)
	expect(t, 1, `\{"id":"`+first+`","held":true\}\n\{"id":"`+none+`","error":"not in the queue"\}\n`, ``, "queue", "hold", "-c", dir, "--json", first, none)
	expect(t, 0, `\{"id":"`+first+`","held":false\}\n`, ``, "queue", "release", "-c", dir, "--json", first)
	stop()
	for _, c := range []string{"hold", "release", "why"} {
		expect(t, 1, ``, `tarishi: no daemon answers, and this needs one\n`, "queue", c, "-c", dir, first)
	}
	expect(t, 1, ``, `tarishi: no daemon answers, and this needs one\n`, "queue", "destinations", "-c", dir)
}
