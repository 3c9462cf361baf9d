/*
 * Shared-memory objects: files of a memory file system, known by device and inode in whatever
 * process, and who maps them or has them open. Each is one object however many processes share it.
 *
 * A holder is a process that maps the object, or has a descriptor of it; the latter is sampled, so
 * what lies between two samples and is not mapped is inferred: an object that somebody maps later
 * was there all the time.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_SHM_H
#define MEMTRACE_ANALYZER_SHM_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct shm_object {
	uint32_t trace;
	uint64_t dev, inode;
	const char *name; /* as given to shm_open or memfd_create, in the model's arena; NULL */
	uint64_t bytes; /* of the file; of the largest mapping where that was not seen */
	uint64_t occupied; /* bytes of memory behind it when it was last seen open; 0: not seen */
	uint32_t creator; /* process; NO_ID: not seen */
	uint32_t site; /* where its content was allocated, in the creator; NO_ID */
	uint32_t first_use, use_count; /* in model->shm_uses, by time */
	int64_t start, end; /* INT64_MAX: a name was left behind */
	int64_t unlinked_at; /* INT64_MAX: was not seen */
	bool is_memfd;
};

struct shm_use {
	uint32_t object, process;
	int64_t from, to; /* first and last moment that it was mapped, or seen open */
	int64_t mapped_from, mapped_to; /* INT64_MAX, INT64_MIN: never */
	uint32_t descriptors; /* when they were last asked for */
	bool sampled; /* descriptors were asked for meanwhile; else `descriptors` means nothing */
	bool to_end; /* until the process ended */
};

#ifdef __cplusplus
}
#endif

#endif
