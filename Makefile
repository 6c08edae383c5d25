# Sealift. 'make help' lists what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help

GOLANGCI_LINT_VERSION := v2.15.0
GOVULNCHECK_VERSION   := v1.1.4

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
BIN     := bin/sealift
TOOLS   := $(CURDIR)/.cache/tools

# One set of build flags everywhere, so that one build cache serves all.
# Big libraries that never are what takes the time are compiled without inlining and functions
# are packed more densely, which makes the binary 8 MB smaller.
DENSE := k8s.io sigs.k8s.io github.com/redis go.opentelemetry.io github.com/google/gnostic-models \
	github.com/go-openapi github.com/sigstore google.golang.org/grpc google.golang.org/protobuf helm.sh github.com/fluxcd \
	github.com/Masterminds github.com/prometheus github.com/google/cel-go github.com/theupdateframework github.com/in-toto \
	github.com/go-jose github.com/spf13 github.com/santhosh-tekuri github.com/fxamacker github.com/ProtonMail github.com/google/certificate-transparency-go \
	github.com/transparency-dev github.com/digitorus oras.land go.yaml.in github.com/evanphx github.com/gorilla github.com/json-iterator \
	github.com/huandu github.com/gobwas github.com/shopspring golang.org/x/text github.com/asaskevich github.com/secure-systems-lab
export GOFLAGS := -trimpath -buildvcs=false $(DENSE:%=-gcflags=%/...=-l)
LDFLAGS := -s -w -buildid= -funcalign=16 -X github.com/sealift/sealift/internal/cli.version=$(VERSION)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/sealift, one static binary
	CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(BIN) .

# The Go Cryptographic Module that is certified (lib/fips140/certified.txt of the toolchain).
FIPS_MODULE := v1.0.0

.PHONY: build-fips
build-fips: ## build bin/sealift-fips, with the certified cryptographic module (docs/fips.md)
	GOFIPS140=$(FIPS_MODULE) CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o $(BIN)-fips .

# The limit that the project has set itself, in bytes.
MAX_SIZE := 80000000

.PHONY: size
size: build ## check that the binary stays small enough to travel
	@size=$$(wc -c < $(BIN)); echo "$(BIN): $$size bytes, at most $(MAX_SIZE) are allowed"; [ $$size -le $(MAX_SIZE) ]

.PHONY: test
test: ## run all tests: with the race detector, but for those commands in which nothing goes on at the same time
	go test -race -count=1 -timeout 30m ./...
	CGO_ENABLED=0 go test -count=1 -timeout 20m -run 'BitFlip|KilledPack|TestScripts' ./internal/archive ./internal/cli
	$(MAKE) test-fips

# Whatever is not approved fails in this mode, where it goes through Go's own cryptography.
FIPS_PACKAGES := ./verify/... ./install/... ./internal/oci/... ./internal/site/...
FIPS_SCRIPTS := TestScripts/(seed|stream|trust|tamper|several|volumes|referrers)$$|TestKeyless|TestSeed|TestAttacks

.PHONY: test-fips
test-fips: ## run the tests of verify, seed and install with approved algorithms only
	GODEBUG=fips140=only CGO_ENABLED=0 go test -count=1 -timeout 20m $(FIPS_PACKAGES)
	GODEBUG=fips140=only CGO_ENABLED=0 go test -count=1 -timeout 20m -run '$(FIPS_SCRIPTS)' ./internal/cli

.PHONY: demo
demo: build ## pack, carry and install two small images, on this machine
	SEALIFT=$(CURDIR)/$(BIN) ./testdata/demo/demo.sh

.PHONY: lint
lint: $(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION) ## check the code, with the dependency rule
	CGO_ENABLED=0 $< run ./... ./testdata/demo/... ./testdata/reproducible/...
	@test -z "$$(gofmt -l .)" || { echo "gofmt would change:"; gofmt -l .; exit 1; }
	go mod tidy -diff

$(TOOLS)/golangci-lint-$(GOLANGCI_LINT_VERSION):
	CGO_ENABLED=0 GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION)
	mv $(TOOLS)/golangci-lint $@

.PHONY: e2e
e2e: build ## install across a true air gap, on a real Kubernetes (root, Debian)
	./internal/e2e/prepare.sh
	SEALIFT_BIN=$(CURDIR)/$(BIN) go test -tags e2e -count=1 -timeout 30m -v ./internal/e2e/

.PHONY: interop
interop: build ## sign and verify against the cosign command line, both ways
	cd internal/interop/cosign && SEALIFT_BIN=$(CURDIR)/$(BIN) CGO_ENABLED=0 go test -count=1 -timeout 20m ./...

.PHONY: conformance
conformance: build ## compare both registries with the OCI distribution specification (docs/conformance.md)
	SEALIFT_BIN=$(CURDIR)/$(BIN) CGO_ENABLED=0 go test -count=1 -timeout 10m ./internal/conformance/ $(UPDATE)

.PHONY: fuzz
FUZZTIME ?= 30s
fuzz: ## fuzz every parser of foreign bytes, FUZZTIME each
	@set -e; for pkg in $$(go list ./...); do \
	  for f in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
	    echo "$$pkg $$f"; CGO_ENABLED=0 go test -run '^$$' -fuzz "^$$f$$" -fuzzminimizetime 10x -fuzztime $(FUZZTIME) $$pkg; done; done

.PHONY: bench
bench: build ## measure speed and memory on 1 GB of layers made on the spot
	SEALIFT_BIN=$(CURDIR)/$(BIN) CGO_ENABLED=0 go test -run '^$$' -bench . -benchtime 1x -timeout 60m ./internal/bench/
	CGO_ENABLED=0 go test -run '^$$' -bench Discover ./internal/chart/

# The second binary is built in another directory, and without the build cache.
.PHONY: reproducible
reproducible: ## build twice and pack in many ways: the bytes must be the same
	@set -e; dir=$$(mktemp -d); trap 'rm -rf "$$dir"' EXIT; set -x; \
	  mkdir "$$dir/src"; tar -c -f - --exclude=./.git --exclude=./.cache --exclude=./bin . | tar -x -f - -C "$$dir/src"; \
	  CGO_ENABLED=0 go build -ldflags '$(LDFLAGS)' -o "$$dir/sealift.1" .; \
	  (cd "$$dir/src" && CGO_ENABLED=0 go build -a -ldflags '$(LDFLAGS)' -o "$$dir/sealift.2" .); \
	  CGO_ENABLED=0 go run ./testdata/reproducible "$$dir/sealift.1" "$$dir/sealift.2"

.PHONY: docs
docs: ## write the command reference again
	CGO_ENABLED=0 go test -run TestCommandReference ./internal/cli -update

.PHONY: vuln
vuln: ## look for known vulnerabilities (needs the vulnerability database)
	go run golang.org/x/vuln/cmd/govulncheck@$(GOVULNCHECK_VERSION) ./...

.PHONY: clean
clean: ## remove what was built here
	rm -rf bin .cache
