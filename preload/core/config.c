/*
 * The configuration from the environment. See config.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/config.h"

#include <stddef.h>
#include <string.h>

#include "sys/fmt.h"
#include "sys/log.h"

struct mt_config mt_config, mt_config_own;

enum type { SIZE, COUNT, SECONDS, FLAG, CHOICE, TEXT };

static const struct option {
	const char *name, *fallback, *choices;
	size_t offset;
	enum type type;
	int64_t low, high;
} options[] = {
#define MT_OPTION(field, NAME, option, TYPE, def, low, high, argument, help)                       \
	{ #NAME, def, argument, offsetof(struct mt_config, field), TYPE, low, high },
#include "memtrace/options.def"
#undef MT_OPTION
};

#define OPTIONS (sizeof(options) / sizeof(options[0]))
#define MAX_COMPLAINTS 8

static struct {
	const char *entry; /* "MEMTRACE_X=value" */
	const struct option *option; /* NULL: the name is unknown */
} complaints[MAX_COMPLAINTS];
static size_t complaint_count;

/* Digits, an optional fraction for SECONDS, an optional suffix; -1 when it is none of these. */
static int64_t parse_size(const char *text)
{
	static const char suffixes[] = "KMGT";
	const char *start = text, *suffix;
	uint64_t v = mt_parse_number(&text, 10);

	if (text == start)
		return -1;
	suffix = *text ? strchr(suffixes, *text & ~0x20) : NULL;
	if (suffix) {
		unsigned int shift = 10 * (unsigned int)(suffix - suffixes + 1);

		if (v > (uint64_t)INT64_MAX >> shift)
			return -1;
		v <<= shift;
		text++;
	}
	return *text || v > INT64_MAX ? -1 : (int64_t)v;
}

static int64_t parse_seconds(const char *text)
{
	const char *start = text;
	uint64_t whole = mt_parse_number(&text, 10), ns = 0, unit = 100000000;

	if (text == start || whole > INT64_MAX / 2000000000)
		return -1;
	if (*text == '.')
		for (text++; *text >= '0' && *text <= '9'; text++, unit /= 10)
			ns += unit * (uint64_t)(*text - '0');
	return *text ? -1 : (int64_t)(whole * 1000000000 + ns);
}

static int64_t parse_choice(const char *choices, const char *text)
{
	size_t len = strlen(text);

	for (int64_t i = 0; choices; i++) {
		const char *bar = strchr(choices, '|');
		size_t n = bar ? (size_t)(bar - choices) : strlen(choices);

		if (n == len && !strncmp(choices, text, n))
			return i;
		choices = bar ? bar + 1 : NULL;
	}
	return -1;
}

static int64_t parse_flag(const char *text)
{
	static const char *const words[] = { "0", "1", "off", "on", "no", "yes", "false", "true" };

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		if (!strcmp(text, words[i]))
			return i & 1;
	return -1;
}

/* 0, or -1: the value is no good and the field is as it was. */
static int option_set(const struct option *o, const char *text)
{
	char *field = (char *)&mt_config + o->offset;
	int64_t v = -1;

	switch (o->type) {
	case TEXT:
		*(const char **)field = text;
		return 0;
	case SIZE:
	case COUNT:
		v = parse_size(text);
		break;
	case SECONDS:
		v = parse_seconds(text);
		break;
	case FLAG:
		v = parse_flag(text);
		break;
	case CHOICE:
		v = parse_choice(o->choices, text);
		break;
	}
	if (v < o->low || v > o->high)
		return -1;
	*(int64_t *)field = v;
	return 0;
}

static void complain(const char *entry, const struct option *o)
{
	if (complaint_count < MAX_COMPLAINTS) {
		complaints[complaint_count].entry = entry;
		complaints[complaint_count++].option = o;
	}
}

static void read_entry(const char *entry)
{
	const char *name = entry + sizeof("MEMTRACE_") - 1;
	const char *equals = strchr(name, '=');

	for (size_t i = 0; equals && i < OPTIONS; i++) {
		size_t len = strlen(options[i].name);

		if (len != (size_t)(equals - name) || strncmp(name, options[i].name, len) != 0)
			continue;
		if (option_set(&options[i], equals + 1) < 0)
			complain(entry, &options[i]);
		return;
	}
	complain(entry, NULL);
}

void mt_config_read(char *const *envp)
{
	for (size_t i = 0; i < OPTIONS; i++)
		option_set(&options[i], options[i].fallback);
	complaint_count = 0;
	for (; envp && *envp; envp++)
		if (!strncmp(*envp, "MEMTRACE_", sizeof("MEMTRACE_") - 1))
			read_entry(*envp);
	mt_config_own = mt_config;
}

static const struct option *option_of(const char *entry, const char **value)
{
	const char *equals = strchr(entry, '=');

	*value = equals ? equals + 1 : NULL;
	for (size_t i = 0; equals && i < OPTIONS; i++)
		if (strlen(options[i].name) == (size_t)(equals - entry) &&
		    !strncmp(options[i].name, entry, (size_t)(equals - entry)))
			return &options[i];
	return NULL;
}

int mt_config_apply(const char *entry)
{
	const char *value;
	const struct option *o = option_of(entry, &value);

	return o ? option_set(o, value) : -1;
}

/* ---- for other processes ------------------------------------------------------------------------- */

static size_t write_choice(char *out, size_t size, const struct option *o, int64_t index)
{
	const char *word = o->choices;
	char text[32];
	size_t length;

	for (; index > 0 && strchr(word, '|'); index--)
		word = strchr(word, '|') + 1;
	length = strcspn(word, "|");
	if (length >= sizeof(text))
		return size;
	memcpy(text, word, length);
	text[length] = '\0';
	return mt_fmt(out, size, "%s=%s", o->name, text);
}

/* mt_fmt has no zeros in front of a number. */
static size_t write_seconds(char *out, size_t size, const struct option *o, uint64_t ns)
{
	char fraction[10];
	uint64_t rest = ns % 1000000000;

	for (int i = 9; i-- > 0; rest /= 10)
		fraction[i] = (char)('0' + rest % 10);
	fraction[9] = '\0';
	return mt_fmt(out, size, "%s=%lu.%s", o->name, ns / 1000000000, fraction);
}

size_t mt_config_write(char *out, size_t size)
{
	size_t used = 0;

	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];
		int64_t value = *(const int64_t *)((const char *)&mt_config + o->offset);
		size_t left = size - used, n;

		if (o->type == TEXT)
			continue;
		if (left < 64) /* more than any of them takes */
			return 0;
		if (o->type == CHOICE)
			n = write_choice(out + used, left, o, value);
		else if (o->type == SECONDS)
			n = write_seconds(out + used, left, o, (uint64_t)value);
		else
			n = mt_fmt(out + used, left, "%s=%lu", o->name, (uint64_t)value);
		if (n + 1 >= left)
			return 0;
		used += n + 1;
	}
	return used;
}

void mt_config_adopt(const char *text, size_t size)
{
	while (size && *text) {
		size_t length = strnlen(text, size);
		const struct option *o;
		const char *value;

		if (length == size)
			return;
		o = option_of(text, &value);
		if (o && o->type != TEXT)
			option_set(o, value);
		text += length + 1;
		size -= length + 1;
	}
}

/* Letters two names share in order: enough to find the one that was meant. */
static size_t likeness(const char *a, size_t len, const char *b)
{
	size_t score = 0;

	for (size_t i = 0; i < len && *b; i++) {
		const char *hit = strchr(b, a[i]);

		if (hit) {
			score++;
			b = hit + 1;
		}
	}
	return score;
}

static const char *nearest(const char *name, size_t len)
{
	const struct option *best = &options[0];
	int64_t best_score = -1000;

	for (size_t i = 0; i < OPTIONS; i++) {
		int64_t other = (int64_t)strlen(options[i].name);
		int64_t score = 2 * (int64_t)likeness(name, len, options[i].name) - other;

		if (score > best_score) {
			best_score = score;
			best = &options[i];
		}
	}
	return best->name;
}

void mt_config_complain(void)
{
	for (size_t i = 0; i < complaint_count; i++) {
		const char *name = complaints[i].entry + sizeof("MEMTRACE_") - 1;
		const char *equals = strchr(name, '=');
		size_t len = equals ? (size_t)(equals - name) : strlen(name);

		if (complaints[i].option)
			mt_log(MT_LOG_WARN, "%s: not a valid value (%s); using the default, %s",
			       complaints[i].entry, complaints[i].option->choices,
			       complaints[i].option->fallback);
		else
			mt_log(MT_LOG_WARN,
			       "%s: no such option, ignored; did you mean MEMTRACE_%s?",
			       complaints[i].entry, nearest(name, len));
	}
}
