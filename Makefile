# Each goal installs what it needs and is missing (Debian or Ubuntu; as root or with sudo) and says so.

GO      := scripts/go
VERSION  = $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  = -s -w -X main.version=$(VERSION)
# The agent speaks no HTTP/2, which would be a twentieth of it.
AGENT   := -tags nethttpomithttp2
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

# The version is given above; asking git again fails in a clone that another user owns.
export GOFLAGS += -buildvcs=false

.DEFAULT_GOAL := help
.PHONY: help build packages test test-all check boottest demo bench lint clean deps-%

help: ## this list
	@echo "goals:"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1 \2/p' $(MAKEFILE_LIST) | awk '{ name = $$2; $$1 = $$2 = ""; printf "  make %-9s%s\n", name, $$0 }'

build: deps-build ## bin/muster (head and command line), bin/muster-agent, bin/muster-pam
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/muster ./controller
	CGO_ENABLED=0 $(GO) build -trimpath $(AGENT) -ldflags "$(LDFLAGS)" -o bin/muster-agent ./agent
	CGO_ENABLED=1 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/muster-pam ./controller/auth/muster-pam

packages: build ## bin/packages: what other machines install from a head, for x86-64 and arm64
	$(GO) run ./scripts/packages -go $(GO) -version "$(VERSION)"

# The machines of the boot tests are emulated and starve beside anything else that computes, so they come last and alone.
test: check ## vet, the unit tests with the race detector, then real machines booting (as root)
	@$(MAKE) --no-print-directory boottest

# With one set of flags vet and the tests share what they compile; -w halves the time of linking.
check: deps-test build
	$(GO) vet -race ./...
	$(GO) test -race -short -vet=off -ldflags=-w -timeout 10m ./...

boottest: deps-test build
	$(GO) test -v -count=1 -timeout 13m -run "TestBoot|TestInstall|TestBMC" ./scripts/lab

test-all: test ## test, and the boots that take too long for every day (as root)
	$(GO) test -v -count=1 -timeout 30m -run "^TestBootAll$$" ./scripts/lab -all

demo: deps-demo build ## two bare machines boot from a head and run a command, in a network of their own
	$(GO) run ./scripts/lab/demo

bench: deps-bench build ## one table: figure, wanted, reached
	$(GO) run ./scripts/bench

lint: deps-lint ## gofmt, go vet, staticcheck
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l agent controller images initramfs scripts shared); \
	if [ -n "$$unformatted" ]; then echo "not formatted by gofmt:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

clean: ## remove what build made
	rm -rf bin

deps-%:
	@scripts/deps $*
