/*
 * What speaks against recording a program: the loader would not load the shim into it, or could
 * not. Reads the file the kernel would execute, looking through #! lines.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <elf.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "control.h"

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#else
#define OWN_MACHINE EM_NONE
#endif

/* The loader that PT_INTERP names; musl's can't load a library made for glibc. */
static const char *loader_verdict(int fd, const Elf64_Phdr *p)
{
	char name[256] = { 0 };

	if (pread(fd, name, sizeof(name) - 1, (off_t)p->p_offset) > 0 && strstr(name, "ld-musl"))
		return "it uses another C library than glibc (musl)";
	return NULL;
}

/* Without PT_INTERP there is no loader that could preload anything; unless it is the loader. */
static const char *elf_verdict(int fd, const char *path, const unsigned char *head, size_t have)
{
	const char *base = strrchr(path, '/');
	Elf64_Ehdr e;

	if (have < sizeof(e))
		return NULL;
	memcpy(&e, head, sizeof(e));
	if (head[EI_CLASS] != ELFCLASS64 || e.e_machine != OWN_MACHINE)
		return "it is for another architecture than the shim";
	for (unsigned int i = 0; i < e.e_phnum; i++) {
		off_t at = (off_t)(e.e_phoff + i * sizeof(Elf64_Phdr));
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), at) != (ssize_t)sizeof(p))
			return NULL;
		if (p.p_type == PT_INTERP)
			return loader_verdict(fd, &p);
	}
	if (!strncmp(base ? base + 1 : path, "ld-linux", strlen("ld-linux")))
		return NULL;
	return "it is statically linked";
}

/* Where the kernel changes privileges at exec, the loader ignores LD_PRELOAD. */
static const char *privilege_verdict(int fd)
{
	struct statvfs fs;
	struct stat st;
	char cap[64];

	if (fstat(fd, &st) < 0 || (fstatvfs(fd, &fs) == 0 && (fs.f_flag & ST_NOSUID)) ||
	    prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
		return NULL;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    (st.st_mode & S_ISGID && st.st_mode & S_IXGRP && st.st_gid != getgid()))
		return "it runs with other privileges than yours (setuid or setgid)";
	if (getuid() && fgetxattr(fd, "security.capability", cap, sizeof(cap)) > 0)
		return "it runs with file capabilities";
	return NULL;
}

/* "#!/usr/bin/env -S A=1 python3 -u": the program that env would run, or env itself. */
static const char *script_program(char *line, char *found, size_t size)
{
	char *rest, *program = strtok_r(line, " \t", &rest), *word;
	const char *base = program ? strrchr(program, '/') : NULL;

	if (!base || strcmp(base, "/env") != 0)
		return program;
	do
		word = strtok_r(NULL, " \t", &rest);
	while (word && (*word == '-' || strchr(word, '=')));
	return word && find_program(word, found, size) == 0 ? found : program;
}

const char *why_not_traced(const char *path)
{
	char found[2][PATH_MAX]; /* two, as a found script may name the next by env as well */

	for (int depth = 0; depth < 6; depth++) { /* the kernel follows no more scripts */
		unsigned char head[512] = { 0 };
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		const char *why = NULL;
		ssize_t n;

		if (fd < 0)
			return NULL;
		n = read(fd, head, sizeof(head) - 1);
		if (n >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG)) {
			why = privilege_verdict(fd);
			why = why ? why : elf_verdict(fd, path, head, (size_t)n);
		}
		close(fd);
		if (n < 3 || head[0] != '#' || head[1] != '!')
			return why;
		head[strcspn((char *)head, "\n")] = '\0';
		path = script_program((char *)head + 2, found[depth % 2], sizeof(found[0]));
		if (!path)
			return NULL;
		if (path != found[depth % 2]) {
			snprintf(found[depth % 2], sizeof(found[0]), "%s", path);
			path = found[depth % 2];
		}
	}
	return NULL;
}
