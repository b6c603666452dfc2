# cert-manager: one Makefile, not recursive.
#
#   make                    the program and the nginx modules, into build/
#   make demo               everything real on loopback, until Ctrl-C (ONCE=1: checks itself)
#   make test               everything that is checked, with what it needs installed first
#   make help               the other goals
#
# VARIANT=release|debug|asan|cover|fuzz builds into build/<variant>/; build/ itself links to release.

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

VARIANT ?= release
BUILD   := build/$(VARIANT)
VERSION := 0.1.0

# ---- tools -------------------------------------------------------------------------------
ifeq ($(origin CC),default)
CC := $(if $(filter fuzz,$(VARIANT)),clang-19,gcc)
endif
PKG_CONFIG   ?= pkg-config
CLANG_FORMAT ?= clang-format-19
CLANG_TIDY   ?= clang-tidy-19
# Debian's own interpreter: pytest and cryptography are its packages.
PYTHON       ?= /usr/bin/python3
# Test processes mostly wait, so more of them than cores.
TEST_JOBS    ?= 4

# ---- flags -------------------------------------------------------------------------------
WARNINGS := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wstrict-prototypes \
            -Wmissing-prototypes -Wold-style-definition -Wformat=2 -Wvla -Wundef \
            -Wwrite-strings -Wpointer-arith -Wcast-qual -Wdouble-promotion \
            -Wimplicit-fallthrough -Wnull-dereference
# Jumps and returns lead to where they may (CET). Debian's start-up objects do not say that they bear a
# shadow stack, and the linker would say so of nothing that has them in it. They do: they return to where
# they were called from.
ifeq ($(shell uname -m),x86_64)
CET_CFLAGS  := -fcf-protection
CET_LDFLAGS := -Wl,-z,shstk
endif
HARDENING := -fPIE -fstack-protector-strong -fstack-clash-protection $(CET_CFLAGS)
LIBRARIES := libuv openssl libcurl libcares jansson yaml-0.1 libpcre2-8

CFLAGS_release := -O2 -g -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3 $(HARDENING)
CFLAGS_debug   := -Og -g3 $(HARDENING)
CFLAGS_asan    := -O1 -g3 -fPIC -fno-omit-frame-pointer -fsanitize=address,undefined \
                  -fno-sanitize-recover=all
CFLAGS_cover   := -O0 -g3 --coverage
# Only clang has libFuzzer. Its instrumentation goes into every object, its main() into the targets.
CFLAGS_fuzz    := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all \
                  -fsanitize=fuzzer-no-link,address,undefined,implicit-conversion
LDFLAGS_release := -pie -Wl,-z,relro,-z,now,-z,noexecstack $(CET_LDFLAGS) -Wl,--as-needed
LDFLAGS_debug   := $(LDFLAGS_release)
LDFLAGS_asan    := -fsanitize=address,undefined
LDFLAGS_cover   := --coverage
LDFLAGS_fuzz    := -fsanitize=address,undefined
ifeq ($(origin CFLAGS_$(VARIANT)),undefined)
$(error VARIANT=$(VARIANT) is not one of release, debug, asan, cover, fuzz)
endif

# Goals that need no compiler must work before the libraries are installed.
NO_LIBRARIES := help clean deps test demo layers report coverage-report install-hooks lock-python image \
                check-reproducible lock-packages bench-image torture torture-short
ifneq ($(filter-out $(NO_LIBRARIES),$(or $(MAKECMDGOALS),all)),)
MISSING := $(strip $(foreach l,$(LIBRARIES),$(shell $(PKG_CONFIG) --exists $(l) 2>/dev/null || echo $(l))))
ifneq ($(MISSING),)
$(error missing libraries: $(MISSING). Install them with "make deps" (Debian), or the -dev packages of your system and pkg-config)
endif
LIB_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBRARIES))
LIB_LIBS   := $(shell $(PKG_CONFIG) --libs $(LIBRARIES)) -lm
endif

CPPFLAGS += -D_GNU_SOURCE -DCERT_MANAGER_VERSION='"$(VERSION)"' -Iorchestrator $(LIB_CFLAGS)
ALL_CFLAGS = -std=c17 $(WARNINGS) $(if $(WERROR),-Werror) $(CFLAGS_$(VARIANT)) $(CFLAGS)
ALL_LDFLAGS = $(LDFLAGS_$(VARIANT)) $(LDFLAGS)

# ---- the program -------------------------------------------------------------------------
SOURCES := $(sort $(wildcard orchestrator/*/*.c))
HEADERS := $(sort $(wildcard orchestrator/*/*.h))
MAIN    := orchestrator/app/main.c
OBJECTS := $(SOURCES:%.c=$(BUILD)/obj/%.o)
LIBRARY_OBJECTS := $(filter-out $(BUILD)/obj/$(MAIN:.c=.o),$(OBJECTS))
PROGRAM := $(BUILD)/cert-manager

.PHONY: all
all: program modules
.PHONY: program
program: $(PROGRAM) links

ifeq ($(VARIANT),cover)
$(PROGRAM): ALL_LDFLAGS += -D_GNU_SOURCE -DCOUNTERS_FOLDER='"$(CURDIR)/$(BUILD)"' \
            -Wl,--wrap=_exit,--wrap=fork,--wrap=execvp test/analysis/counters.c
endif
$(PROGRAM): $(OBJECTS)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIB_LIBS)

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# ---- nginx modules -----------------------------------------------------------------------
include ekm-module/module.mk
.PHONY: modules
modules: $(NGINX_MODULES) links

# build/cert-manager and build/*.so are those of the release variant.
.PHONY: links
links: | $(BUILD)
ifeq ($(VARIANT),release)
	@ln -sfn release/cert-manager build/cert-manager
	@for so in $(notdir $(NGINX_MODULES)); do ln -sfn release/$$so build/$$so; done
endif
$(BUILD):
	@mkdir -p $@

# ---- unit tests: one program per file, linked with everything but main.c -------------------
UNIT_SOURCES  := $(sort $(wildcard test/unit/*/test_*.c))
UNIT_SUPPORT  := $(sort $(wildcard test/unit/support/*.c))
UNIT_PROGRAMS := $(UNIT_SOURCES:test/unit/%.c=$(BUILD)/unit/%)
UNIT_RUNS     := $(UNIT_PROGRAMS:%=%.passed)
UNIT_OBJECTS  := $(UNIT_SOURCES:%.c=$(BUILD)/obj/%.o) $(UNIT_SUPPORT:%.c=$(BUILD)/obj/%.o)
UNIT_SUPPORT_OBJECTS := $(UNIT_SUPPORT:%.c=$(BUILD)/obj/%.o)
BENCH_LEDGER  := $(BUILD)/bench/ledger
BENCH_OBJECTS := $(BUILD)/obj/test/bench/ledger.o

$(UNIT_OBJECTS): CPPFLAGS += -Itest/unit -DTEST_FOLDER='"$(CURDIR)/test"'
$(UNIT_PROGRAMS): $(BUILD)/unit/%: $(BUILD)/obj/test/unit/%.o $(UNIT_SUPPORT_OBJECTS) $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ -lcmocka $(LIB_LIBS)
$(UNIT_RUNS): %.passed: %
	@echo "  TEST    $<"
	@$< >$<.log 2>&1 || { cat $<.log; echo "$<: FAILED"; exit 1; }
	@touch $@

.PHONY: objects
objects: $(OBJECTS) $(UNIT_OBJECTS) $(BENCH_OBJECTS)

.PHONY: unit
unit: $(UNIT_RUNS)
	@echo "unit: $$(cat $(UNIT_PROGRAMS:%=%.log) | grep -c '^\[       OK \]') tests in $(words $(UNIT_PROGRAMS)) programs passed"

# ---- end-to-end tests --------------------------------------------------------------------
# Clients that have to keep their pace, hence not in Python.
TEST_PROGRAMS := $(BUILD)/test/chain_swaps $(BUILD)/test/ekm_clients $(BUILD)/test/rotation_clients
$(TEST_PROGRAMS): $(BUILD)/test/%: test/lib/%.c Makefile
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< -pthread $(LIB_LIBS)

# The names of what the program goes through and of what it measures, from its own tables.
LISTS := $(BUILD)/test/list_steps $(BUILD)/test/list_metrics
$(LISTS): $(BUILD)/test/%: $(BUILD)/obj/test/lib/%.o $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIB_LIBS)

# Preloaded into a release nginx, or before a sanitizer's own library: none of them in any variant.
# kill_at ends the daemon at an exact moment, for clock_jump two minutes are over at once, and
# wall_clock sets its clock to any time. keep_freed leaves in memory what was not
# wiped, and old_kernel has nothing to confine a process with.
TEST_PRELOADS := $(BUILD)/test/ekm_probe.so $(BUILD)/test/kill_at.so $(BUILD)/test/clock_jump.so \
                 $(BUILD)/test/wall_clock.so $(BUILD)/test/keep_freed.so \
                 $(BUILD)/test/old_kernel.so
$(TEST_PRELOADS): $(BUILD)/test/%.so: test/lib/%.c Makefile
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(CPPFLAGS) -std=c17 $(WARNINGS) $(CFLAGS_release) -fPIC -shared -o $@ $<
# One more, which makes calls of the daemon fail: test/torture/.
TEST_PRELOADS += $(BUILD)/test/faults.so

# A Pebble that has renewal information and profiles, and the certbot of the image.
NEWER_PEBBLE  := build/newer-pebble
NEWER_CERTBOT := build/newer-certbot
.PHONY: newer-pebble newer-certbot lock-python
newer-pebble:
	@test/lib/newer-pebble $(NEWER_PEBBLE)
newer-certbot:
	@test/lib/newer-certbot $(NEWER_CERTBOT) certbot.lock $(PYTHON)
lock-python:
	@test/lib/lock-python certbot.lock certbot 5 acme
	@test/lib/lock-python supervisor.lock supervisor 4

.PHONY: e2e
e2e: program modules man $(TEST_PROGRAMS) $(BENCH_LEDGER) $(LISTS) $(TEST_PRELOADS) newer-pebble newer-certbot
	@BUILD=$(BUILD) $(PYTHON) -m pytest -p no:cacheprovider -q -n $(TEST_JOBS) --dist loadgroup \
	  --durations=5 $(PYTEST_ARGS) test/e2e

# The tests of the modules once more, with the nginx and the OpenSSL of Debian's next release. They keep
# the cores busy. valgrind cannot follow: it needs the symbols of the C library that it starts.
NEWER_NGINX   := build/newer-nginx
NEWER_BUILD   := $(BUILD)/newer-nginx
NEWER_MODULES := $(NGINX_MODULES:$(BUILD)/%=$(NEWER_BUILD)/%)
NEWER_TESTS   := test_live_chain.py test_module_config.py \
                 test_ekm_value.py test_ekm_header.py test_ekm_secret.py test_ekm_load.py
# valgrind cannot run the loader of another release.
NEWER_WITHOUT := test_live_chain.py::test_no_leak_and_no_invalid_access \
                 test_ekm_load.py::test_ten_thousand_connections_leave_no_block_behind \
                 test_ekm_load.py::test_no_invalid_access_and_no_value_that_was_never_set
.PHONY: e2e-newer-nginx
e2e-newer-nginx: $(TEST_PROGRAMS) $(TEST_PRELOADS)
	@test/lib/newer-nginx $(NEWER_NGINX)
	@$(MAKE) --no-print-directory BUILD=$(NEWER_BUILD) NGINX_ROOT=$(NEWER_NGINX)/root $(NEWER_MODULES)
	@BUILD=$(BUILD) NGINX_BINARY=$(CURDIR)/$(NEWER_NGINX)/nginx NGINX_MODULES=$(NEWER_BUILD) \
	  NGINX_ROOT=$(NEWER_NGINX)/root $(PYTHON) -m pytest -p no:cacheprovider -q -n $$(nproc) \
	  --durations=5 $(NEWER_WITHOUT:%=--deselect test/e2e/%) $(PYTEST_ARGS) $(NEWER_TESTS:%=test/e2e/%)

# ---- figures -----------------------------------------------------------------------------
BENCH ?=
$(BENCH_LEDGER): $(BENCH_OBJECTS) $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIB_LIBS)

.PHONY: bench
bench: program modules $(TEST_PROGRAMS) $(BENCH_LEDGER)
	@BUILD=$(BUILD) $(PYTHON) test/bench/bench.py --json build/bench.json $(BENCH)

# Of the image that is there already: IMAGE names it.
.PHONY: bench-image
bench-image: newer-pebble
	@$(PYTHON) test/bench/image.py

# ---- torture, soak ------------------------------------------------------------------------
# Not there where only the image is built.
-include test/torture/torture.mk

# ---- fuzzing -----------------------------------------------------------------------------
# One program per target, with only what the targets call: in its own variant, since everything is
# instrumented.
FUZZ_SECONDS ?= 60
FUZZ_SOURCES := $(sort $(wildcard test/fuzz/targets/*.c))
FUZZ_SUPPORT := $(sort $(wildcard test/fuzz/support/*.c))
FUZZ_PROGRAMS := $(FUZZ_SOURCES:test/fuzz/targets/%.c=$(BUILD)/fuzz/%)
FUZZ_OBJECTS := $(FUZZ_SOURCES:%.c=$(BUILD)/obj/%.o) $(FUZZ_SUPPORT:%.c=$(BUILD)/obj/%.o)
FUZZ_PARTS   := $(wildcard orchestrator/base/*.c orchestrator/domain/*.c) \
                $(addprefix orchestrator/runtime/,http_answer.c observer.c seq.c server_request.c) \
                $(addprefix orchestrator/adapters/,acme_account.c acme_directory.c dstack.c renewal_info.c)
FUZZ_LIBRARY := $(BUILD)/libcert-manager.a

$(FUZZ_OBJECTS): CPPFLAGS += -Itest/fuzz -DTEST_FOLDER='"$(CURDIR)/test"'
$(FUZZ_LIBRARY): $(FUZZ_PARTS:%.c=$(BUILD)/obj/%.o) $(FUZZ_SUPPORT:%.c=$(BUILD)/obj/%.o)
	@rm -f $@
	@ar qcs $@ $^
$(FUZZ_PROGRAMS): $(BUILD)/fuzz/%: $(BUILD)/obj/test/fuzz/targets/%.o $(FUZZ_LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $^ $(LIB_LIBS)

# Seeds that are not texts, or hold keys.
FUZZ_SEEDS := $(BUILD)/seeds
$(FUZZ_SEEDS): test/fuzz/make_seeds.py
	@$(PYTHON) -B $< $@
	@touch $@

# FUZZ_TARGETS: only these. The modules are for nginx, which judges some of what is rendered.
.PHONY: fuzz fuzz-programs
fuzz-programs: $(FUZZ_PROGRAMS) $(FUZZ_SEEDS)
fuzz:
	@$(MAKE) --no-print-directory VARIANT=release modules
	@$(MAKE) --no-print-directory -j$$(nproc) VARIANT=fuzz fuzz-programs
	@BUILD=build/release $(PYTHON) -B test/fuzz/run.py build/fuzz $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# ---- style -------------------------------------------------------------------------------
FORMATTED := $(SOURCES) $(HEADERS) \
             $(sort $(wildcard test/unit/*/*.[ch] test/lib/*.c test/bench/*.c test/analysis/*.c test/fuzz/*/*.[ch] \
               test/torture/*.[ch]))
.PHONY: layers format format-check tidy compile-check
layers:
	@test/lib/check-layers orchestrator
format:
	@$(CLANG_FORMAT) -i $(FORMATTED)
format-check:
	@$(CLANG_FORMAT) --dry-run --Werror $(FORMATTED) && echo "format: $(words $(FORMATTED)) files"
# Sizes in the modules are products of constants of type int, as nginx has them; compilers tell when such
# a product is too large.
MODULE_CHECKS   := --checks=-bugprone-implicit-widening-of-multiplication-result
MODULE_SOURCES  := $(sort $(wildcard ekm-module/*.c))
MODULE_CPPFLAGS := $(patsubst %,-isystem $(ekm_build)/%,src/core src/event src/event/modules \
                     src/os/unix objs src/http src/http/modules src/http/v2)
tidy: $(ekm_build)/objs/Makefile
	@mkdir -p build/tidy
	@printf '%s\n' -std=c17 $(CPPFLAGS) | sed 's|^-I\(orchestrator\)|-I$(CURDIR)/\1|' >build/tidy/compile_flags.txt
	@printf '%s\n' $(SOURCES) | xargs -P "$$(nproc)" -n 4 $(CLANG_TIDY) --quiet -p build/tidy 2>/dev/null
	@printf '%s\n' $(MODULE_SOURCES) | xargs -P "$$(nproc)" -I{} $(CLANG_TIDY) --quiet $(MODULE_CHECKS) {} -- \
	  $(MODULE_CPPFLAGS) 2>/dev/null && echo "tidy: $(words $(SOURCES) $(MODULE_SOURCES)) files"
# Not one warning, with both compilers.
compile-check:
	@$(MAKE) --no-print-directory VARIANT=release WERROR=1 CC=gcc BUILD=build/check-gcc objects
	@$(MAKE) --no-print-directory VARIANT=release WERROR=1 CC=clang-19 BUILD=build/check-clang objects

# ---- static analysis ---------------------------------------------------------------------
# Four analyzers, which see different things. What one of them is wrong about stands, with the reason, in
# test/analysis/ or, for clang's, beside the code. The quick ones are part of `make test`.
SCAN_BUILD ?= scan-build-19
CPPCHECK   ?= cppcheck
# Opt-in checkers as well, but for one that wants functions of C11's Annex K, which nobody has.
SCAN_CHECKERS := -enable-checker nullability -enable-checker optin.portability \
                 -enable-checker security -enable-checker valist \
                 -disable-checker security.insecureAPI.DeprecatedOrUnsafeBufferHandling
.PHONY: analyze analyze-quick analyze-gcc analyze-cppcheck analyze-scan
analyze: analyze-quick tidy analyze-scan
analyze-quick: analyze-cppcheck analyze-gcc
analyze-gcc: $(ekm_build)/objs/Makefile
	@$(PYTHON) test/analysis/gcc.py gcc -std=c17 $(CPPFLAGS) -- $(SOURCES)
	@$(PYTHON) test/analysis/gcc.py gcc $(MODULE_CPPFLAGS) -- $(MODULE_SOURCES)
# The system's headers are left out, as cppcheck's manual advises: it knows the libraries from its own
# descriptions.
analyze-cppcheck:
	@$(CPPCHECK) -j "$$(nproc)" --quiet --error-exitcode=1 --std=c11 --inline-suppr \
	  --enable=warning,performance,portability --library=posix --library=gnu --library=openssl \
	  --suppressions-list=test/analysis/cppcheck-suppressions \
	  -D_GNU_SOURCE -DCERT_MANAGER_VERSION='"$(VERSION)"' -DNGX_HTTP_SSL \
	  -DOPENSSL_VERSION_NUMBER=0x30000000L -Dngx_open_file_n='"open()"' -Iorchestrator $(SOURCES) $(MODULE_SOURCES) && \
	  echo "cppcheck: $(words $(SOURCES) $(MODULE_SOURCES)) files"
# All is compiled anew: what was compiled already would not be looked at. The programs with which nginx's
# configure tries things are not ours.
analyze-scan:
	@rm -rf build/scan && mkdir -p build/scan
	@$(MAKE) --no-print-directory BUILD=build/scan/build build/scan/build/nginx-modules/objs/Makefile
	@$(SCAN_BUILD) --status-bugs -o build/scan/findings $(SCAN_CHECKERS) \
	  $(MAKE) --no-print-directory -j"$$(nproc)" BUILD=build/scan/build $(PROGRAM:$(BUILD)/%=build/scan/build/%) \
	  $(NGINX_MODULES:$(BUILD)/%=build/scan/build/%) >build/scan/log 2>&1 || { cat build/scan/log; exit 1; }
	@echo "scan-build: $(words $(SOURCES) $(MODULE_SOURCES)) files"

# ---- coverage, size ----------------------------------------------------------------------
# Counters add up in build/cover/ as processes end, and none is kept of one that is killed. So parts of
# the tests can be run by themselves: `make VARIANT=cover e2e PYTEST_ARGS='-k name' coverage-report`.
# Landlock lets the daemon write them, unless all of this lies below /root or another folder of the system.
COVER := build/cover
.PHONY: coverage coverage-unit coverage-report report
coverage: coverage-unit
	@$(MAKE) --no-print-directory VARIANT=cover e2e || echo "coverage: some tests failed" >&2
	@$(MAKE) --no-print-directory coverage-report
coverage-unit:
	@if [ -d $(COVER) ]; then find $(COVER) \( -name '*.gcda' -o -name '*.passed' \) -delete; fi
	@$(MAKE) --no-print-directory -j"$$(nproc)" VARIANT=cover all unit
coverage-report:
	@$(PYTHON) test/analysis/coverage.py $(COVER) build/coverage
report:
	@$(PYTHON) test/analysis/report.py $(SOURCES) $(HEADERS) $(MODULE_SOURCES) \
	  $(sort $(wildcard test/*/*.[ch] test/*/*.py test/unit/*/*.[ch]))

# ---- the two commands --------------------------------------------------------------------
.PHONY: deps test demo
deps:
	@test/lib/install-packages

test: deps
	@$(MAKE) --no-print-directory layers format-check
	@$(MAKE) --no-print-directory -j$$(nproc) compile-check
	@$(MAKE) --no-print-directory -j$$(nproc) all unit
	@$(MAKE) --no-print-directory torture-short
	@$(MAKE) --no-print-directory man-check
	@$(MAKE) --no-print-directory tidy
	@$(MAKE) --no-print-directory analyze-quick
	@$(MAKE) --no-print-directory e2e
	@$(MAKE) --no-print-directory e2e-newer-nginx
	@$(MAKE) --no-print-directory test-image
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=3

demo: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@exec env BUILD=$(BUILD) $(PYTHON) test/lib/demo.py $(if $(ONCE),--once)

# ---- manuals and completion ----------------------------------------------------------------
# Written by hand, but for what the program says of itself: a line `.\" generated by: COMMAND` is
# replaced by what COMMAND prints.
MANUALS    := $(patsubst docs/man/%,$(BUILD)/man/%,$(sort $(wildcard docs/man/*.[1-8])))
COMPLETION := $(BUILD)/completion/cert-manager
.PHONY: man man-check
man: $(MANUALS) $(COMPLETION)
$(MANUALS): $(BUILD)/man/%: docs/man/% $(PROGRAM) Makefile
	@mkdir -p $(@D)
	@echo "  MAN     $@"
	@PATH="$(abspath $(BUILD)):$$PATH" awk '\
	  !sub(/^\.\\" generated by: /, "") { print; next } \
	  { while (($$0 | getline line) > 0) { print line; printed = 1 } \
	    if (close($$0) != 0 || !printed) { print "failed: " $$0 >"/dev/stderr"; exit 1 } }' $< >$@
$(COMPLETION): $(PROGRAM)
	@mkdir -p $(@D)
	@$(PROGRAM) help --completion >$@
man-check: man
	@mandoc -Tlint -Wwarning $(MANUALS) && echo "man: $(words $(MANUALS)) manuals"

# ---- install -----------------------------------------------------------------------------
# The image's layout. DESTDIR is put before every path.
PREFIX      ?= /usr
MODULES_DIR ?= /usr/lib/nginx/modules
.PHONY: install
install: all man
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/cert-manager
	install -d $(DESTDIR)$(MODULES_DIR)
	install -m 0644 $(NGINX_MODULES) $(DESTDIR)$(MODULES_DIR)/
	install -d $(DESTDIR)/app/nginx_conf $(DESTDIR)$(PREFIX)/share/cert-manager/nginx_conf
	install -m 0644 nginx_conf/*.tmpl $(DESTDIR)/app/nginx_conf/
	install -m 0644 nginx_conf/*.tmpl $(DESTDIR)$(PREFIX)/share/cert-manager/nginx_conf/
	install -D -m 0755 hooks/deploy $(DESTDIR)$(PREFIX)/libexec/cert-manager/hooks/deploy
	install -D -m 0644 nginx_conf/nginx.conf $(DESTDIR)/etc/nginx/nginx.conf
	install -D -m 0644 LICENSE $(DESTDIR)$(PREFIX)/share/doc/cert-manager/copyright
	install -D -m 0644 supervisord.conf $(DESTDIR)/etc/supervisor/conf.d/supervisord.conf
	for manual in $(MANUALS); do install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/man/man$${manual##*.} $$manual; done
	install -D -m 0644 -t $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(COMPLETION)

# ---- the image ---------------------------------------------------------------------------
# With ENGINE=docker|buildah, on BASE; see deploy/build-image for both, and for what else is to be set.
BASE ?= docker.io/library/debian:trixie-slim
.PHONY: image check-reproducible test-image lock-packages
image:
	@BASE=$(BASE) deploy/build-image $(IMAGE)
check-reproducible:
	@deploy/check-reproducible $(IMAGE)
# Built by buildah, which needs no daemon, on a base that is made here when no registry has it. pip
# trusts whom this machine trusts. On a day when Debian has replaced a locked package, the newest are
# tried: what was changed here is not to wait for that. Its time is a day like no other, so that what
# there is of today in it is seen. TEST_IMAGE names an image that podman has already, which is tried as
# it is.
BUILT_IMAGE := localhost/cert-manager:test
TEST_LOG    := build/test-image.log
.PHONY: built-image
built-image: export ENGINE := buildah
built-image: export EXTRA_ROOTS := /etc/ssl/certs/ca-certificates.crt
built-image: newer-pebble
	@test/image/make-base
	@export BASE=$(BASE) SOURCE_DATE_EPOCH=1000000000; \
	  deploy/build-image $(BUILT_IMAGE) >$(TEST_LOG) 2>&1 || \
	  { grep '^packages.lock: ' $(TEST_LOG) && \
	    PACKAGES=newest deploy/build-image $(BUILT_IMAGE) >$(TEST_LOG) 2>&1; } || \
	  { tail -n 40 $(TEST_LOG); exit 1; }
test-image: export ENGINE := $(if $(TEST_IMAGE),$(ENGINE),buildah)
test-image: export EXTRA_ROOTS := /etc/ssl/certs/ca-certificates.crt
test-image: newer-pebble $(if $(TEST_IMAGE),,built-image)
	@IMAGE=$(or $(TEST_IMAGE),$(BUILT_IMAGE)) $(PYTHON) -m pytest -p no:cacheprovider -q -n $(TEST_JOBS) \
	  --dist loadgroup --durations=5 $(PYTEST_ARGS) test/image
lock-packages:
	@test/lib/lock-packages packages.lock $(BASE)

.PHONY: clean help
clean:
	rm -rf build
help:
	@echo "make                   build/cert-manager and build/ngx_http_*_module.so"
	@echo "make demo [ONCE=1]     a real certificate on loopback: Pebble, certbot, nginx, supervisord"
	@echo "make test              all tests; VARIANT=asan for the sanitizers"
	@echo "make bench             all figures and their targets (BENCH='start rest': some of them)"
	@echo "make bench-image       start, stop, memory at rest and size of an image (IMAGE=)"
	@echo "make torture           each allocation and system call fails in turn; torture-short: a part"
	@echo "make soak              an hour of compressed life (SOAK_SECONDS=3600, SOAK_SEED=)"
	@echo "make unit | e2e        one kind of tests (PYTEST_ARGS='-k name')"
	@echo "make e2e-newer-nginx   those of the nginx modules with the nginx of Debian's next release"
	@echo "make fuzz [FUZZ_SECONDS=60]  each target of test/fuzz for so long (FUZZ_TARGETS='config pair')"
	@echo "make lock-python       certbot.lock and supervisor.lock anew: newest versions and what they need, with sums"
	@echo "make image [IMAGE=]    the container image, the same bytes each time, with docker or buildah"
	@echo "make check-reproducible  the image once more, built elsewhere: it has to be the same (IMAGE=)"
	@echo "make test-image        builds the image and tries it with podman: modes, volumes, restrictions, contract"
	@echo "make lock-packages     packages.lock anew: Debian's newest packages for the image"
	@echo "make analyze           gcc -fanalyzer, clang-tidy, cppcheck, scan-build; analyze-quick: 1st and 3rd"
	@echo "make coverage          lines and branches that the tests run; coverage-unit, coverage-report: parts"
	@echo "make report            complexity of functions, sizes of files"
	@echo "make layers | format-check | tidy | compile-check | format"
	@echo "make man | man-check   the manuals and the completion for bash; what mandoc says of them"
	@echo "make install DESTDIR=  the image's layout"
	@echo "make deps | clean"
	@echo "VARIANT=release|debug|asan|cover|fuzz"

-include $(OBJECTS:.o=.d) $(UNIT_OBJECTS:.o=.d) $(BENCH_OBJECTS:.o=.d) $(FUZZ_OBJECTS:.o=.d) $(LISTS:$(BUILD)/test/%=$(BUILD)/obj/test/lib/%.d)
