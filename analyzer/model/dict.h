/*
 * A process's dictionaries: what the ids in its records mean. An entry may come after the records
 * that use its id (another stream wrote it), so ids are looked up only when all is read.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_DICT_H
#define MEMTRACE_ANALYZER_DICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memtrace/events.h"
#include "util/arena.h"

struct dict_table {
	uint64_t base; /* ids below are the parent's */
	size_t count, room; /* by id - base */
	size_t filled; /* entries that were defined */
	char *items;
};

struct dict_node {
	uint32_t parent, frame; /* frame 0: not defined */
	uint32_t canon; /* 0 unknown, 1 being looked up, else canonical id + 2 */
};

struct dict_frame {
	uint64_t offset;
	uint32_t module;
	uint8_t flags;
	bool defined;
};

struct dict_module {
	uint32_t canon; /* index in the model's modules + 1; 0: not defined */
};

struct dict_string {
	const char *text; /* NULL: not defined */
	uint32_t len;
};

struct dict_code {
	const char *lines;
	uint32_t lines_len;
	uint32_t filename, name, first_line;
	uint32_t canon; /* index in the model's codes + 1 */
	uint8_t kind;
	bool defined;
};

struct dict_pynode {
	uint32_t parent, code; /* code 0: frames left out here (MEMTRACE_DEPTH) */
	uint32_t offset;
	uint32_t canon; /* as in dict_node */
	bool entry, defined;
};

struct dict {
	struct dict_table nodes, frames, modules, strings, codes, pynodes;
};

/* bases NULL: nothing is inherited. */
void dict_init(struct dict *d, const struct mt_ev_process *bases);
void dict_release(struct dict *d);

/* Add what a record defines, strings into the arena. False: an id or value can't be true. */
bool dict_add_node(struct dict *d, const struct mt_ev_node *e);
bool dict_add_frame(struct dict *d, const struct mt_ev_frame *e);
bool dict_add_module(struct dict *d, uint64_t id, uint32_t canon);
bool dict_add_string(struct dict *d, const struct mt_ev_string *e, struct arena *strings);
bool dict_add_code(struct dict *d, const struct mt_ev_code *e, struct arena *strings);
bool dict_add_pynode(struct dict *d, const struct mt_ev_pynode *e);

/* The entry, defined or not; NULL: no such id here. id is one of this process, not below base. */
static inline void *dict_entry(const struct dict_table *t, uint64_t id, size_t size)
{
	if (id < t->base || id - t->base >= t->count)
		return NULL;
	return t->items + (id - t->base) * size;
}

#endif
