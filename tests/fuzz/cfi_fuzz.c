/*
 * Arbitrary bytes as a module's .eh_frame_hdr and .eh_frame: the interpreter must end, stay inside
 * its ranges and give a rule word. The first two bytes of the input say where to split it and which
 * address to ask for. The ranges lie at the end of a page with nothing behind it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "stack/cfi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mt_cfi cfi;
	uint8_t *copy;
	size_t split;

	if (size < 8)
		return 0;
	copy = malloc(size - 2); /* exact, so that a sanitizer sees the first byte beyond */
	if (!copy)
		return 0;
	memcpy(copy, data + 2, size - 2);
	split = data[0] * (size - 2) / 256;
	cfi.hdr = copy;
	cfi.hdr_end = copy + split;
	cfi.low = copy;
	cfi.high = copy + size - 2;
	for (unsigned int i = 0; i < 4; i++)
		mt_cfi_rule(&cfi, (uintptr_t)copy + data[1] * (i * 16 + 1), (int)(i & 1));
	free(copy);
	return 0;
}
