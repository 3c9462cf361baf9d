/*
 * Memory got from the system without malloc: anonymous and shared mappings, partial unmaps,
 * mremap, brk, POSIX and System V shared memory, memfd. Prints what each kind must come to:
 *
 *   expect-kind kind=mmap allocations=… frees=… bytes=… live_bytes=…
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include "truth.h"

enum { PRIVATE_KIND, SHARED_KIND, KINDS };

static struct truth kinds[KINDS];
static size_t page;

static void *map(int kind, size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		abort();
	memset(p, 1, size);
	kinds[kind].allocations++;
	kinds[kind].bytes += (long)size;
	kinds[kind].live_bytes += (long)size;
	return p;
}

/* `whole`: the unmap ends the block; else it takes a part and the rest stays one. */
static void unmap(int kind, void *p, size_t size, int whole)
{
	if (munmap(p, size))
		abort();
	kinds[kind].frees += whole;
	kinds[kind].live_bytes -= (long)size;
}

static void *remap(int kind, void *p, size_t old_size, size_t size)
{
	p = mremap(p, old_size, size, MREMAP_MAYMOVE);
	if (p == MAP_FAILED)
		abort();
	kinds[kind].frees++;
	kinds[kind].allocations++;
	kinds[kind].bytes += (long)size;
	kinds[kind].live_bytes += (long)size - (long)old_size;
	return p;
}

static void private_mappings(void)
{
	char *p = map(PRIVATE_KIND, 8 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	unmap(PRIVATE_KIND, p, 8 * page, 1);
	p = map(PRIVATE_KIND, 16 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	unmap(PRIVATE_KIND, p + 14 * page, 2 * page, 0); /* its tail */
	unmap(PRIVATE_KIND, p, 2 * page, 0); /* and its head; 12 pages stay */
	p = map(PRIVATE_KIND, 10 * page, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	p = remap(PRIVATE_KIND, p, 10 * page, 50 * page);
	p = remap(PRIVATE_KIND, p, 50 * page, 5 * page);
	unmap(PRIVATE_KIND, p, 5 * page, 1);
	if (mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED)
		abort(); /* counts nothing */
}

static void shared_mappings(void)
{
	char name[64];
	int fd, id;
	void *p = map(SHARED_KIND, 6 * page, MAP_SHARED | MAP_ANONYMOUS, -1);

	unmap(SHARED_KIND, p, 6 * page, 1);
	snprintf(name, sizeof(name), "/memtrace-test-%d", (int)getpid());
	fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)(20 * page)))
		abort();
	(void)map(SHARED_KIND, 20 * page, MAP_SHARED, fd); /* stays */
	close(fd);
	shm_unlink(name);
	fd = memfd_create("memtrace-test", 0);
	if (fd < 0 || ftruncate(fd, (off_t)(3 * page)))
		abort();
	p = map(SHARED_KIND, 3 * page, MAP_SHARED, fd);
	unmap(SHARED_KIND, p, 3 * page, 1);
	close(fd);
	id = shmget(IPC_PRIVATE, 7 * page, 0600 | IPC_CREAT);
	p = id < 0 ? (void *)-1 : shmat(id, NULL, 0);
	if (p == (void *)-1)
		abort();
	kinds[SHARED_KIND].allocations++;
	kinds[SHARED_KIND].bytes += (long)(7 * page);
	shmctl(id, IPC_RMID, NULL);
	if (shmdt(p))
		abort();
	kinds[SHARED_KIND].frees++;
}

/* The break moves up and back: what a program does with it is memory of its own. */
static void breaks(void)
{
	char *old = sbrk(0);

	if (sbrk((intptr_t)(4 * page)) != old || sbrk(-(intptr_t)(4 * page)) == (void *)-1 ||
	    sbrk(0) != old)
		abort();
	kinds[PRIVATE_KIND].allocations++;
	kinds[PRIVATE_KIND].bytes += (long)(4 * page);
	kinds[PRIVATE_KIND].frees++;
}

int main(void)
{
	static const char *const names[KINDS] = { "mmap", "shm" };

	page = (size_t)sysconf(_SC_PAGESIZE);
	truth_begin();
	private_mappings();
	shared_mappings();
	breaks();
	truth_end();
	for (int k = 0; k < KINDS; k++)
		printf("expect-kind pid=%d kind=%s allocations=%ld frees=%ld bytes=%ld "
		       "live_bytes=%ld\n",
		       (int)getpid(), names[k], kinds[k].allocations, kinds[k].frees,
		       kinds[k].bytes, kinds[k].live_bytes);
	return 0;
}
