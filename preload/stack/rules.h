/*
 * How to leave a frame: one 64-bit word per return address, and the tables that find it. x86-64
 * only; elsewhere every address is "no information".
 *
 *   bits  0-3   kind
 *   bit   4     the CFA counts from RBP, else from RSP (as it is after the call returned)
 *   bit   5     RBP was saved at an offset from RBP itself, else from the CFA
 *   bit   6     RBP was saved; else the caller's is unchanged
 *   bits  8-23  int16: that offset / 8
 *   bits 24-31  int8: DEREF only, added after the load, / 8
 *   bits 32-63  int32: offset of the CFA
 *
 * STD: CFA = base + offset. DEREF: CFA = *(base + offset) + add (functions that realign their
 * stack). The return address is always at CFA - 8.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_RULES_H
#define MEMTRACE_PRELOAD_RULES_H

#include <stdint.h>

#include "core/thread.h"

enum mt_rule_kind {
	MT_RULE_NONE = 0, /* empty slot of a cache; never the rule of an address */
	MT_RULE_STD = 1,
	MT_RULE_DEREF = 2,
	MT_RULE_SIGNAL = 3, /* the kernel's signal frame: registers are in the ucontext at RSP */
	MT_RULE_END = 4, /* outermost frame by its own account */
	MT_RULE_NOINFO = 5,
};

#define MT_RULE_CFA_RBP (UINT64_C(1) << 4)
#define MT_RULE_SAVE_RBP (UINT64_C(1) << 5)
#define MT_RULE_SAVED (UINT64_C(1) << 6)

static inline unsigned int mt_rule_kind(uint64_t rule)
{
	return rule & 15;
}

static inline int64_t mt_rule_cfa_offset(uint64_t rule)
{
	return (int32_t)(rule >> 32);
}

static inline int64_t mt_rule_save_offset(uint64_t rule)
{
	return (int64_t)(int16_t)(rule >> 8) * 8;
}

static inline int64_t mt_rule_add(uint64_t rule)
{
	return (int64_t)(int8_t)(rule >> 24) * 8;
}

/* What is known of a code address. Written once, before it can be found. */
struct mt_ip {
	uint64_t rule;
	uint32_t frame; /* id of the FRAME written for it; 0: the shim's own code, never shown */
	uint32_t module; /* index of modules.h; 0: in no module, so it has to be looked at again */
};

/* An address that a signal interrupted has rules of its own: it is no return address. */
#define MT_IP_INTERRUPTED (UINT64_C(1) << 63)
#define MT_IP_BITS 57 /* of user space addresses; a larger one is no code */

/*
 * Rule and frame of an address; `key` is the return address, or the interrupted address with
 * MT_IP_INTERRUPTED. Writes MODULE and FRAME on first sight. frame UINT32_MAX: the frame could not
 * be written or the table is full; the rule is good nevertheless. Lock-free.
 */
struct mt_ip mt_rules_find(struct mt_thread *t, uint64_t key);

/* In a forked child. */
void mt_rules_child(void);
void mt_rules_forget(void);

/* Addresses known so far, for tests and for the shim's own accounting. */
uint32_t mt_rules_count(void);

#endif
