/*
 * What a process did to GPU memory: part of the model. Built by replay_gpu.c from the GPU records;
 * NULL in struct process where there are none. Bytes; times are ns since the trace's start.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_GPU_H
#define MEMTRACE_ANALYZER_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpu_site {
	uint32_t site; /* of the process, of the model from finish.c on */
	uint64_t bytes; /* live there then */
	uint64_t stranded; /* free bytes of mostly empty segments that it holds most of */
	uint32_t segments; /* of these */
};

/* One segment of memory taken from the driver, and the tensors in it. */
struct gpu_segment {
	uint64_t addr, size, used;
	uint32_t site; /* who took it */
	uint32_t first_block, block_count; /* in struct gpu_snapshot.blocks */
	bool is_mapping; /* of physical memory: what follows it may be of the same segment */
};

struct gpu_block {
	uint64_t addr, size;
	uint32_t site;
	bool old; /* it was there at the look before */
	bool is_rest; /* it begins in the segment before */
};

/* Segments and tensors of a device at one moment. */
struct gpu_snapshot {
	bool taken;
	int64_t time;
	uint64_t reserved, allocated; /* by the driver's calls; in tensors and direct use */
	uint64_t stranded; /* of the next, in mostly empty segments */
	uint64_t unusable; /* free, in segments that hold a live tensor: can't be given back */
	struct gpu_segment *segments;
	size_t segment_count;
	struct gpu_block *blocks; /* by address */
	size_t block_count;
	struct gpu_site *sites; /* by bytes, largest first */
	size_t site_count;
};

struct gpu_point {
	int64_t time;
	uint64_t reserved, allocated; /* the most until the next one */
	int64_t settled; /* since when, until the next one, this is so: */
	uint64_t tracked; /* all that the calls account for, of others too */
};

enum gpu_unattributed_from { GPU_FROM_NOBODY, GPU_FROM_PROGRAM, GPU_FROM_DRIVER };

struct gpu_device {
	uint32_t device; /* ordinal in the process; UINT32_MAX: not known */
	bool has_uuid, has_torch;
	uint8_t uuid[16];
	char *name; /* NULL: not known */
	uint64_t total; /* 0: not known */
	uint64_t live; /* taken from the driver now: device and managed, not borrowed */
	uint64_t pool_slack; /* held by the driver's pools beyond that, as last measured */
	uint64_t borrowed;
	uint64_t direct, direct_peak; /* live that is not PyTorch's, as of its last word */
	uint64_t torch_allocated, torch_reserved, torch_peak_allocated, torch_peak_reserved;
	uint64_t peak_reserved, peak_allocated;
	uint64_t used, all_used; /* the driver's numbers, plus one; 0: not known */
	uint64_t unattributed; /* plus one; 0: not known */
	enum gpu_unattributed_from from; /* who asked NVML; the program's word goes first */
	uint32_t ooms;
	struct gpu_snapshot last, worst; /* at its end or shutdown; with the most unusable */
	struct gpu_point *points;
	size_t point_count, point_room;
};

/* A pool that the program made of memory it has. */
struct gpu_heap {
	uint64_t addr, size, used; /* size 0: it is no more; used: at the last look */
	uint64_t device; /* as recorded, of the memory it is made of; 0: the host's, or not known */
	char *name; /* NULL: it has none */
};

struct gpu_process {
	struct gpu_device *devices;
	size_t device_count;
	struct gpu_heap *heaps;
	size_t heap_count, heap_room;
	uint64_t pinned, pinned_peak, registered, registered_peak;
	uint64_t pinned_power_of_two; /* of pinned: in blocks whose size is a power of two */
};

void gpu_process_free(struct gpu_process *g); /* accepts NULL */

#endif
