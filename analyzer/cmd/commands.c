/*
 * The table of commands, and what is printed about them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "util/die.h"

#define VERSION "0.1"

/* A command's section, and those that its ids point into or that say what was read. */
#define SECTIONS(...) ((const char *const[]){ "trace", __VA_ARGS__, NULL })

static const struct command commands[] = {
	{ "summary", cmd_report, "findings first, then one table per section (default)", NULL },
	{ "sites", cmd_report, "where memory was allocated: by line, and with full stacks",
	  SECTIONS("processes", "places", "sites") },
	{ "processes", cmd_report, "every process: what it was for, what it held",
	  SECTIONS("tree", "capacity", "processes", "shm") },
	{ "cow", cmd_report, "what forked workers copied of what they shared, and why",
	  SECTIONS("processes", "cow", "sites") },
	{ "timeline", cmd_report, "memory over time",
	  SECTIONS("tree", "capacity", "processes", "marks", "timeline") },
	{ "leaks", cmd_report, "what is lost: findings and verdicts",
	  SECTIONS("processes", "findings", "growth", "sites") },
	{ "growth", cmd_report, "a verdict on every site: leak, growth, bounded or undecided",
	  SECTIONS("capacity", "processes", "growth", "sites") },
	{ "phases", cmd_report, "what each phase of the program took and left behind",
	  SECTIONS("processes", "phases", "sites", "marks") },
	{ "gpu", cmd_report, "GPU memory by device: reserved, used, unusable, pinned",
	  SECTIONS("processes", "gpu", "sites") },
	{ "fragmentation", cmd_report, "what is resident, what allocators hold free, what holds it",
	  SECTIONS("processes", "rss", "fragmentation", "sites") },
	{ "check", cmd_check, "is the trace whole? what was lost, recovered, cut", NULL },
	{ "dump", cmd_dump, "the records, as text or (--json) one JSON object per line", NULL },
	{ "watch", cmd_watch, "what `memtrace top` shows, as JSON: watch TRACE [SECONDS [TIMES]]",
	  NULL },
	{ "export", cmd_export,
	  "for other tools: --format memory-viz (PyTorch's snapshot page), -o FILE", NULL },
	{ "components", NULL, NULL, NULL },
	{ "diff", NULL, NULL, NULL },
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const char *built_name(size_t i)
{
	return commands[i].run ? commands[i].name : NULL;
}

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static int print(const struct cli_options *opt, struct strbuf *text)
{
	struct cli_options plain = *opt;
	struct output out;

	plain.output = NULL;
	output_init(&out, &plain);
	output_write(&out, text->buf, text->len);
	strbuf_release(text);
	return output_finish(&out) < 0 ? STATUS_USAGE : STATUS_DONE;
}

static int print_help(const struct cli_options *opt)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addstr(&sb,
		      "usage: memtrace-report [COMMAND] [OPTION...] TRACE...\n\n"
		      "What a recording (or a folder of them) says about memory.\n\ncommands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		if (commands[i].run)
			strbuf_addf(&sb, "  %-13s %s\n", commands[i].name, commands[i].help);
	strbuf_addstr(&sb, "\noptions:\n");
	cli_describe(&sb);
	strbuf_addstr(&sb,
		      "\nexit status: 0 done, 1 a finding of --fail-on is there, 2 wrong usage, "
		      "3 a trace can't be read\n");
	return print(opt, &sb);
}

static int print_version(const struct cli_options *opt)
{
	struct strbuf sb = STRBUF_INIT;

	strbuf_addstr(&sb, "memtrace-report " VERSION "\n");
	return print(opt, &sb);
}

/* The first argument names the command, unless it is none: then it is a trace. */
static const struct command *choose(struct cli_options *opt)
{
	const char *first = opt->argument_count ? opt->arguments[0] : "";
	const struct command *c = find_command(first);
	const char *near;

	if (!c) {
		near = access(first, F_OK) < 0 ? cli_nearest(first, COMMANDS, built_name) : NULL;
		if (near)
			die("there is no command or trace '%s'; did you mean '%s'?", first, near);
		return &commands[0];
	}
	memmove(opt->arguments, opt->arguments + 1,
		(opt->argument_count - 1) * sizeof(*opt->arguments));
	opt->argument_count--;
	if (!c->run)
		die("%s is not built yet", c->name);
	return c;
}

int cmd_main(int argc, char *const *argv)
{
	struct cli_options opt;
	const struct command *c;
	char *problem = NULL;
	int status;

	if (cli_parse(argc, argv, &opt, &problem) < 0)
		die("%s", problem);
	if (opt.help || opt.version) {
		status = opt.help ? print_help(&opt) : print_version(&opt);
	} else {
		c = choose(&opt);
		if (!opt.argument_count)
			die("no trace given; try: memtrace-report trace.bin (or --help)");
		status = c->run(c, &opt);
	}
	cli_release(&opt);
	return status;
}
