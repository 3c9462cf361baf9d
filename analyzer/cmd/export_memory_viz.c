/*
 * export --format memory-viz: device memory as a snapshot that PyTorch's memory_viz page and
 * torch.cuda._memory_viz open: of one process (several have the same addresses), of each device the
 * moment with most stranded memory, or else the end.
 *
 * A pickle of protocol 2 of dictionaries, lists, integers and texts. The page reads only some of the
 * opcodes: integers of more than eight bytes become a type there that it can't calculate with, and
 * a list is filled one by one because it takes no long run at once.
 *
 * What the trace can't tell stands as what harms least: stream 0, and the requested size is the
 * block's, which is PyTorch's rounded one. The list of events is empty.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "analysis/stack.h"
#include "cmd/export.h"
#include "util/die.h"

#define SMALL_SEGMENT (UINT64_C(2) << 20) /* PyTorch's, for blocks of up to 1 MiB */

struct pickle {
	FILE *out;
	const struct model *m;
	struct symbolizer *symbols;
};

static void put_bytes(struct pickle *p, const void *bytes, size_t n)
{
	fwrite(bytes, 1, n, p->out);
}

static void put_text(struct pickle *p, const char *text)
{
	uint32_t n = (uint32_t)strlen(text);

	fputc('X', p->out); /* BINUNICODE */
	put_bytes(p, &n, sizeof(n));
	put_bytes(p, text, n);
}

static void put_number(struct pickle *p, uint64_t v)
{
	static const unsigned char head[] = { 0x8a, 8 }; /* LONG1 of 8 bytes */

	if (v > INT64_MAX)
		v = INT64_MAX;
	if (v < 256) {
		fputc('K', p->out); /* BININT1 */
		fputc((int)v, p->out);
	} else {
		put_bytes(p, head, sizeof(head));
		put_bytes(p, &v, sizeof(v));
	}
}

static void begin_dictionary(struct pickle *p)
{
	put_bytes(p, "}(", 2); /* EMPTY_DICT MARK */
}

static void end_dictionary(struct pickle *p)
{
	fputc('u', p->out); /* SETITEMS */
}

static void begin_list(struct pickle *p)
{
	fputc(']', p->out); /* EMPTY_LIST */
}

static void to_list(struct pickle *p)
{
	fputc('a', p->out); /* APPEND */
}

static void item_text(struct pickle *p, const char *key, const char *text)
{
	put_text(p, key);
	put_text(p, text);
}

static void item_number(struct pickle *p, const char *key, uint64_t v)
{
	put_text(p, key);
	put_number(p, v);
}

static void put_frames(struct pickle *p, uint32_t site)
{
	const struct site *s = site == NO_ID ? NULL : &p->m->sites[site];
	struct stack st;

	put_text(p, "frames");
	begin_list(p);
	if (!s)
		return;
	stack_merge(p->m, p->symbols, s->native, s->python, &st);
	for (size_t i = 0; i < st.frames.count; i++) {
		const struct symbol_frame *f = &st.frames.items[i].f;

		if (st.frames.items[i].plumbing)
			continue;
		begin_dictionary(p);
		item_text(p, "filename", f->file ? f->file : f->module ? f->module : "??");
		item_number(p, "line", f->line);
		item_text(p, "name", f->function ? f->function : "??");
		end_dictionary(p);
		to_list(p);
	}
	stack_release(&st);
}

/* Was it taken by PyTorch's allocator, or by somebody for itself? */
static bool is_cached(const struct pickle *p, uint32_t site)
{
	const struct site *s = site == NO_ID ? NULL : &p->m->sites[site];
	bool found = false;
	struct stack st;

	if (!s)
		return false;
	stack_merge(p->m, p->symbols, s->native, s->python, &st);
	for (size_t i = 0; i < st.frames.count && !found; i++) {
		const char *module = st.frames.items[i].f.module;

		found = module && strstr(module, "libc10_cuda");
	}
	stack_release(&st);
	return found;
}

static void put_block(struct pickle *p, uint64_t addr, uint64_t size, const uint32_t *site)
{
	if (!size)
		return;
	begin_dictionary(p);
	item_number(p, "address", addr);
	item_number(p, "size", size);
	item_number(p, "requested_size", site ? size : 0);
	item_text(p, "state", site ? "active_allocated" : "inactive");
	put_frames(p, site ? *site : NO_ID);
	end_dictionary(p);
	to_list(p);
}

/* Blocks cover their segment without a gap: the page takes each to begin where the last one ends. */
static void put_blocks(struct pickle *p, const struct gpu_snapshot *s,
		       const struct gpu_segment *seg, uint64_t end, size_t block_count)
{
	const struct gpu_block *b = &s->blocks[seg->first_block], *last = b + block_count;
	uint64_t at = seg->addr;

	while (b < last) {
		const struct gpu_block *first = b;
		uint64_t to = b->addr + b->size;

		for (b++; b < last && b->is_rest; b++)
			to += b->size; /* the mappings it reaches over are one here */
		if (first->addr < at || to > end)
			continue; /* damaged: it overlaps the one before */
		put_block(p, at, first->addr - at, NULL);
		put_block(p, first->addr, to - first->addr, &first->site);
		at = to;
	}
	put_block(p, at, end - at, NULL);
}

/* The mappings that follow each other from segment `from` on are one segment. Returns the next. */
static size_t put_segment(struct pickle *p, const struct gpu_device *d,
			  const struct gpu_snapshot *s, size_t from)
{
	const struct gpu_segment *seg = &s->segments[from];
	uint64_t end = seg->addr + seg->size, used = seg->used;
	size_t next = from + 1, blocks = seg->block_count;
	bool direct;

	for (; seg->is_mapping && next < s->segment_count && s->segments[next].is_mapping &&
	       s->segments[next].addr == end;
	     next++) {
		end += s->segments[next].size;
		used += s->segments[next].used;
		blocks += s->segments[next].block_count;
	}
	direct = !blocks && (!d->has_torch || !is_cached(p, seg->site));
	if (direct)
		used = end - seg->addr;
	begin_dictionary(p);
	item_number(p, "device", d->device == UINT32_MAX ? 0 : d->device);
	item_number(p, "address", seg->addr);
	item_number(p, "total_size", end - seg->addr);
	item_number(p, "allocated_size", used);
	item_number(p, "active_size", used);
	item_number(p, "requested_size", used);
	item_number(p, "stream", 0);
	item_text(p, "segment_type", end - seg->addr <= SMALL_SEGMENT ? "small" : "large");
	put_text(p, "is_expandable");
	fputc(seg->is_mapping ? 0x88 : 0x89, p->out); /* NEWTRUE, NEWFALSE */
	put_frames(p, seg->site);
	put_text(p, "blocks");
	begin_list(p);
	if (direct)
		put_block(p, seg->addr, used, &seg->site);
	else
		put_blocks(p, s, seg, end, blocks);
	end_dictionary(p);
	to_list(p);
	return next;
}

static void put_snapshot(struct pickle *p, const struct gpu_process *g)
{
	size_t devices = 1;

	put_bytes(p, "\x80\x02", 2);
	begin_dictionary(p);
	put_text(p, "segments");
	begin_list(p);
	for (size_t k = 0; k < g->device_count; k++) {
		const struct gpu_device *d = &g->devices[k];
		const struct gpu_snapshot *s = d->worst.stranded ? &d->worst : &d->last;

		if (d->device != UINT32_MAX && d->device >= devices && d->device < 256)
			devices = d->device + 1;
		for (size_t n = 0; n < s->segment_count;)
			n = put_segment(p, d, s, n);
	}
	put_text(p, "device_traces");
	begin_list(p);
	for (; devices; devices--) {
		begin_list(p);
		to_list(p);
	}
	put_text(p, "allocator_settings");
	fputc('}', p->out);
	end_dictionary(p);
	fputc('.', p->out);
}

static uint64_t reserved_by(const struct gpu_process *g)
{
	uint64_t sum = 0;

	for (size_t k = 0; g && k < g->device_count; k++)
		sum += g->devices[k].peak_reserved;
	return sum;
}

int export_memory_viz(const struct cli_options *opt, const struct model *m,
		      struct symbolizer *symbols, FILE *out)
{
	struct pickle p = { .out = out, .m = m, .symbols = symbols };
	const struct process *most = NULL;
	size_t others = 0;

	for (size_t i = 0; i < m->process_count; i++) {
		const struct process *one = &m->processes[i];

		if (!reserved_by(one->gpu))
			continue;
		others += most != NULL;
		if (!most || reserved_by(one->gpu) > reserved_by(most->gpu))
			most = one;
	}
	if (!most) {
		error("no process took GPU memory: there is nothing to export");
		return -1;
	}
	if (others && !opt->pid)
		error("%zu more process%s used GPUs: this is pid %u, which took most; choose with "
		      "--pid",
		      others, others == 1 ? "" : "es", most->pid);
	put_snapshot(&p, most->gpu);
	return 0;
}
