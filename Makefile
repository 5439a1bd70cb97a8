# make demo and make test need nothing but Swift and Debian or Ubuntu: they install what is missing.

PREFIX ?= /usr/local
DESTDIR ?=
# Seconds after which a hanging test run is ended: a blocked synchronous test cannot be ended from within.
TEST_TIMEOUT ?= 600
# For one suite or test: make test FILTER=InteropTests
FILTER ?=
BENCH ?=
# Seconds for each fuzzed thing; FUZZ names some of them, e.g. make fuzz FUZZ="initiator target"
FUZZ_SECONDS ?= 60
FUZZ ?=
# make soak runs seeds of the simulator for so long: SOAK_SECONDS=60 make soak. Another SOAK_FIRST, other seeds. Then
# everything that reads what others wrote is fuzzed for FUZZ_SECONDS each.
SOAK_SECONDS ?= 3600
SOAK_FIRST ?= 1

# make torture CYCLES=1000: real targets killed, stopped and restarted at random, by SEED, under verified load.
CYCLES ?= 1000
SEED ?= 1
POLICY ?= round-robin

export SWIFT = swift
# Two tests at a time, whatever the number of cores: some measure pauses. The variable is Swift Testing's; where a
# toolchain does not know it, it has no effect.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH = 2
TEST_FLAGS = --skip-build --disable-xctest

.DEFAULT_GOAL = build
.PHONY: build release demo test soak torture bench fuzz docs examples install uninstall setup setup-build clean

build: setup-build
	$(SWIFT) build

release: setup-build
	$(SWIFT) build -c release --product mpio

# make demo PLOT=fail-over.svg draws the cut as well.
PLOT ?=

demo: release
	"$$($(SWIFT) build -c release --product mpio --show-bin-path)/mpio" demo $(if $(PLOT),--plot "$(PLOT)")

test: setup
	$(SWIFT) build --build-tests
ifeq ($(FILTER),)
	# What measures pauses against real targets has the machine to itself, and so has the simulator, which
	# keeps every processor busy.
	TEST_TIMEOUT=$(TEST_TIMEOUT) scripts/run-tests $(TEST_FLAGS) --parallel --skip SimulationTests --skip InteropTests
	TEST_TIMEOUT=$(TEST_TIMEOUT) scripts/run-tests $(TEST_FLAGS) --no-parallel --filter InteropTests
	TEST_TIMEOUT=$(TEST_TIMEOUT) scripts/run-tests $(TEST_FLAGS) --parallel --filter SimulationTests
else
	TEST_TIMEOUT=$(TEST_TIMEOUT) scripts/run-tests $(TEST_FLAGS) --parallel --filter '$(FILTER)'
endif

soak: setup-build
	$(SWIFT) build -c release --product simulate
	"$$($(SWIFT) build -c release --product simulate --show-bin-path)/simulate" soak \
		--seconds $(SOAK_SECONDS) --first $(SOAK_FIRST)
	FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz

torture: setup
	$(SWIFT) build --build-tests
	MPIO_TORTURE_CYCLES=$(CYCLES) MPIO_TORTURE_SEED=$(SEED) MPIO_TORTURE_POLICY=$(POLICY) \
		timeout --kill-after=10 $$(($(CYCLES) * 3 + 300)) $(SWIFT) test $(TEST_FLAGS) --filter TortureTests

bench: setup
	$(SWIFT) build -c release --package-path Benchmarks
	$(SWIFT) build -c release --package-path Benchmarks --product mpio
	"$$($(SWIFT) build -c release --package-path Benchmarks --show-bin-path)/bench" $(BENCH)

fuzz: setup-build
	FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZ)

# What programs import, as a DocC archive in .build/docs; fails on a public symbol without a comment and on a dead link.
docs: setup-build
	$(SWIFT) build --target MPIO
	scripts/docs "$$($(SWIFT) build --show-bin-path)"

# Each of Examples/ as the package of its own that it is; make test builds them with everything else.
examples: setup-build
	for example in Examples/*/; do \
		$(SWIFT) build --package-path "$$example" --scratch-path .build/examples || exit 1; \
	done

# The command, its manual pages, completions for bash, zsh and fish, and the systemd unit.
install: release
	$(SWIFT) build -c release --product ManualPages
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install-files install "$$($(SWIFT) build -c release --show-bin-path)"

uninstall:
	DESTDIR="$(DESTDIR)" PREFIX="$(PREFIX)" scripts/install-files uninstall

# Everything that building, testing and benchmarking need.
setup:
	@scripts/setup test

# What building needs.
setup-build:
	@scripts/setup build

clean:
	rm -rf .build Benchmarks/.build Fuzzing/.build Examples/*/.build
