/*
 * The control page. See control.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/control.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "sys/sys.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

struct mt_control mt_control __attribute__((aligned(4096)));
struct mt_control_self mt_control_own;
void (*mt_on_control)(void);

static int page_fd = -1;
static struct stat page_is; /* the descriptor's number may be the program's by now */

/* A file that nobody can shorten under us; newer kernels want to be told that it is no program. */
static int page_file(void)
{
	unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = (int)mt_sys2(SYS_memfd_create, MT_CONTROL_NAME, flags | MFD_NOEXEC_SEAL);

	if (fd < 0)
		fd = (int)mt_sys2(SYS_memfd_create, MT_CONTROL_NAME, flags);
	if (fd < 0)
		return fd;
	mt_sys2(SYS_fchmod, fd, 0600);
	if (mt_sys2(SYS_ftruncate, fd, sizeof(mt_control)) < 0 ||
	    mt_sys3(SYS_fcntl, fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0) {
		mt_sys_close(fd);
		return -1;
	}
	return mt_sys_raise_fd(fd);
}

static void parents_close(void)
{
	struct stat st;

	if (page_fd >= 0 && mt_sys_fstat(page_fd, &st) == 0 && st.st_dev == page_is.st_dev &&
	    st.st_ino == page_is.st_ino)
		mt_sys_close(page_fd);
	page_fd = -1;
}

static void identify(uint32_t pid, uint64_t start)
{
	struct mt_control_self *s = &mt_control_own;

	memcpy(s->magic, MT_CONTROL_MAGIC, sizeof(s->magic));
	s->version = MT_CONTROL_VERSION;
	s->bytes = sizeof(mt_control);
	s->pid = pid;
	s->start = start;
	if (!s->boot_id[0])
		mt_sys_slurp("/proc/sys/kernel/random/boot_id", s->boot_id, sizeof(s->boot_id) - 3);
	s->answered = 0;
	s->result = 0;
}

int mt_control_children;

void mt_control_make(uint32_t pid, uint64_t start, int reachable)
{
	int share = MAP_SHARED, fd;

	parents_close();
	fd = reachable ? page_file() : -1;
	if (fd < 0)
		share = MAP_PRIVATE | MAP_ANONYMOUS;
	/* In place of the variable, or of the parent's page. If that fails there is no memory for
	 * anything, and a forked child must do with pages that it shares. */
	if (!mt_sys_mmap_at(&mt_control, sizeof(mt_control), share | MAP_FIXED, fd)) {
		if (fd >= 0)
			mt_sys_close(fd);
		fd = -1;
	}
	page_fd = fd;
	if (fd >= 0)
		mt_sys_fstat(fd, &page_is);
	identify(pid, start);
	mt_control_publish();
	__atomic_store_n(&mt_control.self.word, mt_light, __ATOMIC_RELEASE);
}

void mt_control_unmake(void)
{
	void *copy = mt_sys_mmap(sizeof(mt_control), PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	/* In one step: a hook must not find a page without a word. */
	if (copy) {
		memcpy(copy, &mt_control, sizeof(mt_control));
		((struct mt_control *)copy)->self.word = mt_light;
		mt_sys_call(SYS_mremap, (long)copy, sizeof(mt_control), sizeof(mt_control),
			    MREMAP_MAYMOVE | MREMAP_FIXED, (long)&mt_control, 0);
	}
	parents_close();
}

void mt_control_publish(void)
{
	size_t from = offsetof(struct mt_control_self, version);
	uint32_t answered = mt_control_own.answered;

	memcpy((char *)&mt_control.self + from, (char *)&mt_control_own + from,
	       offsetof(struct mt_control_self, answered) - from);
	from = offsetof(struct mt_control_self, result);
	memcpy((char *)&mt_control.self + from, (char *)&mt_control_own + from,
	       sizeof(mt_control_own) - from);
	/* Release: who sees the number sees what came of it. */
	__atomic_store_n(&mt_control.self.answered, answered, __ATOMIC_RELEASE);
}

void mt_control_set_light(uint32_t light)
{
	__atomic_store_n(&mt_light, light, __ATOMIC_RELAXED);
	__atomic_store_n(&mt_control.self.word, light, __ATOMIC_SEQ_CST);
}

void mt_control_attend(void)
{
	if (mt_on_control && !mt_tls.guard)
		mt_on_control();
}
