/*
 * What the GPU section and its findings share.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_ANALYSIS_GPU_H
#define MEMTRACE_ANALYZER_ANALYSIS_GPU_H

#include "model/model.h"

struct gpu_use { /* of a card by a process */
	uint32_t process, card;
	const struct gpu_device *d;
};

/* All of them; the caller's to free(). */
size_t gpu_uses(const struct model *m, struct gpu_use **out);

struct gpu_sums {
	uint64_t reserved, allocated, cached_free, unusable;
};

/* At the process's end, or when its Python began to end. */
struct gpu_sums gpu_sums_of(const struct gpu_device *d);

#endif
