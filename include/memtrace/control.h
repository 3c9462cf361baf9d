/*
 * The control page: how `memtrace attach`, `detach`, `mark` and `status` reach a process that has the
 * shim. The process makes it (a memfd named MT_CONTROL_NAME, mode 0600, sealed so that it can't
 * shrink under its user) and keeps one descriptor of it, high and close-on-exec. Whoever may open
 * /proc/PID/fd/N maps it: the same user, or root, from any pid namespace that sees the process. No
 * ptrace, no file in any folder, nothing left when the process ends, however it ends.
 *
 * A controller takes flock(LOCK_EX) on its own descriptor, reads `answered`, fills the request and
 * its check for number answered + 1, stores that number, and MT_CONTROL_CALL in `word`. The first
 * hook that any thread comes to sees the word, does what is asked, and stores `result` and then
 * `answered`. So a process that is silent answers at its next event; nothing in it waits. The
 * controller keeps the lock until it has the answer, or takes the request back by setting its
 * number to `answered`.
 *
 *	DORMANT --ARM--> RECORDING --DISARM, deadline, last event before it--> DRAINING --> DORMANT
 *	   |                                                                       ^
 *	   +-- OFF: this process can't record        garbage in the page ---------+
 *
 * DRAINING: nothing is recorded any more, but some thread is still inside a hook; the next event
 * after that lets go of the rest. The shim reads nothing of the page but `word` and, when that is
 * not what it put there, the request. One that does not fit together, or another word, disarms the
 * process, and `self` is written anew. MT_CONTROL_CALL without a new request asks for nothing: a
 * forked child that still has its parent's page (no fork handler ran) then makes its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_PAGE_H
#define MEMTRACE_CONTROL_PAGE_H

#include <stddef.h>
#include <stdint.h>

#include "memtrace/format.h"

#define MT_CONTROL_NAME "memtrace-control" /* /proc/PID/fd/N leads to "/memfd:" of it */
#define MT_CONTROL_MAGIC "MTCONTRL" /* 8 bytes, no terminating zero */
#define MT_CONTROL_VERSION 1u
#define MT_CONTROL_TEXT 4096u

enum mt_control_command {
#define MT_COMMAND(NAME, name, number, help) MT_CONTROL_##NAME = number,
#include "memtrace/control.def"
#undef MT_COMMAND
};

enum mt_control_state {
	MT_CONTROL_DORMANT = 1,
	MT_CONTROL_RECORDING = 2,
	MT_CONTROL_DRAINING = 3,
	MT_CONTROL_OFF = 4, /* for good; see `result` */
	MT_CONTROL_LEFT =
		5, /* nothing answers here any more: the shim was loaded to record, and did */
};

/* request.flags */
enum mt_control_flags {
	MT_CONTROL_TREE = 1, /* ARM: children that are made from now on record as well */
	MT_CONTROL_JOIN = 2, /* ARM: text has MEMTRACE_TRACE=..., the trace to be part of */
};

#define MT_CONTROL_CALL 0x6d746361u /* in `word`: there is a request */

/* Why a process stopped recording: mt_control_self.ended. */
enum mt_control_ended {
	MT_CONTROL_NOT_ENDED = 0,
	MT_CONTROL_ASKED = 1, /* DISARM */
	MT_CONTROL_DEADLINE = 2,
	MT_CONTROL_GARBAGE = 3,
};

/* Memory of the process when recording began, as the controller read it just before; each value is
 * one more than measured, 0: not measured. */
struct mt_control_before {
	uint64_t anon; /* bytes resident and private: RssAnon */
	uint64_t swap; /* VmSwap */
	uint64_t file; /* RssFile */
	uint64_t shmem; /* RssShmem */
	uint64_t heap; /* resident, of the segment that brk moves */
	uint64_t stacks; /* resident, of stacks of threads as far as they can be told */
	uint64_t libraries; /* resident and private, of mapped files: data of libraries */
	uint64_t reserved;
};

struct mt_control_request {
	uint32_t check; /* mt_control_check() */
	uint32_t number; /* answered + 1: asked; answered: nothing is asked */
	uint32_t command; /* enum mt_control_command */
	uint32_t flags; /* enum mt_control_flags */
	uint64_t until_ns; /* ARM: CLOCK_MONOTONIC when recording is to end; 0: not by itself */
	uint32_t text_bytes; /* of `text`, in use */
	uint32_t reserved;
	struct mt_control_before before; /* ARM */
};

/* What the process says of itself; it keeps a copy of its own. */
struct mt_control_self {
	uint32_t word; /* atomic; all that hooks read. 0: every call is looked at */
	uint32_t version;
	char magic[8];
	uint32_t bytes; /* sizeof(struct mt_control) */
	uint32_t pid; /* as it sees itself */
	uint64_t start; /* field 22 of /proc/PID/stat; 0 in a forked child: not looked up */
	char boot_id[40];

	uint32_t answered; /* atomic; stored last: number of the last request that was served */
	int32_t result; /* of it: 0 or -errno */
	uint32_t state; /* atomic; enum mt_control_state */
	uint32_t ended; /* enum mt_control_ended, of the last recording */
	uint32_t recordings; /* how often recording began */
	uint32_t proc; /* number in the trace */
	uint32_t mode; /* as MEMTRACE_MODE: 0 full, 1 sample */
	uint32_t tree; /* children record as well */
	uint64_t since_ns; /* CLOCK_REALTIME when recording began */
	uint64_t until_ns; /* CLOCK_MONOTONIC; 0 */
	uint8_t trace_id[MT_TRACE_ID_BYTES]; /* of the trace; all zero: none */
	uint8_t reserved[120];
};

struct mt_control {
	struct mt_control_self self;
	struct mt_control_request request; /* the controller's */
	uint8_t reserved0[4096 - 256 - sizeof(struct mt_control_request)];

	char text[MT_CONTROL_TEXT]; /* the controller's; not terminated */
	char token[MT_CONTROL_TEXT]; /* what children join the trace by; its end is the path */
	char why[512]; /* of a result that is not 0: one clause */
	uint8_t reserved1[4096 - 512];
};

MT_STATIC_ASSERT(sizeof(struct mt_control_self) == 256, "no padding");
MT_STATIC_ASSERT(offsetof(struct mt_control, text) == 4096, "texts begin on pages");
MT_STATIC_ASSERT(sizeof(struct mt_control) == 4 * 4096, "whole pages");

/* FNV-1a over the request behind `check`, and its text. What is left of an older request, or of a
 * stray store, does not fit. text_bytes must be at most MT_CONTROL_TEXT. */
static inline uint32_t mt_control_check(const struct mt_control_request *r, const char *text)
{
	const uint8_t *p = (const uint8_t *)r;
	uint32_t hash = 2166136261u;

	for (size_t i = offsetof(struct mt_control_request, number); i < sizeof(*r); i++)
		hash = (hash ^ p[i]) * 16777619u;
	for (uint32_t i = 0; i < r->text_bytes; i++)
		hash = (hash ^ (uint8_t)text[i]) * 16777619u;
	return hash;
}

#endif
