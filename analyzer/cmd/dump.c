/*
 * The records of a trace one by one. What a record has is taken from events.def, so a new record
 * shows up here by itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/cmd.h"
#include "pipeline/run.h"
#include "result/utf8.h"
#include "util/die.h"
#include "util/strbuf.h"

#define WRITE_BYTES 65536 /* text is written in pieces of at least this */

struct dump {
	struct output out;
	struct strbuf text;
	bool json;
	uint32_t pid; /* 0: all */
};

/* ---- fields
 * ---------------------------------------------------------------------------------------- */

static void put_name(struct dump *d, const char *name)
{
	if (d->json)
		strbuf_addf(&d->text, ", \"%s\": ", name);
	else
		strbuf_addf(&d->text, " %s=", name);
}

static void put_number(struct dump *d, const char *name, uint64_t v)
{
	put_name(d, name);
	strbuf_addf(&d->text, "%" PRIu64, v);
}

static void put_address(struct dump *d, const char *name, uint64_t v)
{
	put_name(d, name);
	strbuf_addf(&d->text, d->json ? "%" PRIu64 : "0x%" PRIx64, v);
}

/* No record has such a field today. */
__attribute__((unused)) static void put_signed(struct dump *d, const char *name, int64_t v)
{
	put_name(d, name);
	strbuf_addf(&d->text, "%" PRId64, v);
}

/* A table or an id of bytes, rather than a text somebody wrote. */
static bool is_binary(const struct mt_str *s)
{
	size_t odd = 0;

	for (uint32_t i = 0; i < s->len; i++)
		odd += (unsigned char)s->data[i] < ' ' && s->data[i] && s->data[i] != '\n' &&
		       s->data[i] != '\t';
	return odd || !utf8_is_valid(s->data, s->len);
}

/* In quotes with JSON's escapes: zero bytes and line ends stay visible and take one line. */
static void put_quoted(struct strbuf *out, const struct mt_str *s)
{
	struct strbuf valid = STRBUF_INIT;

	utf8_repair(&valid, s->data, s->len);
	strbuf_addch(out, '"');
	for (size_t i = 0; i < valid.len; i++) {
		unsigned char c = (unsigned char)valid.buf[i];

		if (c == '"' || c == '\\')
			strbuf_addf(out, "\\%c", c);
		else if (c < ' ' || c == 0x7f)
			strbuf_addf(out, "\\u%04x", c);
		else
			strbuf_addch(out, (char)c);
	}
	strbuf_addch(out, '"');
	strbuf_release(&valid);
}

static void put_text(struct dump *d, const char *name, struct mt_str s)
{
	put_name(d, name);
	if (!is_binary(&s)) {
		put_quoted(&d->text, &s);
		return;
	}
	strbuf_addstr(&d->text, "\"hex:");
	for (uint32_t i = 0; i < s.len; i++)
		strbuf_addf(&d->text, "%02x", (unsigned char)s.data[i]);
	strbuf_addch(&d->text, '"');
}

#define put_U put_number
#define put_T put_number
#define put_B put_number
#define put_N put_number
#define put_P put_number
#define put_D put_number
#define put_R put_number
#define put_C put_number
#define put_A put_address
#define put_S put_signed
#define put_STR put_text

#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	static void dump_##name(struct dump *d, const struct mt_ev_##name *e)                      \
	{
#define MT_FIELD(type, name, text) put_##type(d, #name, e->name);
#define MT_OPTIONAL(type, name, bit, text) put_##type(d, #name, e->name);
#define MT_END(NAME, name) }
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END

#undef put_U
#undef put_T
#undef put_B
#undef put_N
#undef put_P
#undef put_D
#undef put_R
#undef put_C
#undef put_A
#undef put_S
#undef put_STR

/* ---- records
 * --------------------------------------------------------------------------------------- */

static const char *record_name(unsigned int id)
{
	switch (id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case MT_EV_##NAME:                                                                         \
		return #name;
#define MT_FIELD(type, name, text)
#define MT_OPTIONAL(type, name, bit, text)
#define MT_END(NAME, name)
#include "memtrace/events.def"
#undef MT_EVENT
	}
	return "unknown";
}

static void put_fields(struct dump *d, const struct mt_record *r)
{
	switch (r->id) {
#define MT_EVENT(NAME, name, class, tag, text)                                                     \
	case MT_EV_##NAME:                                                                         \
		dump_##name(d, &r->u.name);                                                        \
		return;
#include "memtrace/events.def"
#undef MT_EVENT
#undef MT_FIELD
#undef MT_OPTIONAL
#undef MT_END
	}
	put_number(d, "tag", r->id);
	put_text(d, "payload", r->u.unknown);
}

/* ---- what stands in nurseries and counters
 * --------------------------------------------------------------------------------------- */

static void put_nursery(struct dump *d, const struct mt_nursery *n)
{
	put_number(d, "entries", n->entries);
	put_number(d, "fold_entry", n->fold_entry);
	put_number(d, "fold_cell", n->fold_cell);
	put_number(d, "young_time", n->young_time);
	put_number(d, "young_bytes", n->young_bytes);
	put_number(d, "young_most", n->young_most);
	put_number(d, "young_since", n->young_since);
}

static void put_young(struct dump *d, const struct mt_young *y, uint32_t index)
{
	put_number(d, "index", index);
	put_number(d, "time", y->time);
	put_address(d, "addr", y->addr & MT_YOUNG_ADDR_MASK);
	put_number(d, "size", y->size);
	put_number(d, "native", y->native);
	put_number(d, "python", y->python);
	put_number(d, "kind", y->addr >> MT_YOUNG_KIND_SHIFT);
}

static void put_cell(struct dump *d, const struct mt_cell *c)
{
	put_number(d, "native", c->native);
	put_number(d, "python", c->python);
	put_number(d, "kind", c->kind);
	put_number(d, "count", c->count);
	put_number(d, "bytes", c->bytes);
	put_number(d, "brief", c->brief);
	put_number(d, "largest", c->largest);
	put_number(d, "first", c->first);
	put_number(d, "last", c->last);
}

static const char *item_name(const struct pipeline_record *r)
{
	if (r->record)
		return record_name(r->record->id);
	return r->nursery ? "nursery" : r->folding ? "folding" : r->young ? "young_block" : "cell";
}

static void put_item(struct dump *d, const struct pipeline_record *r)
{
	if (r->record)
		put_fields(d, r->record);
	else if (r->nursery)
		put_nursery(d, r->nursery);
	else if (r->young)
		put_young(d, r->young, r->index);
	else
		put_cell(d, r->folding ? r->folding : r->cell);
}

static int flush(struct dump *d)
{
	int rc = output_write(&d->out, d->text.buf, d->text.len);

	strbuf_reset(&d->text);
	return rc;
}

static int dump_record(void *arg, const struct pipeline_record *r)
{
	struct dump *d = arg;
	double seconds = (double)r->time / 1e9;

	if (d->pid && d->pid != r->pid)
		return 0;
	if (d->json)
		strbuf_addf(&d->text,
			    "{\"record\": \"%s\", \"t\": %.9f, \"proc\": %" PRIu32
			    ", \"pid\": %" PRIu32 ", \"stream\": %" PRIu32 ", \"chunk\": %" PRIu64,
			    item_name(r), seconds, r->proc, r->pid, r->stream, r->chunk);
	else
		strbuf_addf(&d->text, "%14.9f  %" PRIu32 "/%" PRIu32 "  %-11s", seconds, r->pid,
			    r->stream, item_name(r));
	put_item(d, r);
	strbuf_addstr(&d->text, d->json ? "}\n" : "\n");
	return d->text.len >= WRITE_BYTES ? flush(d) : 0;
}

/* These need more of a trace than one record. */
static void refuse_options(const struct cli_options *opt)
{
	const struct {
		const char *name;
		bool given;
	} options[] = {
		{ "role", opt->role },	     { "from", opt->from }, { "to", opt->to },
		{ "fail-on", opt->fail_on }, { "top", opt->top },
	};

	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (options[i].given)
			die("dump with --%s is not built yet", options[i].name);
}

int cmd_dump(const struct command *self, const struct cli_options *opt)
{
	struct dump d = { .text = STRBUF_INIT, .json = opt->json, .pid = (uint32_t)opt->pid };
	int status = STATUS_DONE;

	(void)self;
	refuse_options(opt);
	output_init(&d.out, opt);
	for (size_t i = 0; i < opt->argument_count && !d.out.failed; i++) {
		char *problem = NULL;

		if (pipeline_dump(opt->arguments[i], ORDER_FILE, dump_record, &d, &problem) < 0 &&
		    problem) {
			error("%s", problem);
			status = STATUS_UNREADABLE;
		}
		free(problem);
	}
	flush(&d);
	strbuf_release(&d.text);
	return output_finish(&d.out) < 0 ? STATUS_USAGE : status;
}
