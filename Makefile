# build, run and test Tarishi; "make check" is what CI runs.

GO       ?= go
PREFIX   ?= /usr/local
VERSION  := $(shell sed -n 's/^## \([0-9.]*\) .*/\1/p' CHANGELOG.md | head -n 1)
FUZZTIME ?= 10s# for each target; a number with x counts inputs instead
ROUNDS   ?= 500
CRASHTIME ?= 20m# no round begins after that
BENCHTIME ?= 5m# about how long all parts may take together
BENCHARGS ?=# see bin/tarishi-bench -h

# Packages whose tests run at a time: one more than there are processors, since many
# of them wait.
ATONCE = $$(( $$(getconf _NPROCESSORS_ONLN) + 1 ))

# Everything is compiled as the static binary is, wherever that is built, and so only once.
export CGO_ENABLED = 0
export GOFLAGS := $(GOFLAGS) -trimpath
BUILD = $(GO) build -buildvcs=false -ldflags '-s -w -X main.version=$(VERSION)'

.PHONY: build run test race long lint fuzz e2e dialogue crash world bench check cover install clean

build:
	$(BUILD) -o bin/tarishi ./cmd/tarishi

# The checkout is an instance: its config/ is the shipped configuration.
run: build
	@echo 'Starting Tarishi in this folder. A first message, from another terminal:'
	@echo
	@echo "  swaks --server 127.0.0.1:2525 --from you@example.org --to first@localhost --header 'Subject: first message'"
	@echo
	@exec bin/tarishi serve -c .

# Needs Go only: tests of programs that are not installed say so and are skipped.
# What go test would vet, lint vets. Packages start in this order: the one that takes
# longest, mostly waiting, is first. It builds the daemon, more than once: so everything
# is compiled before, or both would compile the same. What takes long, crash and
# dialogue have targets of their own.
test:
	$(GO) build ./internal/...
	$(GO) test -short -vet=off -p $(ATONCE) ./internal/test/e2e $$($(GO) list ./... | grep -v -e '/internal/test/crash' -e '/internal/test/dialogue')

# The race detector needs cgo, and so a C compiler. The real binary, which it does not
# see, is for e2e, judges, dialogue and crash.
race:
	@command -v $$($(GO) env CC) >/dev/null || { echo "make race needs a C compiler ($$($(GO) env CC)): install gcc, or use make test" >&2; exit 1; }
	CGO_ENABLED=1 $(GO) test -short -vet=off -race -p $(ATONCE) -timeout 10m $$($(GO) list ./... | grep -v -e '/internal/test/e2e' -e '/internal/test/judges' -e '/internal/test/dialogue' -e '/internal/test/crash')

# Loads, a thousand reloads, plugins that are compiled, and faults at each operation of
# the queue on its disk.
long:
	$(GO) test -count=1 -vet=off -run '^TestLong' -timeout 10m ./internal/test/e2e
	$(GO) test -count=1 -vet=off ./internal/store/disk

lint:
	@bad=$$($(GO) tool gofumpt -l .) && test -z "$$bad" || { echo "not formatted (go tool gofumpt -w FILE):" $$bad >&2; exit 1; }
	$(GO) vet ./...
	$(GO) tool staticcheck ./...

# go test -fuzz builds a package again for each target; here its binary is built once
# and runs them all. The inputs that it collects are where go test keeps them. Two
# packages at a time, each with one worker: building takes longer than running.
FUZZBIN = $(CURDIR)/bin/fuzz/$$(echo "$$0" | tr / -)
fuzz:
	@mkdir -p bin/fuzz
	@grep -rl '^func Fuzz' --include='*_test.go' cmd internal | xargs -n 1 dirname | sort -u | xargs -P 2 -n 1 sh -ec 'cd "$$0"; \
		$(GO) test -c -vet=off -fuzz . -ldflags "-s -w" -o "$(FUZZBIN)"; \
		targets=$$("$(FUZZBIN)" -test.list "^Fuzz"); \
		for target in $$targets; do \
			echo "$$0 $$target"; \
			"$(FUZZBIN)" -test.run "^$$" -test.fuzz "^$$target\$$" -test.fuzztime $(FUZZTIME) -test.parallel 1 -test.fuzzcachedir "$$($(GO) env GOCACHE)/fuzz/$$($(GO) list)" </dev/null; \
		done; rm "$(FUZZBIN)"'

e2e: build
	TARISHI_BIN=$(CURDIR)/bin/tarishi $(GO) test -count=1 -timeout 10m ./internal/test/e2e/...

# The same conversations with Haraka and its plugins, which npm installs into the
# user's cache folder once, and here, in a network of their own.
dialogue:
	$(GO) test -count=1 -timeout 10m ./internal/test/dialogue

# Kills the daemon so many times under load, fills its disk, damages its files.
# The default of the test itself is 50 rounds, about a minute.
crash: build
	TARISHI_BIN=$(CURDIR)/bin/tarishi TARISHI_CRASH_ROUNDS=$(ROUNDS) TARISHI_CRASH_TIME=$(CRASHTIME) \
		$(GO) test -count=1 -v -timeout 1h ./internal/test/crash

# A DNS and servers for 200 domains, two in five of them sick, 20,000 messages:
# a few minutes. The default of the tests themselves is 2,000.
world:
	TARISHI_WORLD=20000 $(GO) test -count=1 -v -timeout 15m ./internal/test/world

# Beside Haraka, which npm installs into the user's cache folder once, and
# Postfix, each if it can be had. One part: make bench BENCHARGS='-part relay'.
bench: build
	$(BUILD) -o bin/tarishi-bench ./cmd/tarishi-bench
	bin/tarishi-bench -tarishi bin/tarishi -time $(BENCHTIME) $(BENCHARGS)

# dialogue, crash and long wait much: they run beside each other, and each shows what it
# has to say at its end.
check: build lint test race
	$(MAKE) -j 2 --output-sync=target long dialogue crash ROUNDS=50
	$(MAKE) fuzz FUZZTIME=2000x

cover:
	@mkdir -p bin
	$(GO) test -coverprofile=bin/cover.out -coverpkg=./internal/... $$($(GO) list ./internal/... | grep -v -e '/internal/test/e2e' -e '/internal/test/dialogue' -e '/internal/test/crash')
	$(GO) tool cover -func=bin/cover.out | tail -1

install: build
	install -D -m 755 bin/tarishi $(DESTDIR)$(PREFIX)/bin/tarishi

clean:
	rm -rf bin
