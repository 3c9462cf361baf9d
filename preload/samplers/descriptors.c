/*
 * Which memory files (shared tensors, memfd, /dev/shm) this process has descriptors of: such a file
 * stays in memory as long as one descriptor is open, though nobody maps it and no process's RSS has
 * it. A batch on its way from a DataLoader's worker is just that.
 *
 * Read from /proc/self/fd, for a hook on close() would cost every program more than this does.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <fcntl.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "core/clock.h"
#include "core/mem.h"
#include "memtrace/varint.h"
#include "out/file.h"
#include "out/stream.h"
#include "samplers/sampler.h"
#include "sys/fmt.h"
#include "sys/sys.h"

enum { FILES_MAX = 1024, BUCKETS = 2048, OPEN_MAX = 16384 };

struct held {
	uint64_t dev, inode, count, size, occupied;
};

struct work {
	uint16_t bucket[BUCKETS]; /* index + 1 in files[] */
	struct held files[FILES_MAX];
	uint32_t count;
	uint64_t open, left_out;
	char entries[4096]; /* of the folder */
	uint8_t out[FILES_MAX * 20]; /* five varints of usual size; what does not fit is left out */
};

static struct work *work; /* scratch, kept: a forked child has its own by copy-on-write */
static int busy;
static int said; /* a list that was not empty: an empty one is news then */

static void add_file(struct work *w, const struct stat *st)
{
	uint64_t hash = (st->st_ino ^ (uint64_t)st->st_dev << 40) * UINT64_C(0x9e3779b97f4a7c15);
	size_t at = hash >> 53;
	struct held *h;

	for (; w->bucket[at]; at = (at + 1) % BUCKETS) {
		h = &w->files[w->bucket[at] - 1];
		if (h->inode == st->st_ino && h->dev == st->st_dev) {
			h->count++;
			return;
		}
	}
	if (w->count == FILES_MAX) {
		w->left_out++;
		return;
	}
	h = &w->files[w->count++];
	w->bucket[at] = (uint16_t)w->count;
	*h = (struct held){ st->st_dev, st->st_ino, 1, (uint64_t)st->st_size,
			    (uint64_t)st->st_blocks * 512 };
}

static void look_at(struct work *w, const char *name)
{
	const char *digits = name;
	struct statfs fs;
	struct stat st;
	int fd = (int)mt_parse_number(&digits, 10);

	if (*digits || digits == name)
		return;
	w->open++;
	if (mt_sys_fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (st.st_ino == mt_file.inode && st.st_dev == mt_file.dev) ||
	    mt_sys2(SYS_fstatfs, fd, &fs) < 0)
		return;
	if ((uint32_t)fs.f_type == TMPFS_MAGIC || (uint32_t)fs.f_type == HUGETLBFS_MAGIC)
		add_file(w, &st);
}

static void read_folder(struct work *w, int folder)
{
	long n;

	while (w->open < OPEN_MAX &&
	       (n = mt_sys3(SYS_getdents64, folder, w->entries, sizeof(w->entries))) > 0)
		/* struct linux_dirent64: its length at 16, the name at 19 */
		for (long at = 0; at + 19 < n;) {
			uint16_t length;

			memcpy(&length, w->entries + at + 16, sizeof(length));
			if (!length)
				return;
			look_at(w, w->entries + at + 19);
			at += length;
		}
}

static uint32_t encode(struct work *w)
{
	uint8_t *p = w->out;

	for (uint32_t i = 0; i < w->count; i++) {
		const struct held *h = &w->files[i];

		if (p + 50 > w->out + sizeof(w->out)) { /* a varint takes 10 bytes at most */
			w->left_out += h->count;
			continue;
		}
		p = mt_put_varint(p, h->dev);
		p = mt_put_varint(p, h->inode);
		p = mt_put_varint(p, h->count);
		p = mt_put_varint(p, h->size);
		p = mt_put_varint(p, h->occupied);
	}
	return (uint32_t)(p - w->out);
}

void mt_sampler_descriptors(struct mt_thread *t)
{
	uint64_t now = mt_clock_now();
	int folder;

	if (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
		return;
	folder = mt_sys_open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
	if (folder >= 0 && !work)
		work = mt_mem_map((sizeof(*work) + 4095) & ~(size_t)4095);
	if (folder >= 0 && work) {
		memset(work->bucket, 0, sizeof(work->bucket));
		work->count = 0;
		work->open = work->left_out = 0;
		read_folder(work, folder);
	}
	if (folder >= 0)
		mt_sys_close(folder);
	if (folder >= 0 && work && (work->count || work->left_out || said)) {
		said = work->count != 0;
		MT_EMIT(t, descriptors, .time = now, .open = work->open - 1, /* our own one */
			.left_out = work->left_out,
			.files = { (const char *)work->out, encode(work) });
	}
	__atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

void mt_sampler_descriptors_child(void)
{
	busy = 0;
}

void mt_sampler_descriptors_forget(void)
{
	work = NULL;
	busy = said = 0;
}
