/*
 * A library that a program loads after memtrace has attached to it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>

void *plugin_take(size_t size);

void *plugin_take(size_t size)
{
	void *p = malloc(size); /* LINE: taken */

	*(char *)p = 1;
	return p;
}
