/*
 * See dwarf.h. Units are found by their own address ranges, not by .debug_aranges, which clang and
 * rustc leave out. Within a unit its functions are sorted once, so that a look-up walks the inner
 * scopes of one function and not the whole unit.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "symbols/dwarf.h"

#include <dwarf.h>
#include <stdlib.h>

#include "util/alloc.h"
#include "util/vec.h"

#define SCOPE_DEPTH 256 /* of nested scopes in damaged or unusual DWARF */

struct range {
	uint64_t low, high; /* high excluded */
	size_t index; /* unit, or function of a unit */
};

typedef VEC(struct range) range_list;

struct unit {
	Dwarf_Die lines; /* the unit DIE that has the line table */
	Dwarf_Die tree; /* the one that has the functions: the same, or of the split file */
	bool indexed;
	VEC(Dwarf_Die) functions;
	range_list ranges;
};

struct dwarf_index {
	VEC(struct unit) units;
	range_list ranges;
};

/* ---- ranges
 * -------------------------------------------------------------------------------------- */

static int by_low(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	if (x->low != y->low)
		return x->low < y->low ? -1 : 1;
	return x->high < y->high ? -1 : x->high > y->high;
}

static void add_ranges(range_list *list, Dwarf_Die *die, size_t index)
{
	Dwarf_Addr base, low, high;
	ptrdiff_t at = 0;

	while ((at = dwarf_ranges(die, at, &base, &low, &high)) > 0)
		if (low && low < high) /* 0: the linker dropped the function */
			*vec_push(list) = (struct range){ low, high, index };
}

static void sort_ranges(range_list *list)
{
	if (list->count)
		qsort(list->items, list->count, sizeof(*list->items), by_low);
}

static const struct range *find_range(const range_list *list, uint64_t address)
{
	size_t low = 0, high = list->count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (list->items[mid].low <= address)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || address >= list->items[low - 1].high)
		return NULL;
	return &list->items[low - 1];
}

/* ---- units and their functions
 * -------------------------------------------------------------------- */

struct dwarf_index *dwarf_index_new(Dwarf *dw)
{
	struct dwarf_index *d = xcalloc(1, sizeof(*d));
	Dwarf_CU *cu = NULL;
	Dwarf_Die die, split;
	uint8_t type;

	while (dwarf_get_units(dw, cu, &cu, NULL, &type, &die, &split) == 0) {
		struct unit *u;

		if (type != DW_UT_compile && type != DW_UT_skeleton)
			continue;
		u = vec_push(&d->units);
		u->lines = die;
		u->tree = type == DW_UT_skeleton && dwarf_tag(&split) != DW_TAG_invalid ? split
											: die;
		add_ranges(&d->ranges, &die, d->units.count - 1);
	}
	sort_ranges(&d->ranges);
	return d;
}

void dwarf_index_free(struct dwarf_index *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->units.count; i++) {
		vec_release(&d->units.items[i].functions);
		vec_release(&d->units.items[i].ranges);
	}
	vec_release(&d->units);
	vec_release(&d->ranges);
	free(d);
}

/* Functions stand at the top and inside namespaces, classes and modules. */
static void add_functions(struct unit *u, Dwarf_Die *parent, int depth)
{
	Dwarf_Die die;

	if (depth > SCOPE_DEPTH || dwarf_child(parent, &die) != 0)
		return;
	do {
		switch (dwarf_tag(&die)) {
		case DW_TAG_subprogram:
			*vec_push(&u->functions) = die;
			add_ranges(&u->ranges, &die, u->functions.count - 1);
			/* Fortran, Ada and Rust closures: functions within functions. */
			add_functions(u, &die, depth + 1);
			break;
		case DW_TAG_namespace:
		case DW_TAG_module:
		case DW_TAG_class_type:
		case DW_TAG_structure_type:
		case DW_TAG_union_type:
			add_functions(u, &die, depth + 1);
			break;
		default:
			break;
		}
	} while (dwarf_siblingof(&die, &die) == 0);
}

/* ---- one address
 * ----------------------------------------------------------------------------------- */

static void name_of(Dwarf_Die *die, struct dwarf_frame *f)
{
	Dwarf_Attribute attr;

	if (dwarf_attr_integrate(die, DW_AT_linkage_name, &attr) ||
	    dwarf_attr_integrate(die, DW_AT_MIPS_linkage_name, &attr))
		f->name = dwarf_formstring(&attr);
	if (!f->name && dwarf_attr_integrate(die, DW_AT_name, &attr)) {
		f->name = dwarf_formstring(&attr);
		f->is_plain = true;
	}
}

static uint32_t number_of(Dwarf_Die *die, unsigned int attribute)
{
	Dwarf_Attribute attr;
	Dwarf_Word v;

	if (!dwarf_attr(die, attribute, &attr) || dwarf_formudata(&attr, &v) != 0)
		return 0;
	return v <= INT32_MAX ? (uint32_t)v : 0;
}

/* Where an inlined call stands in the function around it. */
static void call_site(struct unit *u, Dwarf_Die *die, struct dwarf_frame *f)
{
	Dwarf_Attribute attr;
	Dwarf_Files *files;
	size_t count;
	Dwarf_Word file;

	f->line = number_of(die, DW_AT_call_line);
	if (dwarf_attr(die, DW_AT_call_file, &attr) && dwarf_formudata(&attr, &file) == 0 &&
	    dwarf_getsrcfiles(&u->lines, &files, &count) == 0 && file < count)
		f->file = dwarf_filesrc(files, file, NULL, NULL);
}

/* The inlined call in `scope` that covers the address; lexical blocks are looked through. */
static bool find_inlined(Dwarf_Die *scope, uint64_t address, Dwarf_Die *out, int depth)
{
	Dwarf_Die die;

	if (depth > SCOPE_DEPTH || dwarf_child(scope, &die) != 0)
		return false;
	do {
		int tag = dwarf_tag(&die);

		if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_lexical_block)
			continue;
		if (dwarf_haspc(&die, address) <= 0)
			continue;
		if (tag == DW_TAG_lexical_block) {
			if (find_inlined(&die, address, out, depth + 1))
				return true;
			continue;
		}
		*out = die;
		return true;
	} while (dwarf_siblingof(&die, &die) == 0);
	return false;
}

static void line_of(struct unit *u, uint64_t address, struct dwarf_frame *f)
{
	Dwarf_Line *line = dwarf_getsrc_die(&u->lines, address);
	int number;

	if (!line)
		return;
	f->file = dwarf_linesrc(line, NULL, NULL);
	if (dwarf_lineno(line, &number) == 0 && number > 0)
		f->line = (uint32_t)number;
}

static struct unit *unit_at(struct dwarf_index *d, uint64_t address)
{
	const struct range *r = find_range(&d->ranges, address);
	struct unit *u;

	if (!r)
		return NULL;
	u = &d->units.items[r->index];
	if (!u->indexed) {
		u->indexed = true;
		add_functions(u, &u->tree, 0);
		sort_ranges(&u->ranges);
	}
	return u;
}

static const char *directory_of(struct unit *u)
{
	Dwarf_Attribute attr;

	return dwarf_formstring(dwarf_attr(&u->lines, DW_AT_comp_dir, &attr));
}

size_t dwarf_find(struct dwarf_index *d, uint64_t address, struct dwarf_frame frames[DWARF_DEPTH])
{
	struct unit *u = unit_at(d, address);
	const struct range *r = u ? find_range(&u->ranges, address) : NULL;
	Dwarf_Die scopes[DWARF_DEPTH]; /* outermost first */
	size_t n = 0;

	if (!u)
		return 0;
	if (r) {
		scopes[n++] = u->functions.items[r->index];
		while (n < DWARF_DEPTH && find_inlined(&scopes[n - 1], address, &scopes[n], 0))
			n++;
	}
	for (size_t i = 0; i < n || !i; i++)
		frames[i] = (struct dwarf_frame){ .dir = directory_of(u) };
	line_of(u, address, &frames[0]);
	for (size_t i = 0; i < n; i++) {
		Dwarf_Die *die = &scopes[n - 1 - i];

		name_of(die, &frames[i]);
		if (i + 1 < n)
			call_site(u, die, &frames[i + 1]);
	}
	return n ? n : frames[0].file != NULL;
}
