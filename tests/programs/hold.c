/*
 * Allocates a known amount, says "held", waits until a file appears (or for ever), allocates more.
 * Arguments: file to wait for, blocks.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "truth.h"

static void work(long blocks)
{
	for (long i = 0; i < blocks; i++) {
		void *p = truth_malloc((size_t)(i % 700));

		if (i % 3)
			truth_free(p, (size_t)(i % 700));
	}
}

int main(int argc, char **argv)
{
	long blocks = truth_argument(argc, argv, 2, 1000);

	truth_begin();
	work(blocks);
	if (write(1, "held\n", 5) != 5)
		return 3;
	while (argc > 1 && access(argv[1], F_OK))
		usleep(2000);
	work(blocks);
	truth_end();
	return 0;
}
