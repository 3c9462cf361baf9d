/*
 * Uses the marking API: two phases with three steps each, a mark, and a pause in which 1000 blocks
 * of 5000 bytes are made and given back. Runs the same without the shim.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdio.h>
#include <stdlib.h>

#include "memtrace/memtrace.h"

static void *volatile block;

/* Sizes that nothing else here uses tell the reports apart. */
static void churn(size_t size, int count)
{
	for (int i = 0; i < count; i++) {
		block = malloc(size);
		free(block);
	}
}

int main(void)
{
	static const char *const phases[] = { "load", "train" };

	for (int p = 0; p < 2; p++) {
		memtrace_phase(phases[p]);
		for (unsigned int step = 0; step < 3; step++) {
			memtrace_step(step);
			churn(3000 + (size_t)p, 100);
		}
	}
	memtrace_phase(NULL);
	memtrace_mark("half way");
	memtrace_pause();
	churn(5000, 1000);
	memtrace_resume();
	churn(7000, 10);
	return puts("done") < 0;
}
