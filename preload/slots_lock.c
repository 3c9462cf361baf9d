/*
 * Who changes slots, and who forks: never both at once.
 *
 * While modules are looked at, ld.so's lock is held. A child that is forked just then finds it taken for
 * ever, by a thread that it does not have: glibc renews ld.so's other locks in a child, but not this one,
 * and the next exception or dlopen there would hang. So a fork waits until modules have been
 * looked at, and whoever is about to look at them lets forks pass first. Both waits have a bound.
 *
 * SPDX-License-Identifier: Apache-2.0
 */

#include "slots.h"
#include "sys/sys.h"

#define NAP_NS 500000
#define NAPS 1000 /* together half a second, far more than either takes */

static uint32_t busy; /* atomic; pid of who changes slots */
static uint32_t forking; /* atomic; threads between the beginning of a fork and its end */

int mt_slots_lock(int *was_left)
{
	uint32_t self = (uint32_t)mt_sys_getpid(), owner = __atomic_load_n(&busy, __ATOMIC_RELAXED);

	if (owner == self ||
	    /* Sequentially consistent, as in mt_slots_fork: one of the two sees the other. */
	    !__atomic_compare_exchange_n(&busy, &owner, self, 0, __ATOMIC_SEQ_CST,
					 __ATOMIC_RELAXED))
		return 0;
	*was_left |= owner != 0;
	return 1;
}

void mt_slots_unlock(void)
{
	__atomic_store_n(&busy, 0, __ATOMIC_SEQ_CST);
}

int mt_slots_lock_between_forks(int *was_left)
{
	for (int i = 0; i < NAPS; i++) {
		if (mt_slots_lock(was_left)) {
			if (!__atomic_load_n(&forking, __ATOMIC_SEQ_CST))
				return 1;
			mt_slots_unlock();
		}
		mt_sys_nap(NAP_NS);
	}
	return 0;
}

void mt_slots_fork(void)
{
	uint32_t self = (uint32_t)mt_sys_getpid();

	__atomic_fetch_add(&forking, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < NAPS && __atomic_load_n(&busy, __ATOMIC_SEQ_CST) == self; i++)
		mt_sys_nap(NAP_NS);
}

void mt_slots_forked(int child)
{
	if (child)
		__atomic_store_n(&forking, 0, __ATOMIC_RELAXED);
	else
		__atomic_fetch_sub(&forking, 1, __ATOMIC_SEQ_CST);
}
