/*
 * The terminal's tables of what was resident and of how allocators stood.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <string.h>

#include "render/terminal.h"

static void cells_init(struct strbuf *cells)
{
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_init(&cells[i]);
}

static void cells_row(struct table *tab, struct strbuf *cells, int n)
{
	const char *row[TABLE_COLUMNS];

	for (int i = 0; i < n; i++)
		row[i] = cells[i].buf;
	table_row(tab, row);
	for (int i = 0; i < TABLE_COLUMNS; i++)
		strbuf_release(&cells[i]);
}

/* ---- resident memory --------------------------------------------------------------------------- */

static const struct {
	const char *part, *head;
	int drop;
} parts[] = {
	{ "live", ">live", 0 },
	{ "rounding", ">rounding", 5 },
	{ "heap_free_returnable", ">returnable", 1 },
	{ "heap_free_pinned", ">pinned", 2 },
	{ "python_free", ">python free", 3 },
	{ "file", ">files", 4 },
	{ "shm", ">shared", 6 },
	{ "tool", ">memtrace", 7 },
	{ "untraced", ">unexplained", 8 },
};

#define PARTS (sizeof(parts) / sizeof(parts[0]))

static void rss_row(struct table *tab, const struct rvalue *r)
{
	struct strbuf cells[TABLE_COLUMNS];
	int n = 0;

	cells_init(cells);
	strbuf_addf(&cells[n++], "%" PRId64, r_get_int(r, "pid"));
	strbuf_addf(&cells[n++], "%s, %.1f s", text_member(r, "moment"), r_get_float(r, "at_s"));
	text_size(&cells[n++], r_get(r, "rss_bytes"));
	for (size_t i = 0; i < PARTS; i++)
		text_size(&cells[n++], r_get(r_get(r, "parts"), parts[i].part));
	cells_row(tab, cells, n);
}

static const struct rvalue *site_of(const struct terminal *t, const struct rvalue *of)
{
	r_for_each (s, r_get(t->root, "sites"))
		if (r_get_int(s, "id") == r_get_int(of, "site"))
			return s;
	return NULL;
}

/* Large blocks of which a part was never touched. */
static void show_larges(struct terminal *t, const struct rvalue *r)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	r_for_each (l, r_get(r, "large_blocks")) {
		const struct rvalue *site = site_of(t, l);

		if (r_get_int(l, "touched_bytes") + r_get_int(l, "swapped_bytes") ==
			    r_get_int(l, "requested_bytes") ||
		    ++shown > FIRST_ROWS)
			continue;
		strbuf_reset(&sb);
		text_size(&sb, r_get(l, "requested_bytes"));
		strbuf_addstr(&sb, " asked for in large blocks at ");
		strbuf_addstr(&sb, site ? text_member(site, "place") : "a site that is not listed");
		strbuf_addstr(&sb, ", of it ");
		text_size(&sb, r_get(l, "touched_bytes"));
		strbuf_addstr(&sb, " in memory");
		text_wrap(&t->text, STYLE_DIM, 6, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_named(struct terminal *t, const struct rvalue *r)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	r_for_each (n, r_get(r, "named")) {
		if (strcmp(text_member(n, "part"), "file") != 0 || ++shown > FIRST_ROWS)
			continue;
		strbuf_reset(&sb);
		text_size(&sb, r_get(n, "bytes"));
		strbuf_addstr(&sb, " of ");
		strbuf_addstr(&sb, text_member(n, "name"));
		if (r_get_int(n, "private_bytes")) {
			strbuf_addstr(&sb, ", ");
			text_size(&sb, r_get(n, "private_bytes"));
			strbuf_addstr(&sb, " of it changed here and not reclaimable");
		}
		text_wrap(&t->text, STYLE_DIM, 6, sb.buf);
	}
	r_for_each (n, r_get(r, "untraced_ranges")) {
		strbuf_reset(&sb);
		text_size(&sb, r_get(n, "bytes"));
		strbuf_addf(&sb, " unexplained at %s: %s", text_member(n, "range"),
			    text_member(n, "reason"));
		text_wrap(&t->text, STYLE_DIM, 6, sb.buf);
	}
	strbuf_release(&sb);
}

static void say_files(struct terminal *t, const struct rvalue *list)
{
	struct strbuf sb = STRBUF_INIT;
	const struct rvalue *most = NULL;

	r_for_each (r, list)
		if (!most || r_get_int(r, "file_reclaimable_bytes") >
				     r_get_int(most, "file_reclaimable_bytes"))
			most = r;
	if (most && r_get_int(most, "file_reclaimable_bytes")) {
		strbuf_addstr(&sb, "Files: up to ");
		text_size(&sb, r_get(most, "file_reclaimable_bytes"));
		strbuf_addstr(&sb, " in a process are unchanged pages of files, which the kernel "
				   "takes back when memory is short: they are no leak.");
		text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	}
	strbuf_release(&sb);
}

/* Helpers are many, and nobody asks about each. */
static void say_small(struct terminal *t)
{
	const struct rvalue *small = r_get(t->root, "small_processes");
	struct strbuf sb = STRBUF_INIT;

	strbuf_addf(&sb, "and %" PRId64 " small helper processes, the largest of ",
		    r_get_int(small, "count"));
	text_size(&sb, r_get(small, "most_rss_bytes"));
	strbuf_addstr(&sb, " (memtrace-report fragmentation lists them)");
	text_wrap(&t->text, STYLE_DIM, 2, sb.buf);
	strbuf_release(&sb);
}

void show_rss(struct terminal *t, const struct rvalue *list)
{
	struct table tab = { 0 };
	size_t shown = 0, folded = 0;

	if (!list->count)
		return;
	text_head(&t->text, "Resident memory, by what it holds");
	table_column(&tab, ">pid", 0);
	table_column(&tab, "at", 0);
	table_column(&tab, ">resident", 0);
	for (size_t i = 0; i < PARTS; i++)
		table_column(&tab, parts[i].head, parts[i].drop);
	r_for_each (r, list) {
		if (!t->full && r_get_bool(r, "small"))
			folded++;
		else if (shown < FIRST_ROWS || t->full) {
			rss_row(&tab, r);
			shown++;
		}
	}
	table_end(&tab, &t->text, NULL, NULL);
	more_line(t, shown, list->count - folded, "fragmentation");
	if (folded)
		say_small(t);
	say_files(t, list);
	if (!t->full)
		return;
	r_for_each (r, list) {
		struct strbuf sb = STRBUF_INIT;

		strbuf_addf(&sb, "pid %" PRId64 ", %s, by name:", r_get_int(r, "pid"),
			    text_member(r, "moment"));
		text_line(&t->text, STYLE_NONE, "");
		text_wrap(&t->text, STYLE_NONE, 2, sb.buf);
		show_named(t, r);
		show_larges(t, r);
		strbuf_release(&sb);
	}
}

/* ---- allocators ---------------------------------------------------------------------------------- */

static void allocator_row(struct table *tab, const struct rvalue *f)
{
	static const char *const sizes[] = { "resident_bytes", "live_bytes", "rounding_bytes",
					     "returnable_bytes", "pinned_bytes" };
	struct strbuf cells[TABLE_COLUMNS];
	int n = 0;

	cells_init(cells);
	strbuf_addf(&cells[n++], "%" PRId64, r_get_int(f, "pid"));
	strbuf_addstr(&cells[n++], text_member(f, "allocator"));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		text_size(&cells[n++], r_get(f, sizes[i]));
	cells_row(tab, cells, n);
}

static void show_pins(struct terminal *t, const struct rvalue *f)
{
	struct strbuf sb = STRBUF_INIT;
	size_t shown = 0;

	r_for_each (pin, r_get(f, "pinning_sites")) {
		const struct rvalue *site = site_of(t, pin);

		if (++shown > (t->full ? FIRST_ROWS : 3))
			break;
		strbuf_reset(&sb);
		text_size(&sb, r_get(pin, "pinned_bytes"));
		strbuf_addstr(&sb, " free in ");
		text_count(&sb, r_get(pin, "sole_pages"));
		strbuf_addstr(&sb, " pages where only blocks of ");
		strbuf_addstr(&sb, site ? text_member(site, "place") : "a site that is not listed");
		strbuf_addstr(&sb, " live: ");
		text_count(&sb, r_get(pin, "blocks"));
		strbuf_addstr(&sb, " of them, ");
		text_size(&sb, r_get(pin, "block_bytes"));
		strbuf_addf(&sb, ", %.1f s old on average", r_get_float(pin, "mean_age_s"));
		text_wrap(&t->text, STYLE_NONE, 6, sb.buf);
	}
	strbuf_release(&sb);
}

static void show_heaps(struct terminal *t, const struct rvalue *f)
{
	struct strbuf sb = STRBUF_INIT;

	r_for_each (h, r_get(f, "heaps")) {
		strbuf_reset(&sb);
		strbuf_addf(&sb, "%s %s: resident ", text_member(h, "heap"),
			    text_member(h, "range"));
		text_size(&sb, r_get(h, "resident_bytes"));
		strbuf_addstr(&sb, ", live ");
		text_size(&sb, r_get(h, "live_bytes"));
		strbuf_addstr(&sb, ", returnable ");
		text_size(&sb, r_get(h, "returnable_bytes"));
		strbuf_addstr(&sb, ", pinned ");
		text_size(&sb, r_get(h, "pinned_bytes"));
		r_for_each (c, r_get(h, "cliff")) {
			if (!r_get_int(c, "held_bytes"))
				continue;
			strbuf_addf(&sb, "; the topmost %" PRId64 " blocks hold ",
				    r_get_int(c, "topmost_blocks"));
			text_size(&sb, r_get(c, "held_bytes"));
		}
		text_wrap(&t->text, STYLE_DIM, 6, sb.buf);
	}
	strbuf_release(&sb);
}

static void after_allocator(void *arg, size_t row)
{
	const struct rvalue *f = r_get(((struct terminal *)arg)->root, "fragmentation")->first;

	for (; f && row; row--)
		f = f->next;
	if (f) {
		show_heaps(arg, f);
		show_pins(arg, f);
	}
}

void show_fragmentation(struct terminal *t, const struct rvalue *list)
{
	struct table tab = { 0 };
	size_t shown = 0, folded = 0;

	if (!list->count)
		return;
	text_head(&t->text, "Allocators, as they stood at the end");
	table_column(&tab, ">pid", 0);
	table_column(&tab, "allocator", 0);
	table_column(&tab, ">resident", 0);
	table_column(&tab, ">live", 0);
	table_column(&tab, ">rounding", 3);
	table_column(&tab, ">returnable", 1);
	table_column(&tab, ">pinned", 2);
	r_for_each (f, list) {
		if (!t->full && r_get_bool(f, "small"))
			folded++;
		else if (shown < FIRST_ROWS || t->full) {
			allocator_row(&tab, f);
			shown++;
		}
	}
	table_end(&tab, &t->text, t->full ? after_allocator : NULL, t);
	more_line(t, shown, list->count - folded, "fragmentation");
}
