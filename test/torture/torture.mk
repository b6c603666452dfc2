# Torture: the Nth call fails; see test/torture/faults.h. Soak: an hour of compressed life.
#
#   make torture         everything: scenarios, unit tests, a part under valgrind, flows in containers
#   make torture-short   scenarios, a few failures of each kind: what make test runs
#   make soak            SOAK_SECONDS=3600, SOAK_SEED= repeats what a printed seed led to

# The code under test is a library of its own, so that callers can be told apart. With the sanitizers
# that is the variant asan; valgrind wants a build without them.
TORTURE_LIBRARY  := $(BUILD)/torture/libunder-test.so
TORTURE_OBJECTS  := $(patsubst %,$(BUILD)/torture/%.o,faults faults_calls trial)
# Those that repeat one thing very often, by chance or for years, show nothing more here.
TORTURE_UNITS    := $(filter-out %_fuzz %_storm %_years,$(UNIT_SOURCES:test/unit/%.c=$(BUILD)/torture/unit/%))
SCENARIOS        := $(BUILD)/torture/scenarios
SCENARIO_GROUPS  := files settings formats crypto loops
SCENARIO_RUNS    := $(SCENARIO_GROUPS:%=$(SCENARIOS)-%.passed)
SCENARIO_SOURCES := test/torture/scenario.c $(sort $(wildcard test/torture/scenarios_*.c))
SCENARIO_OBJECTS := $(SCENARIO_SOURCES:test/torture/%.c=$(BUILD)/torture/%.o)
# Thousands of runs write files: in memory, where root can have a /tmp of its own.
TORTURE_PLACE    := $(shell [ "$$(id -u)" -ne 0 ] || echo test/torture/in-memory)
TORTURE_FLAGS    := -std=c17 -D_GNU_SOURCE $(WARNINGS) -Itest/torture -O1 -g -fPIC -fno-omit-frame-pointer
TORTURE_HEADERS  := $(wildcard test/torture/*.h)
# How many calls of each kind fail in containers, of which seed.
TORTURE_RUNS     ?= 20

$(TORTURE_LIBRARY): $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -Wl,-soname,$(@F) -o $@ $^ $(LIB_LIBS)
$(TORTURE_OBJECTS) $(BUILD)/torture/unit.o: $(BUILD)/torture/%.o: test/torture/%.c $(TORTURE_HEADERS) test/torture/torture.mk
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(TORTURE_FLAGS) -c -o $@ $<
# What may fail of the libraries is written down in library-calls; its wrappers are generated.
TORTURE_LIBRARY_CALLS := $(BUILD)/torture/library_calls.o
LIBRARY_FILES = $(shell ldd $(TORTURE_LIBRARY) | awk '/lib(uv|crypto|ssl|curl|cares|jansson|yaml-0|pcre2-8)\.so/ { print $$3 }')
$(TORTURE_LIBRARY_CALLS): test/torture/library-calls test/torture/make-library-calls $(TORTURE_LIBRARY)
	@test/torture/make-library-calls $< $(TORTURE_LIBRARY) $(LIBRARY_FILES) >$(@:.o=.s)
	@$(CC) -c -o $@ $(@:.o=.s)
$(SCENARIO_OBJECTS): $(BUILD)/torture/%.o: test/torture/%.c $(TORTURE_HEADERS) $(HEADERS) test/torture/torture.mk
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -Itest/unit -Itest/torture -c -o $@ $<
$(SCENARIOS): $(SCENARIO_OBJECTS)
$(TORTURE_UNITS): $(BUILD)/torture/unit/%: $(BUILD)/obj/test/unit/%.o $(BUILD)/torture/unit.o
$(SCENARIOS) $(TORTURE_UNITS): $(UNIT_SUPPORT_OBJECTS) $(TORTURE_OBJECTS) $(TORTURE_LIBRARY_CALLS) $(TORTURE_LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -rdynamic -Wl,-rpath,$(abspath $(BUILD)/torture) -o $@ $^ -lcmocka $(LIB_LIBS)

TORTURE_RUN = $(TORTURE_PLACE) $(abspath $<) $(1) >$(@:.passed=.log) 2>&1 || \
  { grep -a FINDING $(@:.passed=.log); echo "$@: FAILED, see $(@:.passed=.log)"; exit 1; }
$(SCENARIO_RUNS): $(SCENARIOS)-%.passed: $(SCENARIOS)
	@echo "  TORTURE $*"
	@$(call TORTURE_RUN,$*)
	@grep -a ' findings$$' $(@:.passed=.log)
	@touch $@
$(TORTURE_UNITS:%=%.passed): %.passed: %
	@echo "  TORTURE $<"
	@$(call TORTURE_RUN)
	@touch $@

# Preloaded into the daemon of a container. No sanitizer: it has an allocator of its own.
$(BUILD)/test/faults.so: test/torture/faults.c test/torture/faults_calls.c $(TORTURE_HEADERS) test/torture/torture.mk
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(TORTURE_FLAGS) -shared -o $@ $(filter %.c,$^)

.PHONY: torture torture-short torture-scenarios torture-units torture-flows torture-valgrind soak
torture-scenarios: $(SCENARIO_RUNS)
torture-units: $(TORTURE_UNITS:%=%.passed)
# What is read before it was written, in the code that judges certificates, which sanitizers cannot see.
torture-valgrind: $(SCENARIOS)
	@TORTURE=short TORTURE_KIND=memory TORTURE_ONLY=chain $(TORTURE_PLACE) valgrind --quiet --trace-children=yes --soname-synonyms=somalloc=nouserintercepts \
	  --error-exitcode=98 $(abspath $(SCENARIOS)) crypto
torture-flows: program modules $(TEST_PRELOADS) newer-pebble newer-certbot
	@BUILD=$(BUILD) TORTURE_RUNS=$(TORTURE_RUNS) $(PYTHON) -m pytest -p no:cacheprovider -q -n $(TEST_JOBS) \
	  $(PYTEST_ARGS) test/e2e/test_torture.py
# More at once than there are cores: what waits in vain for a call that has failed waits until its limit.
torture:
	@failed=0; \
	$(MAKE) --no-print-directory -k -j$$((4 * $$(nproc))) VARIANT=asan torture-scenarios torture-units || failed=1; \
	$(MAKE) --no-print-directory -j$$(nproc) VARIANT=debug BUILD=build/valgrind \
	  CFLAGS=-fPIC LDFLAGS_debug= torture-valgrind || failed=1; \
	$(MAKE) --no-print-directory torture-flows || failed=1; \
	$(MAKE) --no-print-directory VARIANT=asan torture-flows || failed=1; \
	exit $$failed
torture-short:
	@TORTURE=short $(MAKE) --no-print-directory -j$$(nproc) VARIANT=asan torture-scenarios

SOAK_SECONDS ?= 3600
soak: program modules newer-pebble newer-certbot
	@BUILD=$(BUILD) SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SEED=$(SOAK_SEED) $(PYTHON) -m pytest -p no:cacheprovider \
	  -q -s $(PYTEST_ARGS) test/e2e/test_soak.py
