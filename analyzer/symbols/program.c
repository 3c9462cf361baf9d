/*
 * See program.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/program.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gelf.h>

#include "util/strbuf.h"

static bool has_loader(Elf *elf)
{
	size_t count;
	GElf_Phdr h;

	if (elf_getphdrnum(elf, &count) != 0)
		return true; /* can't tell */
	for (size_t i = 0; i < count; i++)
		if (gelf_getphdr(elf, (int)i, &h) && h.p_type == PT_INTERP)
			return true;
	return false;
}

/* The machine that this program was built for, as ELF names it. */
static unsigned int own_machine(void)
{
	unsigned char start[20] = { 0 };
	int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return EM_NONE;
	if (read(fd, start, sizeof(start)) != (ssize_t)sizeof(start))
		start[18] = EM_NONE;
	close(fd);
	return start[18] | (unsigned int)start[19] << 8; /* e_machine */
}

static enum program_kind judge(int fd)
{
	enum program_kind kind = PROGRAM_UNKNOWN;
	struct stat st;
	GElf_Ehdr h;
	Elf *elf;

	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		return PROGRAM_UNKNOWN;
	if (st.st_mode & (S_ISUID | S_ISGID))
		return PROGRAM_PRIVILEGED;
	elf_version(EV_CURRENT);
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (elf && elf_kind(elf) == ELF_K_ELF && gelf_getehdr(elf, &h)) {
		if (h.e_machine != own_machine())
			kind = PROGRAM_OTHER_ARCHITECTURE;
		else if (!has_loader(elf))
			kind = PROGRAM_STATIC;
	}
	if (elf)
		elf_end(elf);
	return kind;
}

enum program_kind program_kind_of(const char *path, const char *sysroot)
{
	struct strbuf full = STRBUF_INIT;
	enum program_kind kind = PROGRAM_UNKNOWN;
	int fd;

	if (!path || *path != '/')
		return PROGRAM_UNKNOWN;
	strbuf_addf(&full, "%s%s", sysroot ? sysroot : "", path);
	fd = open(full.buf, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0) {
		kind = judge(fd);
		close(fd);
	}
	strbuf_release(&full);
	return kind;
}
