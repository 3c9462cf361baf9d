/*
 * memtrace attach, detach, mark: asking a running process through its control page. The process
 * does what is asked at its next call of a hook; here we only ask, wait, and say what came of it.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "page.h"

#define WAIT_MS 30000 /* unless --wait says otherwise */
#define SILENT_MS 500 /* after which we say that we wait */
#define CHILD_MS 400 /* that one of several processes gets to answer */
#define CHILD_MOMENT_S 3 /* in which a safe moment is looked for in one of them */
#define POLL_MS 2

static volatile sig_atomic_t interrupted;

static void on_signal(int signo)
{
	(void)signo;
	interrupted = 1;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
}

/* ---- what was asked for ---------------------------------------------------------------------------- */

struct wish {
	pid_t pid;
	int tree;
	int wait_ms;
	uint64_t duration_ns; /* 0: until it is detached, or ends */
	char text[MT_CONTROL_TEXT]; /* NAME=value entries */
	size_t text_bytes;
	int has_mode;
	int asks; /* for anything but to record */
};

static int seconds(const char *verb, const char *name, const char *text, double *value)
{
	char *end;

	*value = text ? strtod(text, &end) : -1;
	if (text && end != text && !*end && *value >= 0 && *value < 1e9)
		return 0;
	complain("%s: %s needs a number of seconds%s%s", verb, name, text ? ", not " : "",
		 text ? text : "");
	return EXIT_USAGE;
}

static int add_entry(struct wish *w, const char *name, const char *value)
{
	int n = snprintf(w->text + w->text_bytes, sizeof(w->text) - w->text_bytes, "%s=%s", name,
			 value);

	if (n < 0 || w->text_bytes + (size_t)n + 1 > sizeof(w->text)) {
		complain("attach: the options are too long");
		return EXIT_USAGE;
	}
	w->text_bytes += (size_t)n + 1;
	return 0;
}

/* The trace is written by the process, whose folder is another: a relative name is meant as seen
 * from here. Where it has other file systems than we, as it is seen from there. */
static int add_out(struct wish *w, const char *out)
{
	char cwd[PATH_MAX], path[2 * PATH_MAX];
	struct stat here, there;
	char root[64];

	snprintf(root, sizeof(root), "/proc/%d/root/.", (int)w->pid);
	if (out[0] == '/' || !getcwd(cwd, sizeof(cwd)) || stat("/", &here) < 0 ||
	    stat(root, &there) < 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino)
		return add_entry(w, "OUT", out);
	snprintf(path, sizeof(path), "%s/%s", strcmp(cwd, "/") ? cwd : "", out);
	return add_entry(w, "OUT", path);
}

static int one_option(struct wish *w, int argc, char **argv, int *at, const char **out)
{
	const char *word = argv[*at], *name, *value;
	double s;
	int err;

	w->asks |= strcmp(word, "--tree") != 0 && strcmp(word, "--wait") != 0;
	if (!strcmp(word, "--tree")) {
		w->tree = 1;
		++*at;
		return 0;
	}
	if (!strcmp(word, "--duration") || !strcmp(word, "--wait")) {
		err = seconds("attach", word, *at + 1 < argc ? argv[*at + 1] : NULL, &s);
		if (err)
			return err;
		if (word[2] == 'w')
			w->wait_ms = s < 2e6 ? (int)(s * 1000) : INT_MAX;
		else
			w->duration_ns = (uint64_t)(s * 1e9);
		*at += 2;
		return 0;
	}
	err = recording_option("attach", argc, argv, at, &name, &value);
	if (err)
		return err == EXIT_OWN_FAILURE ? EXIT_USAGE : err;
	if (!strcmp(name, "OUT")) {
		*out = value;
		return 0;
	}
	if (!strcmp(name, "MODE") && !strcmp(value, "dormant")) {
		complain("attach: --mode dormant records nothing: full or sample");
		return EXIT_USAGE;
	}
	w->has_mode |= !strcmp(name, "MODE");
	return add_entry(w, name, value);
}

static int wish_read(struct wish *w, int argc, char **argv)
{
	const char *out = "trace.bin", *pid = NULL;
	int err = 0;

	for (int at = 1; at < argc && !err;) {
		if (argv[at][0] == '-' && argv[at][1]) {
			err = one_option(w, argc, argv, &at, &out);
		} else if (pid) {
			complain(
				"attach: one process at a time; --tree takes its children as well");
			err = EXIT_USAGE;
		} else {
			pid = argv[at++];
		}
	}
	if (!err)
		err = process_argument("attach", pid, &w->pid);
	if (!err)
		err = add_out(w, out);
	if (!err && !w->has_mode)
		err = add_entry(w, "MODE", "full");
	return err;
}

/* ---- asking one process ------------------------------------------------------------------------------ */

/* Waits for an answer; says once that it waits. 1: answered; 0: taken back. what NULL: quietly. */
static int await(struct target *t, const char *what, int wait_ms, int *result)
{
	uint64_t start = now_ns(), end = start + (uint64_t)wait_ms * 1000000u;
	int answered, said = 0;

	while ((answered = target_answered(t, result)) == 0 && !interrupted && now_ns() < end) {
		if (!said && what && now_ns() - start > SILENT_MS * 1000000ull) {
			complain(
				"process %d is silent: it %s at its next allocation; waiting up to "
				"%d s (--wait)",
				(int)t->pid, what, (wait_ms + 999) / 1000);
			said = 1;
		}
		sleep_ms(POLL_MS);
	}
	target_done(t);
	if (answered < 0 && what)
		complain("process %d has ended", (int)t->pid);
	else if (!answered && wait_ms > SILENT_MS)
		complain("process %d made no call that could be answered within %d s; nothing was "
			 "changed",
			 (int)t->pid, wait_ms / 1000);
	return answered > 0;
}

static int arm(struct target *t, const struct wish *w, uint32_t flags, const char *text,
	       size_t bytes, int *result)
{
	uint64_t until = w->duration_ns ? now_ns() + w->duration_ns : 0;
	struct mt_control_before before;
	char older[MT_CONTROL_OLDER];

	process_measure(t->pid, &before, older);
	if (target_ask(t, MT_CONTROL_ARM, flags, until, &before, older, text, bytes) < 0) {
		complain("another memtrace is talking to process %d", (int)t->pid);
		return 0;
	}
	if (!await(t, "begins to record", w->wait_ms, result))
		return 0;
	say_took(t, "to begin");
	return 1;
}

/* ---- children ---------------------------------------------------------------------------------------- */

struct tree {
	size_t asked, taken, silent, without;
};

/* Asks a descendant, given the shim if it has none, to record into the trace that t writes. One that
 * is silent finds the request at its next event. */
static void arm_child(const struct target *t, const struct wish *w, pid_t pid, struct tree *tree)
{
	char text[2 * MT_CONTROL_TEXT], older[MT_CONTROL_OLDER];
	struct mt_control_before before;
	uint64_t end = now_ns() + CHILD_MS * 1000000ull;
	struct target child;
	int result = 0, answered = 0;
	size_t bytes;

	if (kill(pid, 0) < 0 || reach(&child, pid, CHILD_MOMENT_S) < 0) {
		tree->without += kill(pid, 0) == 0;
		return;
	}
	memcpy(text, w->text, w->text_bytes);
	bytes = w->text_bytes + 1 +
		(size_t)snprintf(text + w->text_bytes, sizeof(text) - w->text_bytes, "TRACE=%.*s",
				 (int)MT_CONTROL_TEXT - 1, t->page->token);
	process_measure(pid, &before, older);
	if (child.page->self.state == MT_CONTROL_DORMANT &&
	    target_ask(&child, MT_CONTROL_ARM, MT_CONTROL_TREE | MT_CONTROL_JOIN,
		       w->duration_ns ? now_ns() + w->duration_ns : 0, &before, older, text,
		       bytes) == 0) {
		while ((answered = target_answered(&child, &result)) == 0 && now_ns() < end)
			sleep_ms(POLL_MS);
		tree->silent += answered == 0;
	}
	tree->taken += answered > 0 && result == 0;
	target_close(&child); /* with the lock; the request stays */
}

static void arm_children(const struct target *t, const struct wish *w)
{
	struct tree tree = { 0 };
	pid_t *list;
	size_t n = process_tree(w->pid, &list);

	for (size_t i = 0; i < n && !interrupted; i++)
		if (list[i] != t->pid)
			arm_child(t, w, list[i], &tree);
	if (n > 1)
		complain("with it, %zu of %zu processes of its tree record%s", tree.taken, n - 1,
			 tree.silent ? "; those that are silent do so from their next allocation on"
			 : tree.without ? "; the others can't be reached"
					: "");
	free(list);
}

/* Who is to make the trace: the process itself; with --tree, where it is silent (a launcher that
 * waits), the first of its descendants that answers. */
static int arm_first(struct target *t, const struct wish *w, int *result)
{
	struct wish quick = *w;
	char why[512];
	pid_t *list;
	size_t n = w->tree ? process_tree(w->pid, &list) : 0;
	int armed = 0;

	quick.wait_ms = CHILD_MS;
	for (size_t i = 1; n > 1 && i <= n && !armed && !interrupted; i++) {
		armed = arm(t, &quick, MT_CONTROL_TREE, w->text, w->text_bytes, result);
		if (armed || i == n)
			break;
		target_close(t);
		while (i < n && target_open(t, list[i], why, sizeof(why)) != REACHED)
			i++;
	}
	if (n)
		free(list);
	if (t->fd < 0 && target_open(t, w->pid, why, sizeof(why)) != REACHED)
		return 0;
	return armed || arm(t, w, w->tree ? MT_CONTROL_TREE : 0, w->text, w->text_bytes, result);
}

/* ---- the end ------------------------------------------------------------------------------------------- */

/* Recording is over when the process is dormant again. 1: it is; 0: not yet. */
static int is_over(const struct target *t)
{
	uint32_t state = __atomic_load_n(&t->page->self.state, __ATOMIC_ACQUIRE);

	return state != MT_CONTROL_RECORDING && state != MT_CONTROL_DRAINING;
}

/* silent: NULL, or of a child, which is not waited for: it finds the request at its next event. */
static int stop_one(struct target *t, int wait_ms, size_t *silent)
{
	uint64_t end = now_ns() + (uint64_t)wait_ms * 1000000u;
	int result = 0;

	if (target_ask(t, MT_CONTROL_DISARM, 0, 0, NULL, NULL, "", 0) < 0) {
		complain("another memtrace is talking to process %d", (int)t->pid);
		return 1;
	}
	if (!await(t, silent ? NULL : "stops recording", silent ? CHILD_MS : wait_ms, &result)) {
		if (!silent)
			return 1;
		*silent += !target_is_gone(t) &&
			   target_ask(t, MT_CONTROL_DISARM, 0, 0, NULL, NULL, "", 0) == 0;
		return 0;
	}
	say_took(t, "to end");
	while (!is_over(t) && now_ns() < end && !interrupted && !target_is_gone(t)) {
		__atomic_store_n(&t->page->self.word, MT_CONTROL_CALL, __ATOMIC_SEQ_CST);
		sleep_ms(POLL_MS);
	}
	/* Where the shim was put in, the page goes last. */
	while (__atomic_load_n(&t->page->self.state, __ATOMIC_ACQUIRE) == MT_CONTROL_LEFT &&
	       now_ns() < end && !interrupted && target_has_page(t))
		sleep_ms(POLL_MS);
	return result == 0 || result == -ESRCH ? 0 : 1;
}

/* Those of its descendants that write this trace, the youngest first. */
static int stop_children(const struct target *t, const uint8_t *trace, int wait_ms, size_t *silent)
{
	char why[512];
	pid_t *list;
	size_t n = process_tree(t->pid, &list);
	int failed = 0;

	*silent = 0;
	for (size_t i = n; i-- > 1;) {
		struct target child;

		if (target_open(&child, list[i], why, sizeof(why)) != REACHED)
			continue;
		if (child.page->self.state == MT_CONTROL_RECORDING &&
		    !memcmp(child.page->self.trace_id, trace, MT_TRACE_ID_BYTES))
			failed |= stop_one(&child, wait_ms, silent);
		target_close(&child);
	}
	if (n)
		free(list);
	return failed;
}

/* Once more at the end: it may have had children while the others were stopped. */
static int stop_tree(struct target *t, int wait_ms)
{
	uint8_t trace[MT_TRACE_ID_BYTES];
	int tree = (int)t->page->self.tree, failed = 0;
	size_t silent = 0;

	memcpy(trace, t->page->self.trace_id, sizeof(trace));
	failed |= tree && stop_children(t, trace, wait_ms, &silent);
	failed |= stop_one(t, wait_ms, NULL);
	failed |= tree && stop_children(t, trace, wait_ms, &silent);
	if (silent)
		complain("%zu silent process%s of its tree stop%s recording at the next allocation",
			 silent, silent == 1 ? "" : "es", silent == 1 ? "s" : "");
	return failed;
}

/* --duration: the process ends the recording by itself, also if we are killed; we see it through. */
static int see_through(struct target *t, const struct wish *w)
{
	uint64_t end = now_ns() + w->duration_ns;

	while (!is_over(t) && !interrupted && now_ns() < end && !target_is_gone(t))
		sleep_ms(20);
	interrupted = 0;
	if (target_is_gone(t)) {
		complain("process %d has ended", (int)t->pid);
		return 0;
	}
	return is_over(t) && !w->tree ? 0 : stop_tree(t, w->wait_ms);
}

static void say_wrote(pid_t pid, const char *path)
{
	int error = trace_error(pid, path);

	complain("wrote %s%s%s; read it with: memtrace-report %s", path,
		 error ? ", incomplete: " : "", error ? strerror(error) : "", path);
}

/* ---- commands ------------------------------------------------------------------------------------------- */

int command_attach(int argc, char **argv)
{
	static struct wish w = { .wait_ms = WAIT_MS };
	char path[PATH_MAX];
	struct target t;
	int result = 0, err = wish_read(&w, argc, argv);

	if (err)
		return err;
	if (reach(&t, w.pid, w.wait_ms / 1e3) < 0)
		return 1;
	if (t.page->self.state == MT_CONTROL_OFF) {
		complain("cannot attach to process %d: the shim is off there for good", (int)w.pid);
		return 1;
	}
	catch_signals();
	if (t.page->self.state == MT_CONTROL_RECORDING)
		result = -EALREADY;
	else if (!arm_first(&t, &w, &result))
		return 1;
	if (result < 0 && result != -EALREADY) {
		complain("process %d can't record: %.500s", (int)w.pid, t.page->why);
		return 1;
	}
	target_trace(&t, path, sizeof(path));
	if (result == -EALREADY)
		complain("process %d is being recorded already, to %s%s", (int)w.pid, path,
			 w.asks ? "; its options are as they were: memtrace detach first" : "");
	else
		complain("recording process %d to %s; stop it by: memtrace detach %d", (int)w.pid,
			 path, (int)w.pid);
	if (w.tree)
		arm_children(&t, &w);
	err = w.duration_ns && result == 0 ? see_through(&t, &w) : 0;
	if (w.duration_ns && result == 0 && !err)
		say_wrote(w.pid, path);
	target_close(&t);
	return err;
}

int command_detach(int argc, char **argv)
{
	char why[512], path[PATH_MAX];
	int err, wait_ms = WAIT_MS;
	struct target t;
	double s;
	pid_t pid;

	if (argc == 4 && !strcmp(argv[2], "--wait")) {
		err = seconds("detach", argv[2], argv[3], &s);
		if (err)
			return err;
		wait_ms = (int)(s * 1000);
	} else if (argc > 2) {
		complain("detach: one process, and --wait S; see memtrace --help");
		return EXIT_USAGE;
	}
	err = process_argument("detach", argv[1], &pid);
	if (err)
		return err;
	if (target_open(&t, pid, why, sizeof(why)) != REACHED) {
		complain("cannot detach from process %d: %s", (int)pid, why);
		return 1;
	}
	if (is_over(&t)) {
		complain("process %d is not being recorded", (int)pid);
		return 1;
	}
	target_trace(&t, path, sizeof(path));
	catch_signals();
	err = stop_tree(&t, wait_ms);
	if (!err && !is_over(&t))
		complain("process %d records no more; it lets go of the trace at its next "
			 "allocation",
			 (int)pid);
	else if (!err)
		say_wrote(pid, path);
	target_close(&t);
	return err;
}

int command_mark(int argc, char **argv)
{
	char why[512];
	struct target t;
	pid_t pid;
	int result = 0, err = process_argument("mark", argv[1], &pid);

	if (err)
		return err;
	if (argc != 3 || !*argv[2] || strlen(argv[2]) >= 1024) {
		complain("mark: a process and a label of less than 1 KiB; see memtrace --help");
		return EXIT_USAGE;
	}
	if (target_open(&t, pid, why, sizeof(why)) != REACHED) {
		complain("cannot mark process %d: %s", (int)pid, why);
		return 1;
	}
	if (is_over(&t)) {
		complain("process %d is not being recorded", (int)pid);
		return 1;
	}
	catch_signals();
	err = target_ask(&t, MT_CONTROL_MARK, 0, 0, NULL, NULL, argv[2], strlen(argv[2])) < 0 ||
	      !await(&t, "is marked", WAIT_MS, &result) || result < 0;
	target_close(&t);
	return err;
}
