/*
 * "Did you mean": the name that takes the fewest slips of the hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "cli/options.h"

#define LONGEST 40

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Letters inserted, left out, changed, or swapped with their neighbour. */
static size_t distance(const char *a, const char *b)
{
	size_t n = strlen(a), m = strlen(b);
	size_t d[LONGEST + 1][LONGEST + 1];

	if (n > LONGEST || m > LONGEST)
		return SIZE_MAX;
	for (size_t i = 0; i <= n; i++)
		d[i][0] = i;
	for (size_t j = 0; j <= m; j++)
		d[0][j] = j;
	for (size_t i = 1; i <= n; i++)
		for (size_t j = 1; j <= m; j++) {
			size_t change = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			d[i][j] = smaller(change, smaller(d[i - 1][j], d[i][j - 1]) + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d[i][j] = smaller(d[i][j], d[i - 2][j - 2] + 1);
		}
	return d[n][m];
}

const char *cli_nearest(const char *word, size_t count, const char *(*next)(size_t i))
{
	const char *best = NULL;
	size_t least = strlen(word) / 3 + 2; /* fewer: one slip in short words, more in long ones */

	for (size_t i = 0; i < count; i++) {
		const char *name = next(i);
		size_t slips = name ? distance(word, name) : SIZE_MAX;

		if (slips < least && slips < strlen(word)) {
			least = slips;
			best = name;
		}
	}
	return best;
}
