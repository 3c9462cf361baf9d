# memtrace: one file, no recursion. `make help` lists the targets.
#
# SPDX-License-Identifier: Apache-2.0

B ?= build
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
CXX ?= g++
V ?= 0
W ?= 0
Q := $(if $(filter 1,$(V)),,@)

OPT ?= -O2
WARN := -Wall -Wextra -Wshadow -Wvla -Wformat=2
ifeq ($(W),1)
WARN += -Werror
endif
CWARN := $(WARN) -Wstrict-prototypes -Wmissing-prototypes
CPPFLAGS += -D_GNU_SOURCE -Iinclude -MMD -MP
SANFLAGS ?=
CFLAGS_ALL := -std=gnu11 $(OPT) -g $(CWARN) $(SANFLAGS) $(CFLAGS)
CXXFLAGS_ALL := -std=gnu++17 -O1 -g $(WARN) $(SANFLAGS) $(CXXFLAGS)

# Inside the target: frame pointers for MT_CALLER, static TLS, nothing the compiler turns into a
# call of a function that we interpose. Hooks that call hooks mean each other, also where libc comes
# first (loaded late).
SHIM_FLAGS := -fPIC -fno-omit-frame-pointer -fvisibility=hidden -ftls-model=initial-exec \
	-fno-builtin-malloc -fno-builtin-calloc -fno-builtin-realloc -fno-builtin-free
SHIM_LINK := -shared -Wl,-z,now -Wl,-z,nodelete -Wl,-Bsymbolic-functions -Wl,--no-undefined-version -Wl,-z,defs

SHIM_SRC := $(sort $(wildcard preload/*.c preload/*/*.c))
REPORT_SRC := $(sort $(wildcard analyzer/*.c analyzer/*/*.c))
DRIVER_SRC := $(sort $(wildcard control/*.c))
UNIT_SRC := $(sort $(wildcard tests/unit/*_test.cc tests/contract/*_test.cc tests/support/*.cc tests/corpus/*.cc))
INTEGRATION_SRC := $(sort $(wildcard tests/integration/*_test.cc tests/support/*.cc))
PROGRAM_SRC := $(sort $(filter-out %.so.c,$(wildcard tests/programs/*.c)) $(wildcard tests/programs/*.cc))
PROGRAM_SO_SRC := $(sort $(wildcard tests/programs/*.so.c tests/support/*.so.c))

obj = $(patsubst %,$(B)/obj/%.o,$(1))
SHIM_OBJ := $(call obj,$(SHIM_SRC))
REPORT_OBJ := $(call obj,$(REPORT_SRC))
DRIVER_OBJ := $(call obj,$(DRIVER_SRC))
UNIT_OBJ := $(call obj,$(UNIT_SRC)) $(filter-out $(B)/obj/analyzer/main.c.o,$(REPORT_OBJ)) \
	$(filter-out $(B)/obj/control/main.c.o,$(DRIVER_OBJ)) \
	$(filter-out $(B)/obj/preload/hooks/% $(call obj,$(wildcard preload/*.c)),$(SHIM_OBJ))
INTEGRATION_OBJ := $(call obj,$(INTEGRATION_SRC)) $(filter-out $(B)/obj/analyzer/main.c.o,$(REPORT_OBJ))
PROGRAMS := $(patsubst tests/programs/%,$(B)/programs/%,$(basename $(PROGRAM_SRC)))
PROGRAM_SOS := $(patsubst %.so.c,$(B)/programs/%.so,$(notdir $(PROGRAM_SO_SRC)))

REPORT_LIBS := -ldw -lelf -lcjson -lstdc++ -lm
DRIVER_LIBS := -lcjson -lncurses

.PHONY: all
all: $(B)/libmemtrace.so $(B)/memtrace $(B)/memtrace-report ## build the three programs

include tests/support/cuda/cuda.mk

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' Makefile

$(B)/obj/preload/%.c.o: preload/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(CPPFLAGS) -Ipreload $(CFLAGS_ALL) $(SHIM_FLAGS) -c $< -o $@

$(B)/obj/analyzer/%.c.o: analyzer/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(CPPFLAGS) -Ianalyzer $(CFLAGS_ALL) -c $< -o $@

$(B)/obj/control/%.c.o: control/%.c
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC      $<")
	$(Q)$(CC) $(CPPFLAGS) -Icontrol -DMT_PREFIX='"$(PREFIX)"' $(CFLAGS_ALL) -c $< -o $@

$(B)/obj/tests/%.cc.o: tests/%.cc
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CXX     $<")
	$(Q)$(CXX) $(CPPFLAGS) -Ipreload -Ianalyzer -I. -Itests -DMT_BUILD_DIR='"$(abspath $(B))"' \
		-DMT_SOURCE_DIR='"$(CURDIR)"' $(CXXFLAGS_ALL) -c $< -o $@

# Anonymous version node: a named one would not match the callers' malloc@GLIBC and catch nothing.
$(B)/export.map: preload/export.map.in include/memtrace/hooks.def include/memtrace/cuda.def
	@mkdir -p $(@D)
	$(Q)$(CC) -E -P -x c -Iinclude $< -o $@

$(B)/libmemtrace.so: $(SHIM_OBJ) $(B)/export.map
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CC) $(SANFLAGS) $(SHIM_LINK) -Wl,--version-script=$(B)/export.map $(SHIM_OBJ) -o $@

$(B)/memtrace-report: $(REPORT_OBJ)
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) $^ $(REPORT_LIBS) -o $@

$(B)/memtrace: $(DRIVER_OBJ)
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CC) $(SANFLAGS) $(LDFLAGS) $^ $(DRIVER_LIBS) -o $@

$(B)/unit-tests: $(UNIT_OBJ)
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CXX) $(SANFLAGS) $^ $(REPORT_LIBS) -lncurses -lgtest -lgtest_main -lpthread -o $@

$(B)/integration-tests: $(INTEGRATION_OBJ)
	$(if $(Q),@echo "  LINK    $@")
	$(Q)$(CXX) $(SANFLAGS) $^ $(REPORT_LIBS) -lgtest -lgtest_main -lpthread -o $@

$(B)/programs/%.so: tests/programs/%.so.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O1 -g $(CWARN) -fPIC -shared $< -o $@ -lpthread -ldl

$(B)/programs/%.so: tests/support/%.so.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O1 -g $(CWARN) -fPIC -shared $< -o $@ -lpthread -ldl

$(B)/programs/%: tests/programs/%.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O1 -g $(CWARN) $< -o $@ -lpthread -ldl

$(B)/programs/%: tests/programs/%.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) -std=gnu++17 -O1 -g $(WARN) $< -o $@ -lpthread -ldl

$(B)/bench/%: tests/bench/%.c $(wildcard tests/bench/*.h)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) -std=gnu11 -O2 -g -fno-builtin $(CWARN) $< -o $@ -lpthread

$(B)/bench/%.so: tests/bench/%.so.cc
	@mkdir -p $(@D)
	$(Q)$(CXX) $(CPPFLAGS) -std=gnu++17 -O2 -g $(WARN) -fPIC -shared $< -o $@

BENCHES := $(patsubst tests/bench/%.c,$(B)/bench/%,$(wildcard tests/bench/*.c)) \
	$(patsubst tests/bench/%.so.cc,$(B)/bench/%.so,$(wildcard tests/bench/*.so.cc))

.PHONY: programs
programs: $(PROGRAMS) $(PROGRAM_SOS) $(BENCHES) ## build the programs that tests record

# ---- checks ------------------------------------------------------------------------------------

CHECKS := check-layers check-exports check-size check-docs

.PHONY: check check-unit check-integration check-long deps-test
deps-test:
	$(Q)scripts/install-deps test build

check: deps-test ## build and run all tests; ends with one line of totals
	$(Q)B=$(B) MAKE='$(MAKE)' scripts/run-checks

.PHONY: tests
tests: all programs $(B)/unit-tests $(B)/integration-tests ## build everything that check runs

check-unit: $(B)/unit-tests ## unit tests only; T='Suite.*' for some
	$(Q)$(B)/unit-tests $(if $(T),--gtest_filter='$(T)')

check-integration: all programs $(B)/integration-tests ## whole runs only; T='Suite.*' for some
	$(Q)$(B)/integration-tests $(if $(T),--gtest_filter='$(T)')

check-long: deps-test ## the acceptance lines at full numbers (long); see docs/RELIABILITY.md
	$(Q)B=$(B) MAKE='$(MAKE)' scripts/run-checks --long

.PHONY: check-layers check-exports check-size check-docs
check-layers: ## includes go only where scripts/layers.txt lets them
	$(Q)scripts/check-layers

check-exports: $(B)/libmemtrace.so ## the shim exports hooks.def and the marks, and needs only libc
	$(Q)scripts/check-exports $(B)/libmemtrace.so

check-size: ## files and functions keep to their ceilings
	$(Q)scripts/check-size

check-docs: ## generated tables in the documents are fresh
	$(Q)scripts/gen-docs --check

.PHONY: docs
docs: ## regenerate the tables in the documents
	$(Q)scripts/gen-docs

# Sanitizer variants in folders of their own; unit tests only: a sanitizer's own malloc and ours
# cannot both come first.
.PHONY: asan tsan
asan: deps-test ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	$(Q)$(MAKE) --no-print-directory B=$(B)/asan OPT=-O1 \
		SANFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=undefined' $(B)/asan/unit-tests
	$(Q)ASAN_OPTIONS=detect_leaks=0 $(B)/asan/unit-tests --gtest_brief=1

tsan: deps-test ## unit tests under ThreadSanitizer
	$(Q)$(MAKE) --no-print-directory B=$(B)/tsan OPT=-O1 SANFLAGS=-fsanitize=thread $(B)/tsan/unit-tests
	$(Q)$(B)/tsan/unit-tests --gtest_brief=1

.PHONY: verdicts
verdicts: $(B)/unit-tests ## how often leak verdicts are right on the labelled corpus: docs/VERDICTS.md
	$(Q)MT_CORPUS_SEEDS=60 $(B)/unit-tests --gtest_brief=1 --gtest_filter='Corpus.*'

FUZZ_SECONDS ?= 20
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*_fuzz.c))
.PHONY: fuzz
fuzz: ## a short run of every fuzzer
	$(Q)scripts/install-deps dev build
	$(Q)B=$(B) FUZZ_SECONDS=$(FUZZ_SECONDS) scripts/fuzz $(FUZZERS)

.PHONY: bench
bench: all $(BENCHES) ## costs beside untraced and other tools (15 minutes); BENCH="pairs python" for some
	$(Q)scripts/install-deps bench build
	$(Q)B=$(B) scripts/bench $(if $(WRITE),--write $(WRITE))

# ---- the demo ----------------------------------------------------------------------------------

.PHONY: demo
demo: ## install, build, record a real PyTorch run and print its report
	$(Q)scripts/install-deps demo build
	$(Q)$(MAKE) --no-print-directory all $(B)/programs/leaky_native.so
	@mkdir -p $(B)/demo
	cd $(B)/demo && LD_PRELOAD=$(abspath $(B))/libmemtrace.so $(CURDIR)/build/venv/bin/python \
		$(CURDIR)/tests/programs/train_demo.py $(abspath $(B))/programs/leaky_native.so
	$(B)/memtrace-report $(B)/demo/trace.bin

# ---- house keeping -----------------------------------------------------------------------------

FORMATTED := $(wildcard include/memtrace/*.h preload/*.[ch] preload/*/*.[ch] analyzer/*.[ch] \
	analyzer/*/*.[ch] control/*.[ch])
.PHONY: format lint
format: ## clang-format everything in C
	$(Q)scripts/install-deps dev build
	$(Q)clang-format-14 -i $(FORMATTED)

lint: ## compiler warnings as errors, and formatting, without changing anything
	$(Q)scripts/install-deps dev build
	$(Q)$(MAKE) --no-print-directory B=$(B)/lint W=1 all
	$(Q)clang-format-14 --dry-run -Werror $(FORMATTED)

.PHONY: install uninstall
install: all ## into DESTDIR/PREFIX
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/memtrace \
		$(DESTDIR)$(PREFIX)/include/memtrace $(DESTDIR)$(PREFIX)/share/memtrace
	install -m 755 $(B)/memtrace $(B)/memtrace-report $(DESTDIR)$(PREFIX)/bin/
	install -m 755 $(B)/libmemtrace.so $(DESTDIR)$(PREFIX)/lib/memtrace/
	install -m 644 include/memtrace/memtrace.h $(DESTDIR)$(PREFIX)/include/memtrace/
	install -m 644 scripts/memtrace_marks.py $(DESTDIR)$(PREFIX)/share/memtrace/

uninstall: ## remove what install put there
	rm -f $(DESTDIR)$(PREFIX)/bin/memtrace $(DESTDIR)$(PREFIX)/bin/memtrace-report
	rm -rf $(DESTDIR)$(PREFIX)/lib/memtrace $(DESTDIR)$(PREFIX)/include/memtrace \
		$(DESTDIR)$(PREFIX)/share/memtrace

.PHONY: clean
clean: ## remove what was built (the virtual environment stays)
	rm -rf $(B)/obj $(B)/programs $(B)/bench $(B)/asan $(B)/tsan $(B)/lint $(B)/demo $(B)/libmemtrace.so \
		$(B)/memtrace $(B)/memtrace-report $(B)/unit-tests $(B)/integration-tests $(B)/*.json

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
