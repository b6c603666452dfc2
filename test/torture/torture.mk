# ---- torture: the Nth call fails -----------------------------------------------------------
# Wants VARIANT=asan. The code under test is a library of its own, so that callers can be told apart.
TORTURE_LIBRARY  := $(BUILD)/torture/libunder-test.so
TORTURE_OBJECTS  := $(patsubst %,$(BUILD)/torture/%.o,faults faults_calls)
TORTURE_RUNNER   := $(BUILD)/torture/trial.o $(BUILD)/torture/unit.o
TORTURE_UNITS    := $(UNIT_SOURCES:test/unit/%.c=$(BUILD)/torture/unit/%)
# Thousands of runs write files: in memory, where root can have a /tmp of its own.
TORTURE_PLACE    := $(shell [ "$$(id -u)" -ne 0 ] || echo test/torture/in-memory)
TORTURE_FLAGS    := -std=c17 -D_GNU_SOURCE $(WARNINGS) -Itest/torture -O1 -g -fPIC -fno-omit-frame-pointer
$(TORTURE_LIBRARY): $(LIBRARY_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -shared -o $@ $^ $(LIB_LIBS)
$(TORTURE_OBJECTS) $(TORTURE_RUNNER): $(BUILD)/torture/%.o: test/torture/%.c $(wildcard test/torture/*.h) test/torture/torture.mk
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(TORTURE_FLAGS) -c -o $@ $<
$(TORTURE_UNITS): $(BUILD)/torture/unit/%: $(BUILD)/obj/test/unit/%.o $(UNIT_SUPPORT_OBJECTS) $(TORTURE_OBJECTS) \
                  $(TORTURE_RUNNER) $(TORTURE_LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -rdynamic -Wl,-rpath,$(abspath $(BUILD)/torture) -o $@ $^ -lcmocka $(LIB_LIBS)
$(TORTURE_UNITS:%=%.passed): %.passed: %
	@echo "  TORTURE $<"
	@$(TORTURE_PLACE) $< >$<.log 2>&1 || { grep -a FINDING $<.log; echo "$<: FAILED, see $<.log"; exit 1; }
	@touch $@

SCENARIOS        := $(BUILD)/torture/scenarios
SCENARIO_SOURCES := test/torture/scenario.c $(sort $(wildcard test/torture/scenarios_*.c))
SCENARIO_OBJECTS := $(SCENARIO_SOURCES:test/torture/%.c=$(BUILD)/torture/%.o)
$(SCENARIO_OBJECTS): $(BUILD)/torture/%.o: test/torture/%.c $(wildcard test/torture/*.h) test/torture/torture.mk
	@mkdir -p $(@D)
	@echo "  CC      $<"
	@$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -Itest/unit -Itest/torture -c -o $@ $<
$(SCENARIOS): $(SCENARIO_OBJECTS) $(UNIT_SUPPORT_OBJECTS) $(TORTURE_OBJECTS) $(BUILD)/torture/trial.o $(TORTURE_LIBRARY)
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -rdynamic -Wl,-rpath,$(abspath $(BUILD)/torture) -o $@ $^ -lcmocka $(LIB_LIBS)

# Preloaded into the daemon of a container. No sanitizer: it has an allocator of its own.
$(BUILD)/test/faults.so: test/torture/faults.c test/torture/faults_calls.c test/torture/faults.h
	@mkdir -p $(@D)
	@echo "  LINK    $@"
	@$(CC) $(TORTURE_FLAGS) -shared -o $@ $(filter %.c,$^)
