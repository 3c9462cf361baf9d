/*
 * A native extension with a bug, for the demo: every call keeps a scratch buffer and loses it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

static volatile unsigned int checksum;

/* Pretends to normalise a batch; `bytes` of scratch space are never given back. */
void leaky_normalise(size_t bytes);

void leaky_normalise(size_t bytes)
{
	unsigned char *scratch = malloc(bytes);

	if (!scratch)
		return;
	memset(scratch, 1, bytes);
	checksum += scratch[bytes / 2];
}
