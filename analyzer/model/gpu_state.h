/*
 * GPU memory during the replay of a process: replay_gpu.c, and gpu_snapshot.c which lays tensors
 * over segments.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_GPU_STATE_H
#define MEMTRACE_ANALYZER_GPU_STATE_H

#include "model/gpu.h"
#include "model/replay.h"

/* Memory of the driver at an address: a block of its own, or a mapping of physical memory. */
struct gpu_range {
	uint64_t addr, size;
	uint64_t device, context; /* as recorded: device is the ordinal plus one */
	uint32_t site, flags;
	uint32_t physical; /* index; NO_ID: a block */
	uint8_t kind;
};

struct gpu_physical {
	uint64_t handle;
	int64_t refs, maps;
	bool imported, gone;
	struct gpu_range range; /* without address */
};

struct gpu_given {
	bool is_fresh, found;
	struct gpu_range range;
};

struct gpu_pool {
	uint64_t pool, device, slack;
};

struct gpu_pin {
	uint64_t addr, size;
	uint32_t site; /* who registered it; a site without allocations */
};

struct gpu_state {
	struct gpu_process *out;
	uint64_t last_look; /* units: of the last snapshot */
	VEC(struct gpu_range) ranges; /* by address */
	VEC(struct gpu_physical) physical;
	size_t physical_first; /* all before it are gone */
	VEC(struct gpu_given) given; /* by stream */
	VEC(struct gpu_pool) pools;
	VEC(struct gpu_pin) pins;
};

struct gpu_device *gpu_device_of(struct gpu_state *g, uint64_t device);
uint64_t gpu_reserved(const struct gpu_device *d);
uint64_t gpu_allocated(const struct gpu_device *d);
void gpu_note(struct replay *r, struct gpu_device *d); /* peaks, timeline */

/* PyTorch said what it holds: the rest is others'. */
void gpu_settle(struct gpu_device *d);

/* Every device's present state becomes its last snapshot, and its worst if it is. */
void gpu_snapshot(struct replay *r, bool all_count);

#endif
