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
	$(Q)$(FAKE_CC) -Wl,-soname,libc10_cuda.so -Wl,-rpath,'$$ORIGIN' $^ -o $@ -lpthread

PROGRAM_SOS += $(FAKES)
