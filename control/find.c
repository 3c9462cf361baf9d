/*
 * Finding things: our own parts, the program to run, and what speaks against recording it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "control.h"

#ifndef MT_PREFIX
#define MT_PREFIX "/usr/local"
#endif

int find_part(const char *name, char *out, size_t size)
{
	static const char *const places[] = { "%s/%s", "%s/../lib/memtrace/%s", "%s/../bin/%s" };
	char dir[PATH_MAX], raw[PATH_MAX + 64];
	ssize_t n = readlink("/proc/self/exe", dir, sizeof(dir) - 1);

	dir[n < 0 ? 0 : n] = '\0';
	if (strrchr(dir, '/'))
		*strrchr(dir, '/') = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		char *real;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(raw, sizeof(raw), places[i], dir, name);
#pragma GCC diagnostic pop
		real = realpath(raw, NULL);
		if (real && strlen(real) < size) {
			memcpy(out, real, strlen(real) + 1);
			free(real);
			return 0;
		}
		free(real);
	}
	snprintf(out, size, "%s/lib/memtrace/%s", MT_PREFIX, name);
	if (access(out, R_OK) == 0)
		return 0;
	complain("%s is neither beside this program nor in %s/lib/memtrace; build or install it",
		 name, MT_PREFIX);
	return -1;
}

static int try_program(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return errno;
	if (S_ISDIR(st.st_mode) || access(path, X_OK) < 0)
		return EACCES;
	return 0;
}

int find_program(const char *command, char *out, size_t size)
{
	const char *path = getenv("PATH");
	int result = ENOENT;

	if (strchr(command, '/')) {
		snprintf(out, size, "%s", command);
		return try_program(out);
	}
	for (path = path ? path : "/bin:/usr/bin"; path;) {
		const char *colon = strchr(path, ':');
		int length = colon ? (int)(colon - path) : (int)strlen(path);
		int err;

		snprintf(out, size, "%.*s%s%s", length, path, length ? "/" : "./", command);
		err = try_program(out);
		if (!err)
			return 0;
		if (err == EACCES)
			result = EACCES;
		path = colon ? colon + 1 : NULL;
	}
	return result;
}

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#else
#define OWN_MACHINE EM_NONE
#endif

/* The loader's name stands in PT_INTERP; without one there is no loader to preload anything. */
static const char *elf_verdict(int fd, const unsigned char *head, size_t have)
{
	const Elf64_Ehdr *e = (const Elf64_Ehdr *)(const void *)head;

	if (have < sizeof(*e) || head[EI_CLASS] != ELFCLASS64 || e->e_machine != OWN_MACHINE)
		return "it is for another architecture than the shim";
	for (unsigned int i = 0; i < e->e_phnum; i++) {
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), (off_t)(e->e_phoff + i * sizeof(p))) !=
		    (ssize_t)sizeof(p))
			return NULL;
		if (p.p_type == PT_INTERP)
			return NULL;
	}
	return "it is statically linked";
}

static const char *privilege_verdict(int fd)
{
	struct stat st;
	char cap[64];

	if (fstat(fd, &st) < 0)
		return NULL;
	if ((st.st_mode & S_ISUID && st.st_uid != getuid()) ||
	    (st.st_mode & S_ISGID && st.st_gid != getgid()))
		return "it runs with other privileges than yours (setuid or setgid)";
	if (getuid() && fgetxattr(fd, "security.capability", cap, sizeof(cap)) > 0)
		return "it runs with file capabilities";
	return NULL;
}

/* "#!/usr/bin/env python3" -> the program that will run; depth as the kernel's own limit. */
static const char *script_verdict(char *line, char *const argv[], int depth);

static const char *verdict(const char *path, char *const argv[], int depth)
{
	unsigned char head[512] = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	const char *why;
	ssize_t n;

	if (fd < 0 || depth > 5)
		return NULL;
	n = read(fd, head, sizeof(head) - 1);
	why = privilege_verdict(fd);
	if (!why && n > 4 && !memcmp(head, ELFMAG, SELFMAG))
		why = elf_verdict(fd, head, (size_t)n);
	close(fd);
	if (!why && n > 2 && head[0] == '#' && head[1] == '!')
		why = script_verdict((char *)head + 2, argv, depth + 1);
	return why;
}

static const char *script_verdict(char *line, char *const argv[], int depth)
{
	char found[PATH_MAX], *program, *argument, *rest;

	line[strcspn(line, "\n")] = '\0';
	program = strtok_r(line, " \t", &rest);
	argument = strtok_r(NULL, " \t", &rest);
	if (!program)
		return NULL;
	if (strlen(program) >= 4 && !strcmp(program + strlen(program) - 4, "/env")) {
		while (argument && (*argument == '-' || strchr(argument, '=')))
			argument = strtok_r(NULL, " \t", &rest);
		if (argument && find_program(argument, found, sizeof(found)) == 0)
			return verdict(found, argv, depth);
	}
	return verdict(program, argv, depth);
}

const char *why_not_traced(const char *path, char *const argv[])
{
	return verdict(path, argv, 0);
}
