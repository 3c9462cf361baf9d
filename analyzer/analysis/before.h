/*
 * What a process held when its recording began in mid-run.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYSIS_BEFORE_H
#define MEMTRACE_ANALYSIS_BEFORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "model/model.h"

#define BEFORE_PARTS 11

struct before {
	uint64_t bytes; /* in blocks, by the allocator's own count, and in other private mappings */
	bool known; /* `bytes` could be measured */
	struct before_part {
		const char *name; /* key in the report */
		uint64_t bytes;
		bool known;
	} parts[BEFORE_PARTS];
};

/* False: its recording began with it. */
bool before_of(const struct process *p, struct before *b);

/* What its libraries had of their own, the largest first: name and bytes; NULL after the last. *at is
 * NULL to begin with. */
const char *before_library(const struct process *p, const char **at, int *length, uint64_t *bytes);

#endif
