/*
 * Options of `memtrace run`: each row of options.def that has a name becomes a variable of the
 * command's environment, after a look at its value, so that a slip is told before hours are lost.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control.h"

enum type { SIZE, COUNT, SECONDS, FLAG, CHOICE, TEXT };

static const struct option {
	const char *variable, *name, *fallback, *argument, *help;
	enum type type;
	int64_t low, high;
} options[] = {
#define MT_OPTION(field, NAME, option, TYPE, def, low, high, argument, help)                       \
	{ "MEMTRACE_" #NAME, option, def, argument, help, TYPE, low, high },
#include "memtrace/options.def"
#undef MT_OPTION
};

#define OPTIONS (sizeof(options) / sizeof(options[0]))

/* An off-by-default flag is a switch; any other option takes a value. */
static int is_switch(const struct option *o)
{
	return o->type == FLAG && !strcmp(o->fallback, "off");
}

static int in_list(const char *list, const char *word)
{
	size_t length = strlen(word);

	for (const char *p = list; p; p = strchr(p, '|'), p = p ? p + 1 : NULL)
		if (!strncmp(p, word, length) && (p[length] == '|' || !p[length]))
			return length > 0;
	return 0;
}

/* The value in the table's unit; -1 when it is no number of that type. */
static int64_t number(const struct option *o, const char *text)
{
	static const char suffixes[] = "kmgt";
	const char *end = text + strspn(text, "0123456789"), *suffix;
	double v = strtod(text, NULL);

	if (end == text)
		return -1;
	if (o->type == SECONDS) {
		end += *end == '.' ? 1 + strspn(end + 1, "0123456789") : 0;
		return *end || v > 1e9 ? -1 : (int64_t)(v * 1e9);
	}
	suffix = *end ? strchr(suffixes, *end | 0x20) : NULL;
	if (suffix) {
		v *= (double)(UINT64_C(1) << (10 * (suffix - suffixes + 1)));
		end++;
	}
	return *end || v > 9e18 ? -1 : (int64_t)v;
}

static int valid(const struct option *o, const char *text)
{
	int64_t v;

	switch (o->type) {
	case TEXT:
		return *text != '\0';
	case FLAG:
		return in_list("on|off|1|0|yes|no|true|false", text);
	case CHOICE:
		return in_list(o->argument, text);
	default:
		v = number(o, text);
		return v >= o->low && v <= o->high;
	}
}

static const struct option *option_find(const char *name, size_t length)
{
	if (length == 1 && *name == 'o')
		return option_find("out", 3);
	for (size_t i = 0; i < OPTIONS; i++)
		if (strlen(options[i].name) == length && length &&
		    !strncmp(options[i].name, name, length))
			return &options[i];
	return NULL;
}

int recording_option(const char *verb, int argc, char **argv, int *at, const char **variable,
		     const char **chosen)
{
	const char *word = argv[*at];
	const char *name = word + 1 + (word[1] == '-');
	const char *equals = strchr(name, '=');
	const struct option *o = option_find(name, equals ? (size_t)(equals - name) : strlen(name));
	const char *value;

	if (!o) {
		complain("%s: no option %s; see memtrace --help", verb, word);
		return EXIT_OWN_FAILURE;
	}
	if (equals)
		value = equals + 1;
	else if (is_switch(o))
		value = "1";
	else if (*at + 1 < argc)
		value = argv[++*at];
	else {
		complain("%s: --%s needs a value (%s)", verb, o->name, o->argument);
		return EXIT_OWN_FAILURE;
	}
	if (!valid(o, value)) {
		complain("%s: --%s %s: not a valid value (%s)", verb, o->name, value, o->argument);
		return EXIT_OWN_FAILURE;
	}
	*variable = o->variable + strlen("MEMTRACE_");
	*chosen = value;
	++*at;
	return 0;
}

int run_option(int argc, char **argv, int *at)
{
	const char *name, *value;
	char variable[64];
	int err = recording_option("run", argc, argv, at, &name, &value);

	if (err)
		return err;
	snprintf(variable, sizeof(variable), "MEMTRACE_%s", name);
	if (setenv(variable, value, 1) < 0) {
		complain("run: %s", strerror(errno));
		return EXIT_OWN_FAILURE;
	}
	return 0;
}

int64_t option_seconds(const char *variable)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];
		const char *value = getenv(variable);

		if (!strcmp(o->variable, variable))
			return number(o, value && valid(o, value) ? value : o->fallback);
	}
	return 0;
}

void run_options_help(void)
{
	for (size_t i = 0; i < OPTIONS; i++) {
		const struct option *o = &options[i];
		char left[64], fallback[64] = "";

		if (!*o->name)
			continue;
		snprintf(left, sizeof(left), "--%s%s%s", o->name, is_switch(o) ? "" : " ",
			 is_switch(o) ? "" : o->argument);
		if (!is_switch(o))
			snprintf(fallback, sizeof(fallback), " [%s]", o->fallback);
		printf("  %-34s %s%s\n", left, o->help, fallback);
	}
}
