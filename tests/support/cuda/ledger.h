/*
 * The fake driver's own account, printed by whoever asks for it: what the report is compared with.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef FAKE_CUDA_LEDGER_H
#define FAKE_CUDA_LEDGER_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define FAKE_DEVICES 2
enum fake_kind { FAKE_DEVICE, FAKE_MANAGED, FAKE_PINNED, FAKE_BORROWED, FAKE_KINDS };

struct fake_ledger {
	struct {
		uint64_t live, peak, taken, given; /* bytes, bytes, calls, calls */
	} kind[FAKE_DEVICES][FAKE_KINDS];
	uint64_t device_peak[FAKE_DEVICES]; /* device and managed together */
	uint64_t registered; /* bytes pinned by cuMemHostRegister now */
	uint64_t calls_in_child; /* made in a child of a process that had initialised CUDA */
	uint64_t asked; /* names asked of cuGetProcAddress */
	uint64_t asked_memory; /* of these, answered with one that takes or gives memory */
	uint64_t tables; /* private tables that were asked for, and refused */
};

/* Exported by the fake libcuda.so.1. */
struct fake_ledger *fake_cuda_ledger(void);

static inline void fake_print(const struct fake_ledger *l)
{
	for (int d = 0; d < FAKE_DEVICES; d++)
		printf("ledger device=%d live=%lu peak=%lu taken=%lu given=%lu managed=%lu "
		       "pinned=%lu "
		       "pinned_taken=%lu pinned_given=%lu borrowed=%lu registered=%lu "
		       "calls_in_child=%lu asked=%lu\n",
		       d, l->kind[d][FAKE_DEVICE].live, l->device_peak[d],
		       l->kind[d][FAKE_DEVICE].taken, l->kind[d][FAKE_DEVICE].given,
		       l->kind[d][FAKE_MANAGED].live, l->kind[d][FAKE_PINNED].live,
		       l->kind[d][FAKE_PINNED].taken, l->kind[d][FAKE_PINNED].given,
		       l->kind[d][FAKE_BORROWED].live, l->registered, l->calls_in_child, l->asked);
	fflush(stdout);
}

#endif
