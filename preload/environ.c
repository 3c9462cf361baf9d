/*
 * What children find in their environment: the shim's own LD_PRELOAD entry made absolute (a child
 * may run in another folder), and MEMTRACE_TRACE, which names the trace to join. The program's own
 * strings are not touched: `environ` gets a new vector in the shim's memory, as setenv would make.
 *
 * Many programs hand on copies of what they found at their start (shells, Python's os.environ). Where
 * recording may begin or end in mid-run those copies get old; who execs with one hands on today's entry.
 *
 * Where the shim was loaded late, `environ` is left alone, for other threads may be using it. There a program
 * that is started while children are recorded is handed the entries with its exec. What libc starts by
 * itself (system, popen) takes `environ`: it is another vector for that while, if there is no other thread.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/config.h"
#include "core/forked.h"
#include "core/mem.h"
#include "init.h"
#include "out/file.h"
#include "out/process.h"
#include "sys/fmt.h"
#include "sys/sys.h"

#define CHILD_ENTRIES 8192u /* of an environment; a longer one is left as it is */
#define CHILD_SPARE 64u /* that another thread may add while we copy it */

static char *token; /* MEMTRACE_TRACE's value in the environment; NULL: there is none */
static char *token_number; /* the 8 digits in MEMTRACE_TRACE's value */
static int renewed; /* the token is not, or not always, what stood there at the start */

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
	renewed = 0;
	return entry;
}

void mt_environ_renew(int with)
{
	char *fresh;

	if (!token)
		return;
	renewed = 1;
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

/* NVTX loads the library that this names; a tool that was there before us is called by us. */
static size_t nvtx_entries(char **out, const char *theirs, const char *chained)
{
	char own[MT_PATH_MAX];
	size_t n = 0;

	own_path(own, sizeof(own));
	if (!*own || !mt_config.gpu || !mt_file.header)
		return 0;
	if (theirs && strcmp(theirs, own) != 0) {
		out[n] = mt_mem_keep(strlen(theirs) + 16);
		if (!out[n])
			return 0;
		mt_fmt(out[n++], strlen(theirs) + 16, "MEMTRACE_NVTX=%s", theirs);
		mt_config.nvtx = out[0] + 14;
	} else if (chained) {
		out[n++] = (char *)(uintptr_t)chained;
	}
	out[n] = mt_mem_keep(strlen(own) + 32);
	if (out[n])
		mt_fmt(out[n++], strlen(own) + 32, "NVTX_INJECTION64_PATH=%s", own);
	return n;
}

void mt_environ_install(void)
{
	size_t count = 0, n = 0;
	char **fresh, *entry, *injected = NULL, *chained = NULL;

	while (environ && environ[count])
		count++;
	fresh = mt_mem_keep((count + 4) * sizeof(*fresh));
	entry = token_entry();
	if (!fresh || !entry)
		return;
	for (size_t i = 0; i < count; i++) {
		if (!strncmp(environ[i], "MEMTRACE_TRACE=", 15))
			continue;
		if (!strncmp(environ[i], "NVTX_INJECTION64_PATH=", 22) && mt_config.gpu &&
		    mt_file.header) {
			injected = environ[i] + 22;
			continue;
		}
		if (!strncmp(environ[i], "MEMTRACE_NVTX=", 14)) {
			chained = environ[i];
			continue;
		}
		fresh[n++] = strncmp(environ[i], "LD_PRELOAD=", 11) != 0
				     ? environ[i]
				     : absolute_preload(environ[i]);
	}
	fresh[n++] = entry;
	n += nvtx_entries(fresh + n, injected, chained);
	fresh[n] = NULL;
	environ = fresh;
	mt_process_on_number = mt_environ_number;
}

/* ---- programs started where the shim was loaded late ------------------------------------------------ */

#define LATE_ENTRIES 3u

static char late_token[MT_PATH_MAX + 256] = "MEMTRACE_TRACE=";
static char late_mode[] = "MEMTRACE_MODE=dormant"; /* and told to record by the token */
static char late_shim[MT_PATH_MAX];

void mt_environ_late(void)
{
	own_path(late_shim, sizeof(late_shim));
	token = late_token + sizeof("MEMTRACE_TRACE=") - 1;
	mt_process_on_number = mt_environ_number;
}

static const char *preload_of(char *const envp[], size_t *count)
{
	const char *found = NULL;

	for (*count = 0; envp && envp[*count] && *count < CHILD_ENTRIES; ++*count)
		if (!strncmp(envp[*count], "LD_PRELOAD=", 11))
			found = envp[*count] + 11;
	return found;
}

/* The place of an entry that names another trace than children are to join now; -1: none. */
static long old_token(char *const envp[], size_t *count)
{
	long found = -1;

	for (*count = 0; envp && envp[*count] && *count < CHILD_ENTRIES; ++*count)
		if (!strncmp(envp[*count], "MEMTRACE_TRACE=", 15) &&
		    strcmp(envp[*count] + 15, token) != 0)
			found = (long)*count;
	return *count < CHILD_ENTRIES ? found : -1;
}

size_t mt_environ_child_room(char *const envp[])
{
	const char *preload;
	size_t count;

	if (!late_shim[0] && renewed && old_token(envp, &count) >= 0)
		return (count + CHILD_SPARE + 1) * sizeof(*envp);
	if (!late_shim[0] || !late_token[sizeof("MEMTRACE_TRACE=") - 1])
		return 0;
	preload = preload_of(envp, &count);
	if (count == CHILD_ENTRIES || (preload && strstr(preload, late_shim)))
		return 0;
	return (count + CHILD_SPARE + LATE_ENTRIES + 1) * sizeof(*envp) + sizeof(late_shim) + 32 +
	       (preload ? strlen(preload) : 0);
}

char *const *mt_environ_child(void *room, char *const envp[])
{
	char **vector = room, *text;
	const char *preload;
	size_t count, n = 0;

	if (!late_shim[0]) {
		long old = old_token(envp, &count);

		memcpy(vector, envp, (count + 1) * sizeof(*vector));
		if (old >= 0)
			vector[old] = token - (sizeof("MEMTRACE_TRACE=") - 1);
		return vector;
	}
	preload = preload_of(envp, &count);
	text = (char *)(vector + count + LATE_ENTRIES + 1);
	mt_fmt(text, sizeof(late_shim) + 32 + (preload ? strlen(preload) : 0), "LD_PRELOAD=%s%s%s",
	       late_shim, preload && *preload ? ":" : "", preload ? preload : "");
	vector[n++] = text;
	vector[n++] = late_token;
	vector[n++] = late_mode;
	for (size_t i = 0; i < count; i++)
		if (strncmp(envp[i], "LD_PRELOAD=", 11) != 0 &&
		    strncmp(envp[i], "MEMTRACE_MODE=", 14) != 0 &&
		    strncmp(envp[i], "MEMTRACE_TRACE=", 15) != 0)
			vector[n++] = envp[i];
	vector[n] = NULL;
	return vector;
}

/* ---- programs that libc starts ----------------------------------------------------------------------- */

static int is_alone(void)
{
	char text[4096];

	return mt_sys_slurp("/proc/self/status", text, sizeof(text)) > 0 &&
	       mt_find_field(text, "Threads") == 1 && !mt_forked_is_vfork_child();
}

char **mt_environ_lend(int *uncovered)
{
	static size_t
		size; /* of `kept`, which stays: whoever has copied the vector has its strings */
	static void *kept;
	size_t room = mt_environ_child_room(environ);
	char **own = environ;

	*uncovered = room && !is_alone();
	if (!room || *uncovered)
		return NULL;
	if (room > size) {
		kept = mt_mem_keep(2 * room);
		size = kept ? 2 * room : 0;
	}
	if (kept)
		environ = (char **)(uintptr_t)mt_environ_child(kept, own);
	*uncovered = !kept;
	return kept ? own : NULL;
}

void mt_environ_return(char **own, char *const *lent)
{
	if (own && environ == (char **)(uintptr_t)lent) /* not so: a handler has set a variable */
		environ = own;
}
