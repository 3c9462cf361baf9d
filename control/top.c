/*
 * memtrace top PID|TRACE: the live view of a recording. Numbers come from `memtrace-report watch`, a
 * child of ours that reads what is new of the trace and writes a JSON document a second: the reader
 * of traces is the analyzer's, and an analyzer that fails can't take the terminal along.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "control.h"
#include "page.h"
#include "top.h"

#define SEPARATOR '\x1e'
#define INTERVAL "1" /* seconds between documents */
#define KEY_MS 100

struct feed { /* documents from the child */
	pid_t pid;
	int fd;
	char *text;
	size_t used, room;
	int ended;
};

/* ---- which trace ------------------------------------------------------------------------------------- */

static int trace_of(const char *argument, char *out, size_t size)
{
	char why[512], path[PATH_MAX];
	struct target t;
	int result;
	pid_t pid;

	if (access(argument, F_OK) == 0 || argument[strspn(argument, "0123456789")]) {
		snprintf(out, size, "%s", argument);
		return 0;
	}
	if (process_argument("top", argument, &pid))
		return EXIT_USAGE;
	if (target_open(&t, pid, why, sizeof(why)) != REACHED) {
		complain("process %s: %s", argument, why);
		return 1;
	}
	if (t.page->self.state == MT_CONTROL_RECORDING && !t.page->token[0])
		target_call(&t, MT_CONTROL_LOOK, 0, "", 0, 1000, &result);
	target_trace(&t, path, sizeof(path));
	result = t.page->self.state == MT_CONTROL_RECORDING && path[0];
	target_close(&t);
	if (!result) {
		complain("process %s is not being recorded; see memtrace attach", argument);
		return 1;
	}
	snprintf(out, size, "%s", path);
	if (access(out, R_OK) < 0) /* in other file systems than ours */
		snprintf(out, size, "/proc/%d/root%.*s", (int)pid, PATH_MAX - 1, path);
	return 0;
}

/* ---- documents --------------------------------------------------------------------------------------- */

static int feed_open(struct feed *f, const char *program, const char *trace, const char *interval)
{
	int fds[2];

	*f = (struct feed){ .fd = -1 };
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -1;
	f->pid = fork();
	if (f->pid == 0) {
		dup2(fds[1], STDOUT_FILENO);
		execl(program, "memtrace-report", "watch", trace, interval, (char *)NULL);
		_exit(127);
	}
	close(fds[1]);
	f->fd = fds[0];
	return f->pid < 0 ? -1 : 0;
}

/* The status that the child left with; 0 for one that had not ended. */
static int feed_close(struct feed *f)
{
	int status = 0;

	if (f->fd >= 0)
		close(f->fd);
	if (f->pid > 0) {
		if (!f->ended)
			kill(f->pid, SIGTERM);
		if (waitpid(f->pid, &status, 0) != f->pid || !WIFEXITED(status))
			status = 0;
	}
	free(f->text);
	return WEXITSTATUS(status);
}

static void feed_read(struct feed *f)
{
	char *more;
	ssize_t n;

	if (f->room - f->used < 65536) {
		more = realloc(f->text, f->room + (1 << 18));
		if (!more)
			return;
		f->text = more;
		f->room += 1 << 18;
	}
	n = read(f->fd, f->text + f->used, f->room - f->used - 1);
	if (n > 0)
		f->used += (size_t)n;
	else if (n == 0 || errno != EINTR)
		f->ended = 1;
}

/* The next document if it is there within `ms`; NULL: not yet, or no more. */
static cJSON *feed_next(struct feed *f, int ms)
{
	struct pollfd p = { .fd = f->fd, .events = POLLIN };
	char *end = f->used ? memchr(f->text, SEPARATOR, f->used) : NULL;
	size_t length;
	cJSON *doc;

	if (!end && !f->ended && poll(&p, 1, ms) > 0) {
		feed_read(f);
		end = f->used ? memchr(f->text, SEPARATOR, f->used) : NULL;
	}
	if (!end && !(f->ended && f->used))
		return NULL;
	length = end ? (size_t)(end - f->text) : f->used;
	doc = cJSON_ParseWithLength(f->text, length);
	length += end != NULL;
	f->used -= length;
	memmove(f->text, f->text + length, f->used);
	return doc;
}

/* The document's text, as the analyzer's own; 1: there was none. */
static int show_json(struct feed *f, int once)
{
	int any = 0;

	while (!(f->ended && !f->used)) {
		cJSON *doc = feed_next(f, 1000);
		char *text;

		if (!doc)
			continue;
		top_ask_nvml(doc, once);
		text = cJSON_Print(doc);
		if (text)
			printf("%s%s\n", any ? "\x1e\n" : "", text);
		any = 1;
		free(text);
		cJSON_Delete(doc);
		if (fflush(stdout))
			return EXIT_OWN_FAILURE;
	}
	return !any;
}

/* ---- showing ------------------------------------------------------------------------------------------- */

static int show_once(struct feed *f)
{
	struct top_view view = { .with_ended = 1 };
	struct top_lines lines = { 0 };
	cJSON *doc = NULL;

	while (!doc && !(f->ended && !f->used))
		doc = feed_next(f, 1000);
	if (!doc)
		return 1; /* the child has said why */
	top_ask_nvml(doc, 1);
	top_render(doc, &view, 0, 0, &lines);
	for (size_t i = 0; i < lines.count; i++)
		puts(lines.text[i]);
	free(lines.text);
	cJSON_Delete(doc);
	return fflush(stdout) ? EXIT_OWN_FAILURE : 0;
}

/* 1: quit. */
static int on_key(int key, struct top_view *view, const cJSON *doc)
{
	switch (key) {
	case 's':
		view->order = (view->order + 1) % TOP_ORDERS;
		break;
	case 'g':
		view->sites_by_live = !view->sites_by_live;
		break;
	case 'p':
		view->focus = doc ? top_next_process(doc, view->focus) : 0;
		break;
	case 'L' & 31: /* as elsewhere: somebody else has written on the terminal */
		screen_redraw();
		break;
	case 'e':
		view->with_ended = !view->with_ended;
		break;
	default:
		return key == 'q' || key == 'Q'; /* no escape: keys that send one are many */
	}
	return 0;
}

static volatile sig_atomic_t stopped;

static void on_stop(int signo)
{
	(void)signo;
	stopped = 1;
}

static int show_live(struct feed *f)
{
	struct sigaction action = { .sa_handler = on_stop };
	struct top_view view = { 0 };
	struct top_lines lines = { 0 };
	cJSON *doc = NULL, *next;
	int width, height, any = 0;

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	while (!stopped && !(f->ended && !f->used && !doc)) {
		next = feed_next(f, 0);
		if (next) {
			cJSON_Delete(doc);
			doc = next;
			top_ask_nvml(doc, 0);
			any = 1;
		}
		if (doc) {
			screen_size(&width, &height);
			top_render(doc, &view, width, height, &lines);
			screen_show(&lines);
		}
		if (on_key(screen_key(KEY_MS), &view, doc))
			break;
	}
	screen_close();
	cJSON_Delete(doc);
	free(lines.text);
	return any || stopped ? 0 : 1;
}

int command_top(int argc, char **argv)
{
	char path[PATH_MAX + 64], program[PATH_MAX];
	int once = 0, json = 0, status, ended;
	const char *what = NULL;
	struct feed f;

	for (int i = 1; i < argc; i++) {
		once |= !strcmp(argv[i], "--once");
		json |= !strcmp(argv[i], "--json");
		if (!strcmp(argv[i], "--once") || !strcmp(argv[i], "--json"))
			continue;
		if (what || argv[i][0] == '-') {
			complain("top: PID or TRACE, --once, --json; not %s", argv[i]);
			return EXIT_USAGE;
		}
		what = argv[i];
	}
	if (!what) {
		complain("top: of which process or trace? See memtrace --help");
		return EXIT_USAGE;
	}
	if (find_part("memtrace-report", program, sizeof(program)) < 0)
		return EXIT_USAGE;
	status = trace_of(what, path, sizeof(path));
	if (status)
		return status;
	once |= !json && !isatty(STDOUT_FILENO);
	if (feed_open(&f, program, path, once ? "0" : INTERVAL) < 0) {
		complain("cannot start %s: %s", program, strerror(errno));
		return EXIT_OWN_FAILURE;
	}
	if (json)
		status = show_json(&f, once);
	else
		status = !once && screen_open() ? show_live(&f) : show_once(&f);
	top_end_nvml();
	ended = feed_close(&f);
	return json && ended ? ended : status;
}
