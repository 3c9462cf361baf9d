/*
 * What a process held when its recording began in mid-run (BEFORE records). See before.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "analysis/before.h"

#include <stdlib.h>
#include <string.h>

#include "analysis/common.h"
#include "analysis/findings.h"

static struct before_part part(const char *name, uint64_t v)
{
	return (struct before_part){ name, v ? v - 1 : 0, v != 0 };
}

static uint64_t or_zero(uint64_t v)
{
	return v ? v - 1 : 0;
}

/*
 * Private memory that is neither libc's allocator's nor a stack or data of a library: pymalloc's
 * arenas, other allocators, mappings of the program's own. libc says how much address space its
 * allocator has, of which not all need be resident: so this is at least as much as it says.
 */
static uint64_t mappings(const struct mt_ev_before *v)
{
	uint64_t anon = or_zero(v->anon) + or_zero(v->swap);
	uint64_t known = or_zero(v->heap_arena) + or_zero(v->heap_mapped) + or_zero(v->stacks) +
			 or_zero(v->libraries);

	return anon > known ? anon - known : 0;
}

/* The number ahead of `what` in the lines of an OLDER record. */
static bool older_value(const struct process *p, const char *what, uint64_t *value)
{
	size_t length = strlen(what);

	for (const char *line = p->older; line && *line; line = strchr(line, '\n')) {
		char *end;

		line += *line == '\n';
		*value = strtoull(line, &end, 10);
		if (end != line && *end == ' ' && !strncmp(end + 1, what, length) &&
		    (!end[1 + length] || end[1 + length] == '\n'))
			return true;
	}
	return false;
}

const char *before_library(const struct process *p, const char **at, int *length, uint64_t *bytes)
{
	static const char word[] = " library ";
	const char *line = *at ? *at : p->older;

	for (; line && *line; line += strcspn(line, "\n"), line += *line == '\n') {
		char *end;

		*bytes = strtoull(line, &end, 10);
		if (end == line || strncmp(end, word, sizeof(word) - 1) != 0)
			continue;
		end += sizeof(word) - 1;
		*length = (int)strcspn(end, "\n");
		*at = end + *length;
		return end;
	}
	return NULL;
}

/* What its pages say, if they were looked at and libc told of the rest; else what is left over. */
static uint64_t other_mappings(const struct process *p, uint64_t *blocks, uint64_t *unused)
{
	uint64_t other, pools;
	bool looked = older_value(p, "other_mappings", &other) &&
		      older_value(p, "python_blocks", blocks) &&
		      older_value(p, "python_pools", &pools) && pools >= *blocks;

	*unused = looked ? pools - *blocks + 1 : 0;
	*blocks = looked ? *blocks + 1 : 0;
	if (!looked || !p->before.heap_used)
		other = mappings(&p->before);
	return other > or_zero(*unused) ? other - or_zero(*unused) : 0;
}

bool before_of(const struct process *p, struct before *b)
{
	const struct mt_ev_before *v = &p->before;
	uint64_t other, blocks = 0, unused = 0;

	if (!p->late)
		return false;
	other = other_mappings(p, &blocks, &unused);
	b->known = v->anon != 0;
	b->bytes = or_zero(v->heap_used) + other;
	b->parts[0] = part("heap_used_bytes", v->heap_used);
	b->parts[1] = part("heap_free_bytes", v->heap_free);
	b->parts[2] = part("other_mappings_bytes", v->anon ? other + 1 : 0);
	b->parts[3] = part("stacks_bytes", v->stacks);
	b->parts[4] = part("libraries_bytes", v->libraries);
	b->parts[5] = part("resident_bytes", v->anon);
	b->parts[6] = part("swap_bytes", v->swap);
	b->parts[7] = part("file_bytes", v->file);
	b->parts[8] = part("shm_bytes", v->shmem);
	b->parts[9] = part("python_blocks_bytes", blocks);
	b->parts[10] = part("python_free_bytes", unused);
	return true;
}

static void explain(struct finding *f, const struct process *p, const struct before *b)
{
	if (p->before.heap_used) {
		strbuf_addstr(&f->detail, "Of that, ");
		size_add(&f->detail, b->parts[0].bytes);
		strbuf_addstr(&f->detail,
			      " are in blocks of libc's allocator by its own count, and ");
	} else {
		strbuf_addstr(&f->detail,
			      "What of it is in blocks could not be asked of the allocator; ");
	}
	size_add(&f->detail, b->parts[2].bytes);
	strbuf_addstr(&f->detail, " in other private mappings");
	if (b->parts[9].known && b->parts[9].bytes) {
		strbuf_addstr(&f->detail, ", ");
		size_add(&f->detail, b->parts[9].bytes);
		strbuf_addstr(&f->detail, " of which are Python's small objects");
	}
	strbuf_addstr(&f->detail, ". ");
	if (p->unknown_frees)
		strbuf_addf(&f->detail, "%llu of those blocks were freed while it was recorded. ",
			    (unsigned long long)p->unknown_frees);
	strbuf_addstr(&f->detail, "Who allocated it is not known: all sites and verdicts here are "
				  "about what came after.");
	strbuf_addstr(&f->advice,
		      "To see it, record from the start: memtrace run, or --mode sample "
		      "where that is too much.");
}

void find_older(struct findings *all)
{
	const struct model *m = all->in->m;
	struct before b;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *p = &m->processes[i];
		struct finding *f;

		if (!before_of(p, &b) || !b.known)
			continue;
		f = finding_new(all, "uncovered-memory", SEVERITY_INFO);
		finding_process(f, p->id);
		finding_bytes(f, b.bytes);
		size_add(&f->title, b.bytes);
		strbuf_addstr(&f->title, " of ");
		process_name_add(&f->title, p);
		strbuf_addf(&f->title, " are older than its recording, which began at %.1f s",
			    process_seconds(m, p, p->start));
		explain(f, p, &b);
		finding_text(f, "reason", "attached late");
		for (size_t k = 0; k < BEFORE_PARTS; k++)
			if (b.parts[k].known)
				finding_int(f, b.parts[k].name, b.parts[k].bytes);
		finding_int(f, "freed_since", p->unknown_frees);
	}
}
