/*
 * The shim's start and end. Start happens at the first call of any hook, which may come from the
 * loader before any constructor has run, or else from our constructor; what needs libc to be set up
 * (environ, handlers) waits for the constructor. The list of steps is in start(): its order matters.
 *
 * Whatever fails, the program runs on untraced and the root says why in one line.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "init.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnu/libc-version.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/config.h"
#include "core/control.h"
#include "core/forked.h"
#include "core/guard.h"
#include "core/mem.h"
#include "core/real.h"
#include "core/sampling.h"
#include "out/file.h"
#include "out/place.h"
#include "out/process.h"
#include "record/gpu.h"
#include "record/record.h"
#include "samplers/cow.h"
#include "samplers/pages.h"
#include "samplers/sampler.h"
#include "slots.h"
#include "stack/bounds.h"
#include "stack/stack.h"
#include "sys/fmt.h"
#include "sys/log.h"
#include "sys/sys.h"

#define ENVIRON_BYTES ((size_t)256 << 10)

static int is_root; /* the process that speaks to the user: the trace's first, whatever its image */
static char *const *start_environ;

/* The environment before libc has set `environ`: the kernel's copy. */
static char *const *early_environ(int keep)
{
	char *text = keep ? mt_mem_keep(ENVIRON_BYTES) : mt_mem_alloc(ENVIRON_BYTES), **vector;
	ssize_t size = text ? mt_sys_slurp("/proc/self/environ", text, ENVIRON_BYTES) : -1;
	size_t n = 0, room = 4096;

	vector = keep ? mt_mem_keep(room * sizeof(*vector)) : mt_mem_alloc(room * sizeof(*vector));
	if (size <= 0 || !vector)
		return NULL;
	for (char *p = text; p < text + size && n < room - 1; p += strlen(p) + 1)
		vector[n++] = p;
	return vector;
}

static const char *variable(const char *name)
{
	size_t length = strlen(name);

	for (char *const *e = start_environ; e && *e; e++)
		if (!strncmp(*e, name, length) && (*e)[length] == '=')
			return *e + length + 1;
	return NULL;
}

static const struct {
	const char *fact;
	const char *names[5];
} ranks[] = {
	{ "rank", { "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK" } },
	{ "local_rank",
	  { "LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID" } },
	{ "world_size", { "WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE" } },
};

static const char *rank_value(size_t which)
{
	const char *value = NULL;

	for (size_t i = 0; i < 5 && ranks[which].names[i] && !value; i++)
		value = variable(ranks[which].names[i]);
	return value;
}

/* Which variable told the rank; NULL: none did. */
static const char *rank_source(void)
{
	for (size_t i = 0; i < 5; i++)
		if (ranks[0].names[i] && variable(ranks[0].names[i]))
			return ranks[0].names[i];
	return NULL;
}

/* ---- the trace ----------------------------------------------------------------------------------- */

static int trace_join(int late)
{
	const char *number = mt_config.trace;
	int err = mt_file_join(mt_config.trace);

	if (err)
		return err;
	for (int colons = 0; *number && colons < 5; number++)
		colons += *number == ':';
	mt_process.parent = (uint32_t)mt_parse_number(&number, 16);
	mt_process.reason = late ? MT_PROCESS_ATTACHED : MT_PROCESS_EXEC;
	mt_process.pid = (uint32_t)mt_sys_getpid();
	mt_clock_is_tsc = (mt_file.header->flags & MT_FILE_TSC) != 0;
	if (!late) /* who attached to the tree decides how all of it is recorded */
		mt_config_adopt(mt_file.header->settings, sizeof(mt_file.header->settings));
	is_root = mt_file.header->root_pid == mt_process.pid &&
		  mt_file.header->root_start == mt_process_start(mt_process.pid);
	if (is_root)
		mt_log_init((int)mt_config.log);
	return 0;
}

static int trace_create(int late)
{
	static char path[MT_PATH_MAX];
	const char *rank = rank_value(0);
	int moved, err;

	is_root = 1;
	if (!late || mt_config.warn)
		mt_log_init((int)mt_config.log);
	if (!late)
		mt_config_complain();
	mt_clock_is_tsc = mt_clock_tsc_is_usable();
	err = mt_place_expand(mt_config.out, rank ? rank : "0", path, sizeof(path));
	if (!err)
		err = mt_place_create(path, &moved);
	if (err) {
		mt_log(MT_LOG_WARN, "cannot write %s: %s; the program runs untraced",
		       err == -ENAMETOOLONG ? mt_config.out : path, mt_file_why(-err));
		return err;
	}
	if (moved)
		mt_log(MT_LOG_WARN, "%s is in use or not a trace of yours; writing %s", path,
		       mt_file.path);
	mt_process.number = MT_ROOT_PROC;
	mt_process.reason = MT_PROCESS_ROOT;
	mt_process.pid = mt_file.header->root_pid;
	if (late)
		mt_config_write(mt_file.header->settings, sizeof(mt_file.header->settings));
	return 0;
}

static void fact(struct mt_thread *t, const char *key, const char *value)
{
	if (value)
		mt_record_fact(t, key, value, strlen(value));
}

static void machine_facts(struct mt_thread *t)
{
	char text[4096];
	struct utsname host;
	int64_t kib;

	if (mt_sys1(SYS_uname, &host) == 0) {
		fact(t, "host", host.nodename);
		mt_fmt(text, sizeof(text), "%s %s %s", host.sysname, host.release, host.machine);
		fact(t, "kernel", text);
	}
	fact(t, "libc", gnu_get_libc_version());
	if (mt_sys_slurp("/proc/meminfo", text, sizeof(text)) > 0 &&
	    (kib = mt_find_field(text, "MemTotal")) > 0) {
		mt_fmt(text, sizeof(text), "%lu", (uint64_t)kib * 1024);
		fact(t, "memory_total", text);
	}
	fact(t, "events", mt_record_is_folded() ? "folded" : "all");
}

static void mode_facts(struct mt_thread *t)
{
	char text[32];

	fact(t, "mode", mt_config.mode == MT_MODE_SAMPLE ? "sample" : "full");
	if (mt_config.mode != MT_MODE_SAMPLE)
		return;
	mt_fmt(text, sizeof(text), "%lu", (uint64_t)mt_config.sample_bytes);
	fact(t, "sample_bytes", text);
}

/* What the allocators of this image were told by their environment, as it stands there. */
static void malloc_facts(struct mt_thread *t)
{
	static const char *const names[] = { "MALLOC_", "GLIBC_TUNABLES=", "TCMALLOC_",
					     "MIMALLOC_" };
	char text[2048];
	size_t used = 0;

	for (char *const *e = start_environ; e && *e; e++) {
		size_t length = strlen(*e);

		for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
			if (strncmp(*e, names[i], strlen(names[i])) != 0 ||
			    used + length + 1 > sizeof(text))
				continue;
			if (used)
				text[used++] = ' ';
			memcpy(text + used, *e, length);
			used += length;
		}
	}
	if (used || !is_root) /* nothing, too: what its parent had is not its own */
		mt_record_fact(t, "malloc_settings", text, used);
}

static void image_facts(struct mt_thread *t)
{
	char text[4096];
	ssize_t n;

	if (mt_sys_readlink("/proc/self/exe", text, sizeof(text)) > 0)
		fact(t, "exe", text);
	n = mt_sys_slurp("/proc/self/cmdline", text, sizeof(text));
	if (n > 0)
		mt_record_fact(t, "cmdline", text, (size_t)n - (text[n - 1] == '\0'));
	if (is_root && mt_sys2(SYS_getcwd, text, sizeof(text)) > 0)
		fact(t, "cwd", text);
	for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++)
		fact(t, ranks[i].fact, rank_value(i));
	malloc_facts(t);
	fact(t, "rank_from", rank_source());
}

static void pressure_mark(struct mt_thread *t, const char *label)
{
	mt_record_mark(t, MT_MARK_MARK, 0, label);
}

/* The first records of this image: it is in the trace even if it never allocates. */
static void introduce(int late)
{
	struct mt_thread *t = mt_tls.thread ? mt_tls.thread : mt_thread_adopt();

	if (!t)
		return;
	mt_stack_init(t, (unsigned int)mt_config.depth, mt_config.python != MT_PYTHON_OFF, late);
	image_facts(t);
	if (mt_process.reason == MT_PROCESS_ROOT) {
		machine_facts(t);
		mode_facts(t);
	}
	if (mt_config.python == MT_PYTHON_OBJECTS && mt_pymem_install(late))
		fact(t, "python_mode", "objects");
	mt_pressure_mark = pressure_mark;
	mt_pages_before = mt_record_looked;
	mt_cow_init((uint64_t)mt_config.cow_interval);
	mt_sampler_init(t, (uint64_t)mt_config.interval, late);
}

int mt_recording_begin(int late)
{
	int err;

	if (mt_late) /* the program may be changing its own */
		start_environ = early_environ(0);
	mt_file.max_bytes = (uint64_t)mt_config.max_bytes;
	err = *mt_config.trace ? trace_join(late) : trace_create(late);
	if (err < 0) {
		mt_sampling_reset();
		return err;
	}
	mt_file.max_bytes = (uint64_t)mt_config.max_bytes; /* joined: the attach's */
	if (mt_config.mode == MT_MODE_SAMPLE)
		mt_sample_mean = (uint64_t)mt_config.sample_bytes;
	mt_gate_init();
	mt_thread_init();
	mt_record_init(mt_config.mode == MT_MODE_FULL && mt_config.events == MT_EVENTS_FOLDED);
	introduce(late);
	return 0;
}

/* A process that may be told to record later: what only its start can do. */
static void start_dormant(void)
{
	mt_gate_init();
	mt_thread_init();
	mt_stack_prepare();
	if (mt_config.python == MT_PYTHON_OBJECTS)
		mt_pymem_install(0);
	mt_control_own.state = MT_CONTROL_DORMANT;
}

static int start(void)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	mt_control_own.state = MT_CONTROL_OFF;
	if (mt_real_resolve() < 0 || getauxval(AT_SECURE))
		return -1;
	start_environ = environ ? (char *const *)environ : early_environ(1);
	mt_config_read(start_environ);
	/* A tree that is recorded from its start is called through its first process: the others keep
	 * no descriptor open that the program could find. */
	mt_control_children = mt_config.mode == MT_MODE_DORMANT;
	mt_control_make(pid, mt_process_start(pid), mt_control_children || !*mt_config.trace);
	/* Of a dormant parent that was told to record, with what it starts. */
	if (mt_config.mode == MT_MODE_DORMANT && *mt_config.trace)
		mt_config.mode = MT_MODE_FULL;
	if (mt_config.mode == MT_MODE_DORMANT || mt_recording_begin(0) < 0) {
		start_dormant();
		return -1;
	}
	mt_recording_began();
	mt_control_own.until_ns = mt_file.header->until_ns;
	return 0;
}

static void first_call(void)
{
	uint32_t fresh = MT_STATE_NEW, light = MT_LIGHT_NONE;
	int saved = errno;
	uint32_t next;

	if (!__atomic_compare_exchange_n(&mt_state, &fresh, MT_STATE_STARTING, 0, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		return;
	mt_tls.guard = MT_GUARD_SELF;
	next = start() < 0 ? MT_STATE_OFF : MT_STATE_RUNNING;
	mt_cxx_decide(mt_control_own.state != MT_CONTROL_OFF);
	if (next == MT_STATE_OFF && mt_real.malloc && mt_real.calloc && mt_real.realloc &&
	    mt_real.free)
		light = MT_LIGHT_PASS;
	else if (next == MT_STATE_RUNNING && mt_config.mode == MT_MODE_SAMPLE)
		light = MT_LIGHT_SAMPLE;
	mt_tls.guard = MT_GUARD_NONE;
	/* Release: who sees RUNNING sees the resolved functions and the trace. */
	__atomic_store_n(&mt_state, next, __ATOMIC_RELEASE);
	mt_control_set_light(light);
	mt_control_publish();
	errno = saved;
}

/* Ready before any constructor: libraries that are initialised ahead of us may allocate. */
void (*mt_on_first_call)(void) = first_call;

/* ---- the end ---------------------------------------------------------------------------------------- */

void mt_forked_check_end(struct mt_thread *t)
{
	mt_stack_verify_end(t);
	mt_record_gpu_names(t);
	if (mt_pymem_was_replaced())
		mt_record_note(t,
			       "the program replaced Python's allocators (PYTHONMALLOC or -X dev): "
			       "objects made after that are not in the trace");
}

void mt_forked_say_end(void)
{
	const struct mt_file_header *h = mt_file.header;
	uint32_t error = __atomic_load_n(&h->error, __ATOMIC_RELAXED);
	uint64_t kib =
		(MT_HEADER_BYTES + __atomic_load_n(&h->next, __ATOMIC_RELAXED) * MT_UNIT_BYTES) /
		1024;

	if (!is_root || mt_process.pid != h->root_pid)
		return;
	if (error)
		mt_log(MT_LOG_WARN, "the trace is incomplete: %s; what was recorded is in %s",
		       mt_file_why((int)error), mt_file.path);
	else if (!mt_config.quiet)
		mt_log(MT_LOG_WARN, "wrote %s (%lu KiB); read it with: memtrace-report %s",
		       mt_file.path, kib, mt_file.path);
}

/* Registered before the loader's own exit handler, so it runs after every destructor. */
static void at_exit(int status, void *unused)
{
	struct mt_thread *t;

	(void)unused;
	if (mt_forked_is_vfork_child())
		return;
	t = mt_enter();
	if (!t)
		return;
	mt_forked_check_end(t);
	mt_record_exit(t, MT_EXIT_EXIT, status);
	mt_leave(t);
	mt_forked_say_end();
}

/*
 * An allocator ahead of us: in the executable, or preloaded before us. One that only counts and
 * passes on comes through to us: so it is tried, once warm, on a small block.
 */
static void note_hidden_heap(struct mt_thread *t)
{
	void *(*first_malloc)(size_t);
	void (*first_free)(void *);
	Dl_info of_malloc, ours;
	char text[512];
	int seen = 0;

	*(void **)&first_malloc = dlsym(RTLD_DEFAULT, "malloc");
	*(void **)&first_free = dlsym(RTLD_DEFAULT, "free");
	if (!first_malloc || !first_free || !dladdr((void *)(uintptr_t)first_malloc, &of_malloc) ||
	    !dladdr((void *)(uintptr_t)mt_environ_install, &ours) ||
	    of_malloc.dli_fbase == ours.dli_fbase)
		return;
	for (int tries = 0; tries < 3; tries++) {
		void *p;

		mt_tls.guard = tries ? MT_GUARD_PROBE : MT_GUARD_SELF;
		p = first_malloc(64);
		seen += tries && mt_tls.guard == MT_GUARD_SELF;
		mt_tls.guard = MT_GUARD_SELF;
		first_free(p);
	}
	if (seen)
		return;
	mt_fmt(text, sizeof(text),
	       "%s brings an allocator that comes before this library: the heap is not in the "
	       "trace",
	       of_malloc.dli_fname);
	mt_record_note(t, text);
	mt_log(MT_LOG_WARN, "%s; put libmemtrace.so first in LD_PRELOAD", text);
}

/* ---- loaded late ------------------------------------------------------------------------------------ */

int mt_late;

int mt_late_start(int first)
{
	uint32_t pid = (uint32_t)mt_sys_getpid();

	if (first && (getauxval(AT_SECURE) || mt_slots_resolve() < 0))
		return -ENOSYS;
	if (first) {
		mt_config_read(NULL);
		mt_config.mode = MT_MODE_DORMANT;
		start_dormant();
		mt_bounds_late(pid);
		mt_cxx_decide(1);
		mt_environ_late();
		mt_arm_prepare();
		mt_fork_init();
		on_exit(at_exit, NULL);
	}
	mt_control_own.state = MT_CONTROL_DORMANT;
	mt_control_own.recordings = 0;
	mt_control_children = 1;
	mt_control_make(pid, mt_process_start(pid), 1);
	__atomic_store_n(&mt_state, MT_STATE_OFF, __ATOMIC_RELEASE);
	mt_control_set_light(MT_LIGHT_PASS);
	mt_control_publish();
	return 0;
}

__attribute__((constructor)) static void constructor(void)
{
	int saved = errno;
	struct mt_thread *t;

	if (mt_state == MT_STATE_NEW && mt_slots_late()) {
		mt_late = 1;
		mt_state = MT_STATE_OFF;
		return;
	}
	first_call();
	if (mt_state == MT_STATE_OFF && mt_control_own.state == MT_CONTROL_DORMANT) {
		mt_tls.guard = MT_GUARD_SELF;
		mt_environ_install(); /* children are dormant, too, wherever they run */
		mt_arm_prepare();
		mt_fork_init();
		on_exit(at_exit, NULL);
		mt_tls.guard = MT_GUARD_NONE;
	}
	if (mt_state == MT_STATE_RUNNING) {
		t = mt_enter();
		mt_tls.guard = MT_GUARD_SELF;
		if (t) {
			note_hidden_heap(t);
			mt_leave(t);
		}
		mt_tls.guard = MT_GUARD_SELF;
		mt_environ_install();
		mt_arm_prepare();
		mt_fork_init();
		on_exit(at_exit, NULL);
		mt_stack_verify((unsigned int)mt_config.verify);
		mt_tls.guard = MT_GUARD_NONE;
	}
	errno = saved;
}
