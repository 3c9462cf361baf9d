/*
 * See input.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "pipeline/input.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/strbuf.h"

/* ---- one trace ------------------------------------------------------------------------------- */

/* The later a clock reading, the better the rate between it and the trace's start. */
static void see_clock(struct input *in, const struct mt_ev_clock *e)
{
	if (e->ticks > in->clock.ticks) {
		in->clock.ticks = e->ticks;
		in->clock.monotonic_ns = e->monotonic_ns;
	}
}

/* A cut trace may have lost its nurseries, but not what its records say. */
static bool tells_of_folds(const struct mt_record *r)
{
	const struct mt_ev_fact *e = &r->u.fact;

	if (r->id == MT_EV_FACT)
		return e->key.len == 6 && !memcmp(e->key.data, "events", 6) && e->value.len == 6 &&
		       !memcmp(e->value.data, "folded", 6);
	return r->id == MT_EV_SURVIVOR || r->id == MT_EV_YOUNG;
}

static void scan_chunk(struct input *in, struct input_process *p, const struct trace_chunk *chunk)
{
	struct cursor c;

	cursor_init_chunk(&c, in->trace, chunk);
	while (cursor_next(&c)) {
		if (c.record.id == MT_EV_CLOCK)
			see_clock(in, &c.record.u.clock);
		if (tells_of_folds(&c.record))
			trace_set_folded(in->trace);
		if (c.record.id == MT_EV_PROCESS && !p->known) {
			p->ev = c.record.u.process;
			p->known = true;
		}
	}
	cursor_release(&c);
}

/* Who it is stands at the start of its streams; clocks are read at the start and now and then. */
static void scan_process(struct input *in, struct input_process *p)
{
	size_t count;
	const struct trace_stream *streams = trace_streams(in->trace, &count) + p->process->first;
	const struct trace_chunk *chunks = trace_chunks(in->trace, &count);

	p->first_time = UINT64_MAX;
	for (size_t i = 0; i < p->process->count; i++) {
		const struct trace_chunk *first = chunks + streams[i].first;

		if (first->base_time < p->first_time)
			p->first_time = first->base_time;
		if (streams[i].count > 0)
			scan_chunk(in, p, first);
		if (streams[i].count > 1)
			scan_chunk(in, p, first + streams[i].count - 1);
	}
}

void input_init(struct input *in, struct trace *t)
{
	struct trace_problems before = *trace_damage(t);
	size_t count;
	const struct trace_process *processes = trace_processes(t, &count);

	memset(in, 0, sizeof(*in));
	in->trace = t;
	for (size_t i = 0; i < count; i++) {
		struct input_process *p = vec_push(&in->processes);

		p->process = &processes[i];
		scan_process(in, p);
	}
	*trace_damage(t) = before; /* all of it is read again, and counted then */
}

void input_release(struct input *in)
{
	vec_release(&in->processes);
	trace_close(in->trace);
	in->trace = NULL;
}

struct build_trace input_info(const struct input *in)
{
	return (struct build_trace){ .path = trace_path(in->trace),
				     .bytes = trace_bytes(in->trace),
				     .header = trace_header(in->trace),
				     .clock = in->clock };
}

/* ---- all traces of a run --------------------------------------------------------------------- */

void report_error(struct pipeline_report *rep, char *text)
{
	rep->errors = xrealloc(rep->errors, rep->error_count + 1, sizeof(*rep->errors));
	rep->errors[rep->error_count++] = text;
}

static bool is_known(const input_list *list, const struct trace *t)
{
	static const uint8_t none[MT_TRACE_ID_BYTES];
	const uint8_t *id = trace_header(t)->trace_id;

	for (size_t i = 0; i < list->count; i++)
		if (memcmp(id, none, sizeof(none)) != 0 &&
		    !memcmp(id, trace_header(list->items[i].trace)->trace_id, sizeof(none)))
			return true;
	return false;
}

static void open_file(input_list *list, const char *path, struct pipeline_report *rep)
{
	struct strbuf text = STRBUF_INIT;
	char *error = NULL;
	struct trace *t = trace_open(path, &error);

	if (!t) {
		report_error(rep, error);
	} else if (is_known(list, t)) {
		strbuf_addf(&text, "%s: the same trace as one before it, left out", path);
		report_error(rep, strbuf_detach(&text));
		trace_close(t);
	} else {
		input_init(vec_push(list), t);
	}
}

/* In a folder other files are none of our business. */
static bool looks_like_trace(const char *path)
{
	char magic[8];
	struct stat st;
	int fd;
	bool yes;

	if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
		return false;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	yes = fd >= 0 && read(fd, magic, sizeof(magic)) == sizeof(magic) &&
	      !memcmp(magic, MT_FILE_MAGIC, sizeof(magic));
	if (fd >= 0)
		close(fd);
	return yes;
}

static void open_folder(input_list *list, const char *path, struct pipeline_report *rep)
{
	struct dirent **names = NULL;
	int n = scandir(path, &names, NULL, alphasort);
	struct strbuf file = STRBUF_INIT;
	size_t before = list->count + rep->error_count;

	for (int i = 0; i < n; i++) {
		strbuf_reset(&file);
		strbuf_addf(&file, "%s/%s", path, names[i]->d_name);
		if (looks_like_trace(file.buf))
			open_file(list, file.buf, rep);
		free(names[i]);
	}
	free(names);
	strbuf_reset(&file);
	if (n < 0)
		strbuf_addf(&file, "%s: cannot be opened: %s", path, strerror(errno));
	else if (list->count + rep->error_count == before)
		strbuf_addf(&file, "%s: no trace in this folder", path);
	if (file.len)
		report_error(rep, strbuf_detach(&file));
	strbuf_release(&file);
}

void inputs_open(input_list *list, const char *path, struct pipeline_report *rep)
{
	struct stat st;

	if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
		open_folder(list, path, rep);
	else
		open_file(list, path, rep);
}

/* ---- times ----------------------------------------------------------------------------------- */

static bool find_mark(struct input *in, const char *label, uint64_t *units)
{
	struct trace_problems before = *trace_damage(in->trace);
	size_t count, len = strlen(label);
	const struct trace_stream *streams = trace_streams(in->trace, &count);
	bool found = false;

	for (size_t i = 0; i < count; i++) {
		struct cursor c;

		cursor_init(&c, in->trace, &streams[i]);
		while (cursor_next(&c)) {
			const struct mt_ev_mark *e = &c.record.u.mark;

			if (c.record.id != MT_EV_MARK || e->label.len != len ||
			    memcmp(e->label.data, label, len) != 0 || (found && *units <= e->time))
				continue;
			*units = e->time;
			found = true;
		}
		cursor_release(&c);
	}
	*trace_damage(in->trace) = before;
	return found;
}

static bool mark_time(input_list *list, const char *label, int64_t *ns)
{
	for (size_t i = 0; i < list->count; i++) {
		struct build_trace info = input_info(&list->items[i]);
		struct builder *b;
		uint64_t units;

		if (!find_mark(&list->items[i], label, &units))
			continue;
		b = builder_new(NULL);
		*ns = builder_ns(b, builder_trace(b, &info), units);
		builder_free(b);
		return true;
	}
	return false;
}

bool input_time(input_list *list, const char *text, int64_t *ns, char **error)
{
	struct strbuf sb = STRBUF_INIT;
	char *end;
	double seconds;

	if (text[0] == '@') {
		if (mark_time(list, text + 1, ns))
			return true;
		strbuf_addf(&sb, "no mark is called \"%s\" in the trace", text + 1);
		*error = strbuf_detach(&sb);
		return false;
	}
	seconds = strtod(text, &end);
	if (end != text && !*end && isfinite(seconds) && fabs(seconds) < 1e9) {
		*ns = (int64_t)(seconds * 1e9);
		return true;
	}
	strbuf_addf(&sb, "\"%s\" is not a time: seconds from the start, or @ and a mark's label",
		    text);
	*error = strbuf_detach(&sb);
	return false;
}
