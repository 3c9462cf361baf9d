# The fakes that stand in for a GPU's software, in a folder of their own: tests put it on
# LD_LIBRARY_PATH. The names and version nodes are those of the real libraries.
#
# SPDX-License-Identifier: Apache-2.0

FAKE_DIR := $(B)/programs/cuda
FAKE_SRC := tests/support/cuda
FAKE_CC = $(CC) $(CPPFLAGS) -std=gnu11 -O1 $(WARN) -fPIC -shared
FAKES := $(addprefix $(FAKE_DIR)/,libcuda.so.1 libcudart.so.12 libcudart.so.13 libhidden.so libc10.so \
	libc10_cuda.so)

$(FAKE_DIR)/libcuda.so.1: $(FAKE_SRC)/driver.c $(FAKE_SRC)/driver_more.c $(FAKE_SRC)/driver_names.c $(FAKE_SRC)/driver.h
	@mkdir -p $(@D)
	$(Q)$(FAKE_CC) -fvisibility=hidden -Wl,-Bsymbolic -Wl,-soname,libcuda.so.1 $(filter %.c,$^) -o $@ -lpthread
	$(Q)ln -sf libcuda.so.1 $(@D)/libcuda.so

$(FAKE_DIR)/libcudart.so.%: $(FAKE_SRC)/runtime.c
	@mkdir -p $(@D)
	$(Q)echo 'libcudart.so.$* { global: cuda*; local: *; };' >$(@D)/cudart.$*.map
	$(Q)$(FAKE_CC) -Wl,-soname,libcudart.so.$* -Wl,--version-script=$(@D)/cudart.$*.map $< -o $@ -ldl

$(FAKE_DIR)/libhidden.so: $(FAKE_SRC)/runtime.c
	@mkdir -p $(@D)
	$(Q)$(FAKE_CC) -DRUNTIME_PRIVATE -Wl,-soname,libhidden.so $< -o $@ -ldl

$(FAKE_DIR)/libc10.so: $(FAKE_SRC)/c10.c
	@mkdir -p $(@D)
	$(Q)$(FAKE_CC) -Wl,-soname,libc10.so $< -o $@

$(FAKE_DIR)/libc10_cuda.so: $(FAKE_SRC)/c10_cuda.c $(FAKE_DIR)/libc10.so $(FAKE_DIR)/libcudart.so.12
	$(Q)$(FAKE_CC) -Wl,-soname,libc10_cuda.so -Wl,-rpath,'$$ORIGIN' $^ -o $@ -lpthread -ldl

PROGRAM_SOS += $(FAKES)

# The fake driver alone, for NVIDIA's own runtime: as scripts/install-deps laid it down, or the machine's
# toolkit. What is not there is not built, and its tests are skipped.
FAKE_DRIVER := $(B)/programs/driver/libcuda.so.1
$(FAKE_DRIVER): $(FAKE_DIR)/libcuda.so.1
	@mkdir -p $(@D)
	$(Q)ln -sf ../cuda/libcuda.so.1 $@

CUDART_12 := $(firstword $(wildcard build/cudart/12/nvidia/*/lib/libcudart.so.12))
CUDART_13 := $(firstword $(wildcard build/cudart/13/nvidia/*/lib/libcudart.so.13 /usr/local/cuda/lib64/libcudart.so.13))
CUDART_CC = $(CC) $(CPPFLAGS) -std=gnu11 -O1 -g $(CWARN) tests/support/cuda/cudart_calls.c

define CUDART_PROGRAM
$(B)/programs/cudart_dynamic_$(1): tests/support/cuda/cudart_calls.c $(FAKE_DRIVER)
	$$(Q)$$(CUDART_CC) $(CUDART_$(1)) -Wl,-rpath,$(abspath $(dir $(CUDART_$(1)))) -o $$@ -ldl
$(B)/programs/cudart_static_$(1): tests/support/cuda/cudart_calls.c $(FAKE_DRIVER)
	$$(Q)$$(CUDART_CC) $(dir $(CUDART_$(1)))libcudart_static.a -o $$@ -ldl -lpthread -lrt
PROGRAM_SOS += $(B)/programs/cudart_dynamic_$(1) \
	$(if $(wildcard $(dir $(CUDART_$(1)))libcudart_static.a),$(B)/programs/cudart_static_$(1))
endef
$(foreach v,12 13,$(if $(CUDART_$(v)),$(eval $(call CUDART_PROGRAM,$(v)))))
PROGRAM_SOS += $(FAKE_DRIVER)
