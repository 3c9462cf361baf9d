/*
 * Marks from inside a traced program. Link nothing: the symbols are weak and each call is guarded,
 * so a program that uses them runs unchanged when the shim is not loaded. All are thread-safe,
 * never fail and keep no pointer; not to be called from signal handlers.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_MEMTRACE_H
#define MEMTRACE_MEMTRACE_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A phase begins, and the one before it ends; NULL or "": only that. */
void memtrace_phase(const char *name) __attribute__((weak));

/* Step n (a batch, an iteration) begins. */
void memtrace_step(uint64_t n) __attribute__((weak));

/* A point on the timeline. */
void memtrace_mark(const char *label) __attribute__((weak));

/* Nothing of this process is recorded until memtrace_resume(), except frees of known blocks. */
void memtrace_pause(void) __attribute__((weak));
void memtrace_resume(void) __attribute__((weak));

/* The guard. A macro does not expand itself again, so each names the function inside. */
#ifndef MEMTRACE_NO_GUARD
#define memtrace_phase(name) (memtrace_phase ? memtrace_phase(name) : (void)0)
#define memtrace_step(n) (memtrace_step ? memtrace_step(n) : (void)0)
#define memtrace_mark(label) (memtrace_mark ? memtrace_mark(label) : (void)0)
#define memtrace_pause() (memtrace_pause ? memtrace_pause() : (void)0)
#define memtrace_resume() (memtrace_resume ? memtrace_resume() : (void)0)
#endif

#ifdef __cplusplus
}
#endif
#endif
