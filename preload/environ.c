/*
 * What children find in their environment: the shim's own LD_PRELOAD entry made absolute (a child
 * may run in another folder), and MEMTRACE_TRACE, which names the trace to join. The program's own
 * strings are not touched: `environ` gets a new vector in the shim's memory, as setenv would make.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/mem.h"
#include "init.h"
#include "out/file.h"
#include "out/process.h"
#include "sys/fmt.h"
#include "sys/sys.h"

static char *token; /* MEMTRACE_TRACE's value in the environment; NULL: there is none */
static char *token_number; /* the 8 digits in MEMTRACE_TRACE's value */

/* The absolute path of this library; empty if it can't be told. */
static void own_path(char *out, size_t size)
{
	char link[64];
	Dl_info info;
	int fd;

	out[0] = '\0';
	if (!dladdr((void *)(uintptr_t)mt_environ_install, &info) || !info.dli_fname)
		return;
	fd = mt_sys_open(info.dli_fname, O_RDONLY, 0);
	if (fd < 0)
		return;
	mt_fmt(link, sizeof(link), "/proc/self/fd/%d", fd);
	mt_sys_readlink(link, out, size);
	if (out[0] != '/')
		out[0] = '\0';
	mt_sys_close(fd);
}

static const char *base_name(const char *path, size_t length)
{
	while (length && path[length - 1] != '/')
		length--;
	return path + length;
}

/* "LD_PRELOAD=a:./libmemtrace.so" with our entry replaced; the old string if there is none. */
static char *absolute_preload(char *entry)
{
	char own[MT_PATH_MAX], *fresh, *out;
	const char *base, *p = entry + sizeof("LD_PRELOAD=") - 1;
	size_t base_length;

	own_path(own, sizeof(own));
	base = base_name(own, strlen(own));
	base_length = strlen(base);
	fresh = base_length ? mt_mem_keep(strlen(entry) + strlen(own) + 2) : NULL;
	if (!fresh)
		return entry;
	out = fresh + mt_fmt(fresh, 32, "LD_PRELOAD=");
	while (*p) {
		size_t length = strcspn(p, ": ");
		const char *name = base_name(p, length);

		if (length && (size_t)(p + length - name) == base_length &&
		    !strncmp(name, base, base_length)) {
			memcpy(out, own, strlen(own));
			out += strlen(own);
		} else {
			memcpy(out, p, length);
			out += length;
		}
		p += length;
		if (*p)
			*out++ = *p++;
	}
	*out = '\0';
	return fresh;
}

static char *token_entry(void)
{
	char *entry = mt_mem_keep(MT_PATH_MAX + 256);

	if (!entry)
		return NULL;
	token = entry + mt_fmt(entry, 32, "MEMTRACE_TRACE=");
	mt_environ_renew(mt_file.header != NULL);
	return entry;
}

void mt_environ_renew(int with)
{
	char *fresh;

	if (!token)
		return;
	/* The first byte last: till then the value is empty, which means no trace. */
	__atomic_store_n(token, '\0', __ATOMIC_RELEASE);
	token_number = NULL;
	fresh = with ? mt_mem_map(2 * MT_PATH_MAX) : NULL;
	if (!fresh)
		return;
	mt_file_token(fresh, MT_PATH_MAX + 200, mt_process.number);
	memcpy(token + 1, fresh + 1, strlen(fresh));
	token_number = token + 1;
	for (int colons = 0; colons < 5; token_number++)
		colons += *token_number == ':';
	__atomic_store_n(token, fresh[0], __ATOMIC_RELEASE);
	mt_mem_unmap(fresh, 2 * MT_PATH_MAX);
}

/* In place: whoever copied the vector shares the string. */
void mt_environ_number(uint32_t number)
{
	for (int i = 0; token_number && i < 8; i++)
		token_number[i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
}

void mt_environ_install(void)
{
	size_t count = 0, n = 0;
	char **fresh, *entry;

	while (environ && environ[count])
		count++;
	fresh = mt_mem_keep((count + 2) * sizeof(*fresh));
	entry = token_entry();
	if (!fresh || !entry)
		return;
	for (size_t i = 0; i < count; i++) {
		if (!strncmp(environ[i], "MEMTRACE_TRACE=", 15))
			continue;
		fresh[n++] = strncmp(environ[i], "LD_PRELOAD=", 11) != 0
				     ? environ[i]
				     : absolute_preload(environ[i]);
	}
	fresh[n++] = entry;
	fresh[n] = NULL;
	environ = fresh;
	mt_process_on_number = mt_environ_number;
}
