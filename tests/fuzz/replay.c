/*
 * Runs the files of its arguments through a fuzz harness, where libFuzzer is not at hand.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay(const char *path)
{
	FILE *f = fopen(path, "rb");
	uint8_t *data = NULL;
	size_t size = 0, got;

	if (!f) {
		perror(path);
		return 1;
	}
	do {
		data = realloc(data, size + 65536);
		if (!data)
			return 1;
		got = fread(data + size, 1, 65536, f);
		size += got;
	} while (got);
	fclose(f);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	return 0;
}

int main(int argc, char **argv)
{
	int failed = 0;

	for (int i = 1; i < argc; i++)
		failed |= replay(argv[i]);
	printf("%d inputs replayed\n", argc - 1);
	return failed;
}
