/*
 * What NVML says of GPUs, asked from outside the traced program: who uses how much of which device.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_CONTROL_NVML_H
#define MEMTRACE_CONTROL_NVML_H

#include <stdint.h>
#include <sys/types.h>

/* A client of a device. Each number of bytes is one more than told; 0: not told. */
struct nvml_answer {
	uint64_t asked, answered; /* by the clock that nvml_start() was given */
	uint64_t own, all; /* bytes of that client, of all */
	uint32_t pid; /* as NVML numbers it: in its namespace, not always ours */
	uint32_t clients; /* of the device */
	uint8_t uuid[16];
};

struct nvml {
	pid_t helper; /* 0: none */
	int fd;
	int over; /* given up, for good */
	uint64_t heard; /* CLOCK_MONOTONIC ns: last */
	uint64_t rounds; /* over all devices, answered */
};

/*
 * Starts a process that loads NVML, if this machine has it, and asks it once in `interval` ns. The
 * library is closed source and may do anything: it may hang, crash, start programs. So it is never
 * loaded here, nor ever in the traced program. 0; -1 and n->over: it could not be started.
 */
int nvml_start(struct nvml *n, uint64_t interval, uint64_t (*clock)(void));

/* 1: the next answer; 0: none yet, or none any more (n->over). Does not wait. */
int nvml_next(struct nvml *n, struct nvml_answer *out);

/* Ends the helper. One that is stuck in a driver is left behind, to end when it can. */
void nvml_stop(struct nvml *n);

/*
 * Which number of the client in /proc is one of `ours`? It is looked for under each number that the
 * client has in a namespace (NSpid). 0: none: it is somebody else, or numbered by a namespace that is
 * not visible from here; *is_other: certainly somebody else.
 */
pid_t nvml_match(uint32_t client, int (*is_ours)(void *arg, pid_t number, pid_t in_proc), void *arg,
		 int *is_other);

#endif
