/*
 * The one file that knows libunwind. See libunwind.h.
 *
 * It is loaded by dlopen with RTLD_LOCAL and found by dlsym, never linked: as a dependency of a
 * preloaded library it would stand before libgcc in the search order and take over _Unwind_* of
 * every program. No header of its is needed either: what is called here has had the same names and
 * sizes since libunwind.so.8 exists, and its opaque structs get far more room than they ask for.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/libunwind.h"

#include <dlfcn.h>
#include <stddef.h>

enum { REGISTER_SP = 7, REGISTER_IP = 16, CACHE_NONE = 0, OWN_FRAMES_MAX = 16 };

#define CONTEXT_BYTES (MT_LIBUNWIND_SCRATCH_BYTES / 2)

static struct {
	int (*get_context)(void *context);
	int (*init_local)(void *cursor, void *context);
	int (*step)(void *cursor);
	int (*get_register)(void *cursor, int which, uintptr_t *value);
	int (*set_caching)(void *space, int policy);
	void **local_space;
} lib;

int mt_libunwind_open(void)
{
#if defined(__x86_64__)
	static const struct {
		const char *name;
		void *to;
	} names[] = {
		{ "_Ux86_64_getcontext", &lib.get_context },
		{ "_ULx86_64_init_local", &lib.init_local },
		{ "_ULx86_64_step", &lib.step },
		{ "_ULx86_64_get_reg", &lib.get_register },
		{ "_ULx86_64_set_caching_policy", &lib.set_caching },
		{ "_ULx86_64_local_addr_space", &lib.local_space },
	};
	void *handle = dlopen("libunwind.so.8", RTLD_NOW | RTLD_LOCAL);

	if (!handle)
		return -1;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		void *found = dlsym(handle, names[i].name);

		if (!found)
			return -1;
		*(void **)names[i].to = found;
	}
	/* Its cache outlives a module whose place another one takes, and has a lock. */
	lib.set_caching(*lib.local_space, CACHE_NONE);
	return 0;
#else
	return -1;
#endif
}

enum mt_libunwind_end mt_libunwind_walk(void *scratch, uintptr_t sp, uintptr_t *ip, uint32_t room,
					uint32_t *count)
{
	void *context = scratch, *cursor = (char *)scratch + CONTEXT_BYTES;
	uintptr_t at = 0, address;
	unsigned int own = 0;
	int stepped;

	*count = 0;
	if (lib.get_context(context) || lib.init_local(cursor, context) < 0)
		return MT_LIBUNWIND_NOWHERE;
	for (;;) {
		if (lib.get_register(cursor, REGISTER_IP, &address) < 0 ||
		    lib.get_register(cursor, REGISTER_SP, &at) < 0)
			return *count ? MT_LIBUNWIND_ERROR : MT_LIBUNWIND_NOWHERE;
		if (*count || at == sp) {
			if (!address)
				return MT_LIBUNWIND_LAST;
			if (*count == room)
				return MT_LIBUNWIND_ROOM;
			ip[(*count)++] = address;
		} else if (++own > OWN_FRAMES_MAX) {
			return MT_LIBUNWIND_NOWHERE;
		}
		stepped = lib.step(cursor);
		if (stepped <= 0)
			break;
	}
	if (!*count)
		return MT_LIBUNWIND_NOWHERE;
	return stepped < 0 ? MT_LIBUNWIND_ERROR : MT_LIBUNWIND_LAST;
}
