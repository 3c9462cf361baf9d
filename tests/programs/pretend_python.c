/*
 * Makes blocks while it stands in the Python frames of pretend_python.so: 40 of 1,000,000 bytes and
 * more at main:100+n and Model.step:200+n, each of a size of its own. Where argv[2] is "damaged" the
 * library's description of itself makes no sense.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

static void *volatile kept[40];

int main(int argc, char **argv)
{
	void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_GLOBAL) : NULL;
	void (*start)(void), (*at)(int, int);
	void *(*block)(size_t);
	uint64_t *words;

	if (!library)
		return 2;
	start = (void (*)(void))dlsym(library, "pretend_start");
	at = (void (*)(int, int))dlsym(library, "pretend_at");
	block = (void *(*)(size_t))dlsym(library, "pretend_block");
	words = dlsym(library, "_PyRuntime");
	if (argc > 2 && !strcmp(argv[2], "damaged"))
		words[36] = 500; /* where a frame's owner would stand */
	start();
	kept[0] = block(100); /* by which the shim learns of the interpreter */
	for (int i = 0; i < 40; i++) {
		at(i % 16, (i * 5) % 16);
		kept[i] = block(1000000 + (size_t)i * 1000);
	}
	return 0;
}
