/*
 * What records tell of a followed process, but for its blocks. See follow.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "live/follow.h"
#include "memtrace/format.h"
#include "util/alloc.h"

static char *command_of(struct mt_str text)
{
	char *s = xmalloc(text.len + 1);

	for (uint32_t i = 0; i < text.len; i++)
		s[i] = text.data[i] ? text.data[i] : ' ';
	s[text.len] = '\0';
	return s;
}

static bool is(struct mt_str text, const char *word)
{
	return text.len == strlen(word) && !memcmp(text.data, word, text.len);
}

static bool begins(struct mt_str text, const char *with)
{
	return text.len > strlen(with) && !memcmp(text.data, with, strlen(with));
}

static void fact(struct follow_proc *p, const struct mt_ev_fact *e)
{
	char number[32];

	if (is(e->key, "cmdline")) {
		free(p->command);
		p->command = command_of(e->value);
	} else if (is(e->key, "memory_total") && e->value.len < sizeof(number)) {
		memcpy(number, e->value.data, e->value.len);
		number[e->value.len] = '\0';
		p->memory_total = strtoull(number, NULL, 10);
	}
}

static void process(struct follow_proc *p, const struct mt_ev_process *e)
{
	if (p->known)
		return;
	p->known = true;
	p->ev = *e;
	dict_release(&p->dict);
	dict_init(&p->dict, e);
}

static void module(struct follow *f, struct follow_proc *p, const struct mt_ev_module *e)
{
	struct mt_str *path = vec_push(&p->modules);

	path->data = arena_strndup(&f->texts, e->path.data, e->path.len);
	path->len = e->path.len;
	dict_add_module(&p->dict, e->id, (uint32_t)p->modules.count - 1);
}

/* The rate of the counter: the line through the header's reading of both clocks and this one. */
static void clock_read(struct follow *f, const struct mt_ev_clock *e)
{
	const struct mt_file_header *h = (const struct mt_file_header *)f->base;

	if ((h->flags & MT_FILE_TSC) && e->monotonic_ns > h->start_monotonic_ns + 1000000 &&
	    e->ticks > h->start_ticks)
		f->per_second = (double)(e->ticks - h->start_ticks) * 1e9 /
				(double)(e->monotonic_ns - h->start_monotonic_ns) /
				(double)(UINT64_C(1) << h->time_shift);
}

static void mark(struct follow *f, const struct mt_ev_mark *e)
{
	struct follow_note *n;

	/* Those of the shim, preload/samplers/pressure.c. */
	if (!begins(e->label, "RAM at ") && !begins(e->label, "cgroup at ") &&
	    !begins(e->label, "GPU "))
		return;
	n = vec_push(&f->notes);
	n->s = follow_seconds(f, e->time);
	n->text = command_of(e->label);
}

/* What is costly to measure is not in every sample: then the last one that has it counts. */
static void sample(struct follow_proc *p, const struct mt_ev_sample *e)
{
	uint64_t fresh[sizeof(*e) / 8], have[sizeof(*e) / 8];

	memcpy(fresh, e, sizeof(fresh));
	memcpy(have, &p->sample, sizeof(have));
	for (size_t i = 0; i < sizeof(fresh) / sizeof(fresh[0]); i++)
		have[i] = fresh[i] ? fresh[i] : have[i];
	memcpy(&p->sample, have, sizeof(have));
}

static void define(struct follow *f, struct follow_proc *p, const struct mt_record *r)
{
	switch (r->id) {
	case MT_EV_NODE:
		dict_add_node(&p->dict, &r->u.node);
		break;
	case MT_EV_FRAME:
		dict_add_frame(&p->dict, &r->u.frame);
		break;
	case MT_EV_MODULE:
		module(f, p, &r->u.module);
		break;
	case MT_EV_STRING:
		dict_add_string(&p->dict, &r->u.string, &f->texts);
		break;
	case MT_EV_CODE:
		dict_add_code(&p->dict, &r->u.code, &f->texts);
		break;
	case MT_EV_PYNODE:
		dict_add_pynode(&p->dict, &r->u.pynode);
		break;
	default:
		break;
	}
}

void follow_tell(struct follow *f, uint32_t proc, const struct mt_record *r)
{
	struct follow_proc *p = &f->procs.items[proc];

	switch (r->id) {
	case MT_EV_PROCESS:
		process(p, &r->u.process);
		break;
	case MT_EV_CLOCK:
		clock_read(f, &r->u.clock);
		break;
	case MT_EV_FACT:
		fact(p, &r->u.fact);
		break;
	case MT_EV_SAMPLE:
		if ((!r->u.sample.pid || r->u.sample.pid == p->ev.pid) &&
		    r->u.sample.time >= p->sample.time) {
			sample(p, &r->u.sample);
			p->sample_s = follow_seconds(f, r->u.sample.time);
			f->last = r->u.sample.time > f->last ? r->u.sample.time : f->last;
		}
		break;
	case MT_EV_EXIT:
		p->ended = r->u.exit.kind != MT_EXIT_DETACHED;
		break;
	case MT_EV_EXEC:
		p->ended |= r->u.exec.pid == p->ev.pid;
		break;
	case MT_EV_EXEC_FAILED:
		p->ended = false;
		break;
	case MT_EV_BEFORE:
		p->late = true;
		break;
	case MT_EV_MARK:
		mark(f, &r->u.mark);
		break;
	case MT_EV_GPU_SEEN:
		devices_seen(f, &r->u.gpu_seen);
		break;
	case MT_EV_SCAN:
	case MT_EV_RANGE:
	case MT_EV_SCAN_END:
		copies_record(f, proc, r);
		break;
	default:
		if (!devices_record(p, r))
			define(f, p, r);
	}
}
