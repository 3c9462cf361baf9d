/*
 * The smallest helper: three blocks, one of them given back. `helpers` starts thousands of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "truth.h"

int main(int argc, char **argv)
{
	void *p = truth_keep(malloc((size_t)truth_argument(argc, argv, 1, 1001)));

	truth_keep(malloc(1002));
	truth_keep(malloc(1003));
	free(p);
	return 0;
}
