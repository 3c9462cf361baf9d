/*
 * Stack bounds. See bounds.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "stack/bounds.h"

#include <errno.h>
#include <sys/auxv.h>
#include <sys/syscall.h>

#include "sys/sys.h"

#define PAGE ((uintptr_t)4096) /* no page is smaller */
#define MAIN_MAX ((uintptr_t)128 << 20) /* the kernel keeps that much below it free of mappings */
#define THREAD_MAX ((uintptr_t)1 << 30)

static uintptr_t main_thread; /* identity of the thread on the process's first stack; 0: none */

static uint32_t late; /* pid of a process whose main thread is yet to come by; 0: none */

void mt_bounds_late(uint32_t pid)
{
	late = pid;
}

void mt_bounds_init(void)
{
	if (mt_sys_gettid() == mt_sys_getpid())
		main_thread = mt_bounds_thread();
}

/*
 * Reading eight bytes of signal mask with an operation that does not exist: the kernel copies them
 * in first (-EFAULT when it can't) and then refuses the operation, so nothing ever changes. Only a
 * null pointer is no mask to it: the first page is never readable here.
 */
int mt_bounds_readable(uintptr_t address, uintptr_t size)
{
	uintptr_t last = (address + size - 1) & ~(PAGE - 1);

	for (uintptr_t page = address & ~(PAGE - 1);; page += PAGE) {
		if (!page || mt_sys4(SYS_rt_sigprocmask, -1, page, 0, 8) == -EFAULT)
			return 0;
		if (page == last)
			return 1;
	}
}

void mt_bounds_reset(struct mt_bounds *b)
{
	b->owner = mt_bounds_thread();
	b->page = 0;
	if (late && !main_thread && (uint32_t)mt_sys_gettid() == late &&
	    (uint32_t)mt_sys_getpid() == late)
		main_thread = b->owner;
	if (b->owner == main_thread) {
		/* The kernel puts these random bytes above the environment: above every frame. */
		b->high = getauxval(AT_RANDOM) & ~(uintptr_t)7;
		b->floor = b->high - MAIN_MAX;
		b->low = (uintptr_t)__builtin_frame_address(0);
		if (b->low < b->floor || b->low >= b->high)
			b->low = b->high; /* this runs on another stack */
		return;
	}
	/* The C library puts a thread's descriptor at the upper end of its stack, also when the
	 * program brought the stack. */
	b->high = b->owner & ~(uintptr_t)7;
	b->floor = b->high > THREAD_MAX ? b->high - THREAD_MAX : 0;
	b->low = b->high & ~(PAGE - 1);
}

int mt_bounds_extend(struct mt_bounds *b, uintptr_t address)
{
	uintptr_t page = address & ~(PAGE - 1);

	if (address < b->floor || address >= b->high)
		return 0;
	if (b->owner == main_thread) {
		b->low = address; /* the caller's frames are there, so it has been touched */
		return 1;
	}
	/* Down to the guard page, if there is one in between: then it is another stack. */
	while (b->low > page) {
		if (!mt_bounds_readable(b->low - PAGE, 1)) {
			b->floor = b->low;
			return 0;
		}
		b->low -= PAGE;
	}
	return 1;
}

MT_READS_STACKS int mt_bounds_load(struct mt_bounds *b, uintptr_t address, uintptr_t *word)
{
	uintptr_t page = address & ~(PAGE - 1);

	if (address % sizeof(*word))
		return -1;
	if (!(address >= b->low && address < b->high) && (page != b->page || !page)) {
		if (!mt_bounds_readable(address, sizeof(*word)))
			return -1;
		b->page = page;
	}
	*word = *(const uintptr_t *)address;
	return 0;
}
