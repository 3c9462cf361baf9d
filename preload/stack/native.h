/*
 * What the two ways of walking a native stack share: native.c and walk.c. Python's walk takes the
 * depth from here.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_NATIVE_H
#define MEMTRACE_PRELOAD_NATIVE_H

#include <stdint.h>

#include "core/thread.h"
#include "stack/bounds.h"
#include "stack/intern.h"
#include "stack/memo.h"
#include "stack/rules.h"

enum {
	MT_FRONT_IPS_BITS = 11,
	MT_FRONT_NODES_BITS = 12,
	MT_KEPT = 1024,
	MT_CHECKS = 3 * MT_KEPT,
	MT_DEPTH_MAX = 1024,
	MT_BUSY_VERIFY = 2, /* not busy, but stacks are to be verified */
};

/* Small and dense in front of the shared tables: those cost a TLB miss per frame. */
struct mt_front_ip {
	uint64_t key;
	uint64_t rule;
	uint64_t frame;
};

struct mt_front_node {
	uint64_t key; /* parent << 32 | frame */
	uint64_t id; /* 0: empty */
};

/* A frame of the last stack, outermost first. See native.c. */
struct mt_kept {
	uintptr_t slot; /* where its return address stands */
	uintptr_t ra;
	uintptr_t rbp; /* in the code at ra */
	uint64_t rule;
	uint32_t frame;
	uint32_t node;
	uint32_t checks; /* end of this record's in the list of checks */
	uint32_t need; /* rbp has a part in finding the frames further out */
};

struct mt_trail;
struct mt_verify_thread;

struct mt_native_cache {
	struct mt_bounds bounds;
	uint32_t epoch; /* of the modules */
	uint32_t
		busy; /* 1 or MT_BUSY_VERIFY; a signal handler that comes here while 1 gets no stack */
	uint32_t strict; /* this walk may not use what caches say of addresses */
	uint32_t count; /* of kept[] */
	uint32_t root; /* node the outermost kept frame hangs on */
	uint32_t walked; /* frames of the last stack that were not kept ones; for verify.c */
	struct mt_front_node nodes[1 << MT_FRONT_NODES_BITS];
	struct mt_front_ip ips[1 << MT_FRONT_IPS_BITS];
	uint32_t inner[MT_DEPTH_MAX], outer[MT_DEPTH_MAX]; /* scratch of walk.c */
	struct mt_check check[MT_CHECKS];
	struct mt_kept kept[MT_KEPT];
	struct mt_trail *trail; /* NULL but in verify.c's own walk */
	struct mt_verify_thread *verify;
	struct mt_memo memo;
};

extern unsigned int mt_native_depth; /* most frames kept */

static inline struct mt_ip mt_native_ip(struct mt_native_cache *c, struct mt_thread *t,
					uint64_t key)
{
	struct mt_front_ip *f =
		&c->ips[(key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - MT_FRONT_IPS_BITS)];
	struct mt_ip found;

	if (__builtin_expect(f->key == key && !c->strict, 1))
		return (struct mt_ip){ .rule = f->rule, .frame = (uint32_t)f->frame, .module = 1 };
	found = mt_rules_find(t, key);
	if (found.module && found.frame != UINT32_MAX && !c->strict)
		*f = (struct mt_front_ip){ key, found.rule, found.frame };
	return found;
}

static inline uint32_t mt_native_node(struct mt_native_cache *c, struct mt_thread *t,
				      uint32_t parent, uint32_t frame)
{
	uint64_t key = (uint64_t)parent << 32 | frame;
	struct mt_front_node *f =
		&c->nodes[(key * UINT64_C(0x9e3779b97f4a7c15)) >> (64 - MT_FRONT_NODES_BITS)];

	if (__builtin_expect(f->key != key || !f->id, 0)) {
		f->id = mt_node_intern(t, parent, frame);
		f->key = key;
	}
	return (uint32_t)f->id;
}

/*
 * The full walk, which remembers nothing: any stack, signal frames, any depth. `slot` and `rbp` as
 * in struct mt_caller. Returns the node, 0 when nothing could be written.
 */
uint32_t mt_native_walk(struct mt_native_cache *c, struct mt_thread *t, uintptr_t slot,
			uintptr_t rbp);

/* The same, from the registers a signal handler was called with: of the interrupted code. */
uint32_t mt_native_walk_context(struct mt_native_cache *c, struct mt_thread *t,
				const void *context);

/* Stacks of this thread are verified from now on. */
void mt_native_verify(struct mt_thread *t);

#endif
