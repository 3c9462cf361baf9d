/*
 * What memtrace top shows, as lines of text. It computes nothing: numbers come from the document.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "top.h"

static void line(struct top_lines *out, int width, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void line(struct top_lines *out, int width, const char *format, ...)
{
	char(*more)[256];
	va_list args;

	if (out->count == out->room) {
		more = realloc(out->text, (out->room + 64) * sizeof(*more));
		if (!more)
			return;
		out->text = more;
		out->room += 64;
	}
	va_start(args, format);
	vsnprintf(out->text[out->count], sizeof(*out->text), format, args);
	va_end(args);
	if (width > 0 && width < (int)sizeof(*out->text))
		out->text[out->count][width] = '\0';
	for (char *p = out->text[out->count]; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	out->count++;
}

static const cJSON *get(const cJSON *o, const char *key)
{
	return cJSON_GetObjectItemCaseSensitive(o, key);
}

static double number(const cJSON *o, const char *key)
{
	const cJSON *v = get(o, key);

	return cJSON_IsNumber(v) ? v->valuedouble : -1;
}

static const char *string(const cJSON *o, const char *key)
{
	const cJSON *v = get(o, key);

	return cJSON_IsString(v) ? v->valuestring : "";
}

/* "12.3M"; "-" for what was not measured. */
static const char *size(const cJSON *o, const char *key, char buf[16])
{
	static const char units[] = "BKMGTP";
	const cJSON *item = get(o, key);
	double v = cJSON_IsNumber(item) ? item->valuedouble : 0, a = v < 0 ? -v : v;
	size_t unit = 0;

	if (!cJSON_IsNumber(item))
		return "-";
	for (; a >= 1024 && unit < 5; unit++)
		a /= 1024;
	snprintf(buf, 16, "%s%.*f%c", v < 0 ? "-" : "", unit ? 1 : 0, a, units[unit]);
	return buf;
}

/* ---- head ------------------------------------------------------------------------------------------ */

static void head(const cJSON *doc, int width, struct top_lines *out)
{
	const cJSON *m = get(doc, "memory"), *w;
	double used = number(m, "used_bytes"), limit = number(m, "limit_bytes"), full;
	char a[16], b[16], c[16], rest[64] = "";

	line(out, width, "%s: %.0f s, %s", string(doc, "trace"), number(doc, "time_s"),
	     cJSON_IsTrue(get(doc, "running")) ? "being recorded" : "finished");
	full = number(m, "full_in_s");
	if (full >= 0)
		snprintf(rest, sizeof(rest), ", full in %.0f s at this rate", full);
	if (used >= 0 && limit > 0)
		line(out, width, "%s of %s (%s) in use, %.1f %%; headroom %s, %s/s%s",
		     size(m, "used_bytes", a), size(m, "limit_bytes", b), string(m, "limit_from"),
		     100 * used / limit, size(m, "headroom_bytes", c),
		     cJSON_IsNumber(get(m, "bytes_per_s")) ? size(m, "bytes_per_s", b) : "-", rest);
	cJSON_ArrayForEach(w, get(doc, "warnings")) if (!w->next) /* the latest */
		line(out, width, "! %s (at %.0f s)", string(w, "text"), number(w, "t"));
	line(out, width, "%s", "");
}

/* ---- processes --------------------------------------------------------------------------------------- */

static const char *const order_keys[] = { "pss_bytes", "private_bytes", "swap_bytes",
					  "live_bytes" };

struct row {
	const cJSON *o;
	int pid, ppid, shown;
	double weight;
};

static int by_weight(const void *a, const void *b)
{
	const struct row *x = a, *y = b;

	return (x->weight < y->weight) - (x->weight > y->weight);
}

static void process_line(const cJSON *o, int depth, int width, struct top_lines *out)
{
	const char *device = cJSON_IsNumber(get(o, "device_bytes")) ? "device_bytes"
								    : "device_driver_bytes";
	char a[16], b[16], c[16], d[16], e[16], f[16], g[16];

	line(out, width, "%7.0f %8s %8s %8s %8s %8s %8s %8s  %*s%s%s", number(o, "pid"),
	     size(o, "private_bytes", a), size(o, "shared_bytes", b), size(o, "pss_bytes", c),
	     size(o, "swap_bytes", d), size(o, device, e), size(o, "cow_bytes", f),
	     size(o, "live_bytes", g), 2 * (depth < 12 ? depth : 12), "",
	     cJSON_IsTrue(get(o, "ended")) ? "(ended) " : "", string(o, "command"));
}

static void subtree(struct row *rows, size_t n, int parent, int depth, int width,
		    struct top_lines *out)
{
	for (size_t i = 0; i < n && depth < 64; i++) {
		if (rows[i].shown || rows[i].ppid != parent)
			continue;
		rows[i].shown = 1;
		process_line(rows[i].o, depth, width, out);
		subtree(rows, n, rows[i].pid, depth + 1, width, out);
	}
}

static int has_pid(const struct row *rows, size_t n, int pid)
{
	for (size_t i = 0; i < n; i++)
		if (rows[i].pid == pid)
			return 1;
	return 0;
}

static void processes(const cJSON *doc, const struct top_view *view, int width,
		      struct top_lines *out)
{
	const cJSON *list = get(doc, "processes"), *o;
	size_t n = 0, room = (size_t)cJSON_GetArraySize(list);
	struct row *rows = calloc(room + 1, sizeof(*rows));

	line(out, width, "%7s %8s %8s %8s %8s %8s %8s %8s  %s", "pid", "private", "shared", "pss",
	     "swap", "device", "cow", "live", "command");
	cJSON_ArrayForEach(o, list)
	{
		if (!rows || (cJSON_IsTrue(get(o, "ended")) && !view->with_ended))
			continue;
		rows[n++] = (struct row){ o, (int)number(o, "pid"), (int)number(o, "ppid"), 0,
					  number(o, order_keys[view->order]) };
	}
	if (rows)
		qsort(rows, n, sizeof(*rows), by_weight);
	for (size_t i = 0; i < n; i++) {
		int top = view->focus ? rows[i].pid == view->focus
				      : !has_pid(rows, n, rows[i].ppid);

		if (!top || rows[i].shown)
			continue;
		rows[i].shown = 1;
		process_line(rows[i].o, 0, width, out);
		subtree(rows, n, rows[i].pid, 1, width, out);
	}
	free(rows);
	line(out, width, "%s", "");
}

/* ---- sites ------------------------------------------------------------------------------------------- */

static int by_live(const void *a, const void *b)
{
	double x = number(*(const cJSON *const *)a, "live_bytes"),
	       y = number(*(const cJSON *const *)b, "live_bytes");

	return (x < y) - (x > y);
}

static void sites(const cJSON *doc, const struct top_view *view, int width, int lines,
		  struct top_lines *out)
{
	const cJSON *list = get(doc, "sites"), *o;
	size_t n = 0, room = (size_t)cJSON_GetArraySize(list);
	const cJSON **order = calloc(room + 1, sizeof(*order));
	char a[16], b[16];

	line(out, width, "%10s %10s %10s %6s  %s", "growth/s", "live", "blocks", "procs",
	     view->sites_by_live ? "largest sites" : "fastest growing sites");
	cJSON_ArrayForEach(o, list) if (order) order[n++] = o;
	if (order && view->sites_by_live)
		qsort(order, n, sizeof(*order), by_live);
	for (size_t i = 0; i < n && (lines <= 0 || (int)i < lines); i++)
		line(out, width, "%10s %10s %10.0f %6.0f  %s", size(order[i], "bytes_per_s", a),
		     size(order[i], "live_bytes", b), number(order[i], "live_count"),
		     number(order[i], "processes"), string(order[i], "where"));
	free(order);
}

void top_render(const cJSON *doc, const struct top_view *view, int width, int height,
		struct top_lines *out)
{
	out->count = 0;
	head(doc, width, out);
	processes(doc, view, width, out);
	/* Where there is little room, sites keep a third of it. */
	if (height > 0 && (int)out->count > height * 2 / 3)
		out->count = (size_t)height * 2 / 3;
	sites(doc, view, width, height > 0 ? height - (int)out->count - 2 : 20, out);
	if (height > 0 && out->count >= (size_t)height)
		out->count = (size_t)height - 1;
	if (height > 0)
		line(out, width,
		     "q quit  s sort processes (%s)  g growth or size  p one process (%d)  e ended",
		     order_keys[view->order], view->focus);
}

int top_next_process(const cJSON *doc, int pid)
{
	const cJSON *o;
	int seen = pid == 0;

	cJSON_ArrayForEach(o, get(doc, "processes"))
	{
		if (seen && !cJSON_IsTrue(get(o, "ended")))
			return (int)number(o, "pid");
		seen |= (int)number(o, "pid") == pid;
	}
	return 0;
}
