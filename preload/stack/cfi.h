/*
 * From a module's call-frame information to the one word that undoes a frame (rules.h). Reads
 * .eh_frame_hdr and .eh_frame in place and believes nothing in them: every read is inside the
 * ranges given, loops are bounded, and what cannot be expressed is "no information". So it may be
 * fed arbitrary bytes. No locks, no memory, no system calls; async-signal-safe.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CFI_H
#define MEMTRACE_PRELOAD_CFI_H

#include <stdint.h>

/* Where a module keeps it, as mapped. hdr NULL: nowhere. */
struct mt_cfi {
	const uint8_t *hdr, *hdr_end; /* .eh_frame_hdr, whole */
	const uint8_t *low, *high; /* readable bytes in which .eh_frame lies */
};

/*
 * The rule for the code at `ip`: a return address, or with `interrupted` the instruction a signal
 * found there. MT_RULE_NOINFO when there is none or it is beyond what a rule word can say. Costs
 * 70 to 110 ns on a warm cache.
 */
uint64_t mt_cfi_rule(const struct mt_cfi *cfi, uintptr_t ip, int interrupted);

#endif
