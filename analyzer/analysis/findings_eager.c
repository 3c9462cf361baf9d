/*
 * What a fork itself copied, as a finding: pages that were pinned for a device, so that the kernel
 * could not let parent and child share them; and which line had pinned them, where CUDA was asked to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"
#include "analysis/sharing.h"
#include "util/hashmap.h"

#define MIN_EAGER (UINT64_C(8) << 20)
#define SHOWN 3

struct pinner { /* a line that pinned memory, and what forks copied of that */
	char *text;
	bool is_registered;
	uint64_t bytes;
	uint32_t processes, last;
};

struct eager {
	struct findings *all;
	uint64_t copied, largest, pinned, registered;
	VEC(uint32_t) processes;
	VEC(struct pinner) pinners;
	struct hashmap by_text;
};

static void add_pinned(struct eager *e, uint32_t process, const struct cow_pinned *part)
{
	struct strbuf text = STRBUF_INIT;
	struct pinner *p;
	struct stack st;
	uint64_t *slot;
	bool is_new;

	stack_merge(e->all->in->m, e->all->in->symbols, part->native, part->python, &st);
	place_add(&text, &st);
	stack_release(&st);
	strbuf_addstr(&text, part->is_registered ? " (registered)" : " (allocated pinned)");
	slot = hashmap_slot(&e->by_text, text.buf, text.len, &is_new);
	if (is_new) {
		*slot = e->pinners.count;
		p = vec_push(&e->pinners);
		*p = (struct pinner){ .text = xstrdup(text.buf),
				      .is_registered = part->is_registered,
				      .last = NO_ID };
	}
	strbuf_release(&text);
	p = &e->pinners.items[*slot];
	p->bytes += part->bytes;
	p->processes += p->last != process;
	p->last = process;
	e->pinned += part->bytes;
	e->registered += part->is_registered ? part->bytes : 0;
}

static int by_bytes(const void *a, const void *b)
{
	const struct pinner *x = a, *y = b;

	return x->bytes == y->bytes ? strcmp(x->text, y->text) : x->bytes > y->bytes ? -1 : 1;
}

static void collect(struct eager *e)
{
	const struct model *m = e->all->in->m;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process_cow *cow = m->processes[i].cow;

		if (!cow || !cow->has_baseline || cow->eager < MIN_EAGER)
			continue;
		e->copied += cow->eager;
		e->largest = cow->eager > e->largest ? cow->eager : e->largest;
		*vec_push(&e->processes) = (uint32_t)i;
		for (size_t k = 0; k < cow->pinned_count; k++)
			add_pinned(e, (uint32_t)i, &cow->pinned[k]);
	}
	if (e->pinners.count)
		qsort(e->pinners.items, e->pinners.count, sizeof(*e->pinners.items), by_bytes);
}

/* Whose it was, as far as CUDA was asked; what else pins memory makes no call that is seen. */
static void say_pinners(struct eager *e, struct finding *f)
{
	if (!e->pinned) {
		strbuf_addstr(&f->detail,
			      " None of it lay in memory that was pinned through CUDA: RDMA, "
			      "io_uring or direct I/O under way pin memory without a call that is "
			      "recorded.");
		return;
	}
	strbuf_addstr(&f->detail, " Of it ");
	size_add(&f->detail, e->pinned);
	strbuf_addstr(&f->detail, " lay in memory that the parent had pinned for CUDA: ");
	for (size_t i = 0; i < e->pinners.count && i < SHOWN; i++) {
		const struct pinner *p = &e->pinners.items[i];

		strbuf_addstr(&f->detail, i ? "; " : "");
		size_add(&f->detail, p->bytes);
		strbuf_addf(&f->detail, " in %u process%s at %s", p->processes,
			    p->processes == 1 ? "" : "es", p->text);
	}
	strbuf_addstr(&f->detail, e->pinners.count > SHOWN ? "; and others." : ".");
}

static void put(struct eager *e)
{
	const struct model *m = e->all->in->m;
	struct finding *f = finding_new(e->all, "eager-copy", SEVERITY_WARNING);
	struct strbuf item = STRBUF_INIT;

	finding_bytes(f, e->copied);
	strbuf_addstr(&f->title, "the fork itself copied ");
	size_add(&f->title, e->copied);
	strbuf_addstr(&f->title, " for ");
	if (e->processes.count == 1)
		process_name_add(&f->title, &m->processes[e->processes.items[0]]);
	else
		strbuf_addf(&f->title, "%zu forked workers", e->processes.count);
	if (e->pinned > e->copied / 2)
		strbuf_addf(&f->title, ": pinned memory from %s", e->pinners.items[0].text);
	strbuf_addstr(
		&f->detail,
		"These pages were the child's own when it had hardly begun. The kernel copies "
		"at a fork what is pinned for a device (CUDA host memory, RDMA, io_uring "
		"buffers).");
	say_pinners(e, f);
	strbuf_addf(&f->advice,
		    "Start the workers before memory is %s, or by spawn or forkserver "
		    "(multiprocessing_context='spawn'), or keep pinned buffers from children: "
		    "madvise(MADV_DONTFORK).",
		    e->registered > e->pinned / 2 ? "registered (cudaHostRegister)" : "pinned");
	for (size_t i = 0; i < e->processes.count; i++)
		finding_process(f, e->processes.items[i]);
	finding_int(f, "eager_bytes", e->copied);
	finding_int(f, "most_in_one_worker", e->largest);
	finding_int(f, "pinned_for_cuda_bytes", e->pinned);
	for (size_t i = 0; i < e->pinners.count; i++) {
		strbuf_reset(&item);
		strbuf_addf(&item, "%llu bytes: %s", (unsigned long long)e->pinners.items[i].bytes,
			    e->pinners.items[i].text);
		finding_item(f, "pinned_at", item.buf);
	}
	strbuf_release(&item);
}

void find_eager(struct findings *all)
{
	struct eager e = { .all = all, .by_text = HASHMAP_INIT };

	collect(&e);
	if (e.processes.count)
		put(&e);
	for (size_t i = 0; i < e.pinners.count; i++)
		free(e.pinners.items[i].text);
	vec_release(&e.pinners);
	vec_release(&e.processes);
	hashmap_release(&e.by_text);
}
