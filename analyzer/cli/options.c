/*
 * See options.h. An option is a row: adding one is adding a row and a member to write to.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/alloc.h"
#include "util/vec.h"

enum option_type {
	OPT_FLAG, /* sets a bool */
	OPT_CONSTANT, /* sets an int to `value` */
	OPT_TEXT,
	OPT_COUNT, /* 1 or more */
	OPT_CHOICE, /* sets an int to the index in `choices` */
	OPT_KINDS, /* text, checked against finding_kinds */
	OPT_FILE_FLAG, /* sets a bool; "=FILE" sets the output */
	OPT_NOT_BUILT,
};

struct option_row {
	const char *name;
	char letter;
	enum option_type type;
	const char *argument; /* as the help shows it; NULL: takes none */
	size_t offset; /* in struct cli_options */
	int value;
	const char *const *choices;
	const char *help; /* NULL: not shown */
};

static const char *const color_choices[] = { "auto", "always", "never", NULL };

static const char *const finding_kinds[] = {
	"leak",
	"growth",
	"cow-blowup",
	"eager-copy",
	"per-worker-copy",
	"fragmentation-returnable",
	"fragmentation-pinned",
	"python-fragmentation",
	"shm-leak",
	"orphan-worker",
	"pinned-growth",
	"gpu-leak",
	"gpu-fragmentation",
	"not-released-after-phase",
	"oom-risk",
	"swap",
	"killed",
	"short-lived-churn",
	"uncovered-memory",
};

#define AT(member) offsetof(struct cli_options, member)

/* clang-format off */
static const struct option_row rows[] = {
	{ "json",        0,   OPT_FILE_FLAG, "[=FILE]", AT(json), 0, NULL, "print JSON, into FILE if one is given" },
	{ "output",      'o', OPT_TEXT,     "FILE", AT(output),     0, NULL, "write to FILE" },
	{ "format",      0,   OPT_TEXT,     "F",    AT(format),     0, NULL, "what export writes: memory-viz" },
	{ "pid",         0,   OPT_COUNT,    "P",    AT(pid),        0, NULL, "only processes with this pid" },
	{ "role",        0,   OPT_TEXT,     "R",    AT(role),       0, NULL, "only this role: main, rank, dataloader-worker, ..." },
	{ "from",        0,   OPT_TEXT,     "T",    AT(from),       0, NULL, "only from here on: seconds from start, or @mark" },
	{ "to",          0,   OPT_TEXT,     "T",    AT(to),         0, NULL, "only up to here" },
	{ "top",         0,   OPT_COUNT,    "N",    AT(top),        0, NULL, "at most N sites" },
	{ "sysroot",     0,   OPT_TEXT,     "DIR",  AT(sysroot),    0, NULL, "where the traced machine's files are" },
	{ "no-symbols",  0,   OPT_FLAG,     NULL,   AT(no_symbols), 0, NULL, "look up no native function names" },
	{ "color",       0,   OPT_CHOICE,   "auto/always/never", AT(color), 0, color_choices, "colours in text" },
	{ "progress",    0,   OPT_CONSTANT, NULL,   AT(progress), PROGRESS_ON, NULL, "a progress bar on standard error, also where it is no terminal" },
	{ "no-progress", 0,   OPT_CONSTANT, NULL,   AT(progress), PROGRESS_OFF, NULL, "no progress bar" },
	{ "fail-on",     0,   OPT_KINDS,    "KIND[,KIND...]", AT(fail_on), 0, NULL, "exit with 1 if there is such a finding" },
	{ "suppress",    0,   OPT_TEXT,     "FILE", AT(suppress),   0, NULL, "leave out the findings that FILE names: lines of KIND PATTERN" },
	{ "help",        'h', OPT_FLAG,     NULL,   AT(help),       0, NULL, "this text" },
	{ "version",     0,   OPT_FLAG,     NULL,   AT(version),    0, NULL, "print the version" },
	{ "html",        0,   OPT_NOT_BUILT, NULL, 0, 0, NULL, NULL },
	{ "redact",      0,   OPT_NOT_BUILT, NULL, 0, 0, NULL, NULL },
};
/* clang-format on */

#define ROWS (sizeof(rows) / sizeof(rows[0]))
#define KINDS (sizeof(finding_kinds) / sizeof(finding_kinds[0]))

static const char *row_name(size_t i)
{
	return rows[i].type == OPT_NOT_BUILT ? NULL : rows[i].name;
}

static const char *kind_name(size_t i)
{
	return finding_kinds[i];
}

__attribute__((format(printf, 2, 3))) static int fail(char **problem, const char *fmt, ...)
{
	struct strbuf sb = STRBUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	strbuf_vaddf(&sb, fmt, ap);
	va_end(ap);
	*problem = strbuf_detach(&sb);
	return -1;
}

static int fail_unknown(char **problem, const char *what, const char *word, const char *dashes,
			const char *nearest)
{
	if (nearest)
		return fail(problem, "%s '%s%s' is not known; did you mean '%s%s'?", what, dashes,
			    word, dashes, nearest);
	return fail(problem, "%s '%s%s' is not known; see --help", what, dashes, word);
}

/* ---- values
 * ---------------------------------------------------------------------------------------- */

static int set_count(int64_t *to, const char *name, const char *value, char **problem)
{
	char *end;

	errno = 0;
	*to = strtoll(value, &end, 10);
	if (errno || end == value || *end || *to < 1)
		return fail(problem, "--%s takes a number from 1 on, not '%s'", name, value);
	return 0;
}

static int set_choice(int *to, const struct option_row *row, const char *value, char **problem)
{
	for (int i = 0; row->choices[i]; i++)
		if (!strcmp(row->choices[i], value)) {
			*to = i;
			return 0;
		}
	return fail(problem, "--%s takes %s, not '%s'", row->name, row->argument, value);
}

static bool is_kind(const char *s, size_t len)
{
	for (size_t i = 0; i < KINDS; i++)
		if (strlen(finding_kinds[i]) == len && !memcmp(finding_kinds[i], s, len))
			return true;
	return false;
}

static int check_kinds(const char *list, char **problem)
{
	for (const char *p = list;; p++) {
		size_t len = strcspn(p, ",");
		char *word;

		if (!is_kind(p, len)) {
			word = xstrndup(p, len);
			fail_unknown(problem, "kind of finding", word, "",
				     cli_nearest(word, KINDS, kind_name));
			free(word);
			return -1;
		}
		p += len;
		if (!*p)
			return 0;
	}
}

static int set(struct cli_options *opt, const struct option_row *row, const char *value,
	       char **problem)
{
	void *to = (char *)opt + row->offset;

	switch (row->type) {
	case OPT_FILE_FLAG:
		if (value)
			opt->output = value;
		*(bool *)to = true;
		return 0;
	case OPT_FLAG:
		*(bool *)to = true;
		return 0;
	case OPT_CONSTANT:
		*(int *)to = row->value;
		return 0;
	case OPT_TEXT:
		*(const char **)to = value;
		return *value ? 0 : fail(problem, "--%s takes %s", row->name, row->argument);
	case OPT_KINDS:
		*(const char **)to = value;
		return check_kinds(value, problem);
	case OPT_COUNT:
		return set_count(to, row->name, value, problem);
	case OPT_CHOICE:
		return set_choice(to, row, value, problem);
	case OPT_NOT_BUILT:
		break;
	}
	return fail(problem, "--%s is not built yet", row->name);
}

/* ---- the command line
 * ------------------------------------------------------------------------------ */

static bool takes_value(const struct option_row *row)
{
	return row->argument && row->type != OPT_FILE_FLAG;
}

static const struct option_row *find_row(const char *name, size_t len)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strlen(rows[i].name) == len && !memcmp(rows[i].name, name, len))
			return &rows[i];
	return NULL;
}

/* argv[*i] is "--name" or "--name=value"; *i moves on where the value is a word of its own. */
static int parse_long(int argc, char *const *argv, int *i, struct cli_options *opt, char **problem)
{
	const char *word = argv[*i] + 2, *value = strchr(word, '=');
	size_t len = value ? (size_t)(value - word) : strlen(word);
	const struct option_row *row = find_row(word, len);
	char *name;

	if (!row) {
		name = xstrndup(word, len);
		fail_unknown(problem, "option", name, "--", cli_nearest(name, ROWS, row_name));
		free(name);
		return -1;
	}
	if (value)
		value++;
	if (value && !row->argument && row->type != OPT_NOT_BUILT)
		return fail(problem, "--%s takes no value", row->name);
	if (!value && takes_value(row)) {
		if (*i + 1 >= argc)
			return fail(problem, "--%s takes %s", row->name, row->argument);
		value = argv[++*i];
	}
	return set(opt, row, value, problem);
}

/* "-o FILE", "-oFILE", "-h" */
static int parse_short(int argc, char *const *argv, int *i, struct cli_options *opt, char **problem)
{
	const char *word = argv[*i] + 1, *value = NULL;

	for (size_t k = 0; k < ROWS; k++) {
		if (!rows[k].letter || rows[k].letter != *word)
			continue;
		if (!takes_value(&rows[k])) {
			if (word[1])
				break;
			return set(opt, &rows[k], NULL, problem);
		}
		value = word[1] ? word + 1 : *i + 1 < argc ? argv[++*i] : NULL;
		if (!value)
			return fail(problem, "-%c takes %s", *word, rows[k].argument);
		return set(opt, &rows[k], value, problem);
	}
	return fail_unknown(problem, "option", word, "-", NULL);
}

int cli_parse(int argc, char *const *argv, struct cli_options *opt, char **problem)
{
	VEC(const char *) arguments = VEC_INIT;
	bool only_arguments = false;
	int rc = 0;

	memset(opt, 0, sizeof(*opt));
	for (int i = 1; i < argc && !rc; i++) {
		if (only_arguments || argv[i][0] != '-' || !argv[i][1])
			*vec_push(&arguments) = argv[i];
		else if (!strcmp(argv[i], "--"))
			only_arguments = true;
		else if (argv[i][1] == '-')
			rc = parse_long(argc, argv, &i, opt, problem);
		else
			rc = parse_short(argc, argv, &i, opt, problem);
	}
	if (!rc && opt->pid > UINT32_MAX)
		rc = fail(problem, "--pid: there is no such process id");
	opt->arguments = arguments.items;
	opt->argument_count = arguments.count;
	return rc;
}

void cli_release(struct cli_options *opt)
{
	free(opt->arguments);
	opt->arguments = NULL;
	opt->argument_count = 0;
}

void cli_describe(struct strbuf *out)
{
	for (size_t i = 0; i < ROWS; i++) {
		struct strbuf left = STRBUF_INIT;

		if (!rows[i].help)
			continue;
		if (rows[i].letter)
			strbuf_addf(&left, "-%c, ", rows[i].letter);
		strbuf_addf(&left, "--%s", rows[i].name);
		if (rows[i].argument)
			strbuf_addf(&left, "%s%s", takes_value(&rows[i]) ? " " : "",
				    rows[i].argument);
		strbuf_addf(out, "  %-26s %s\n", left.buf, rows[i].help);
		strbuf_release(&left);
	}
}

bool cli_fails_on(const struct cli_options *opt, const char *kind)
{
	for (const char *p = opt->fail_on; p && *p;) {
		size_t len = strcspn(p, ",");

		if (strlen(kind) == len && !memcmp(p, kind, len))
			return true;
		p += len;
		p += *p == ',';
	}
	return false;
}
