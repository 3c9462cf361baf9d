/*
 * The functions behind the hooks. See real.h. RTLD_NEXT rather than libc's __libc_malloc: another
 * allocator may lie between. dlsym of a symbol that exists does not allocate (glibc 2.36); if one
 * ever does, core/bootstrap.c serves it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/real.h"

#include <dlfcn.h>
#include <errno.h>

struct mt_real mt_real;

enum need { OPTIONAL, REQUIRED };

static const struct {
	const char *name;
	size_t offset;
	enum need need;
} entries[] = {
#define MT_HOOK(family, name, result, parameters, need)                                            \
	{ #name, offsetof(struct mt_real, name), need },
#include "memtrace/hooks.def"
#undef MT_HOOK
};

int mt_real_resolve(void)
{
	int result = 0;

	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		void *symbol = dlsym(RTLD_NEXT, entries[i].name);

		*(void **)((char *)&mt_real + entries[i].offset) = symbol;
		if (!symbol && entries[i].need == REQUIRED)
			result = -ENOSYS;
	}
	dlerror(); /* of those that are missing: the program must not find it */
	return result;
}
