/*
 * Writing that notices when it fails: a full disk, a closed pipe, a closed descriptor. See cmd.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cmd/cmd.h"
#include "util/die.h"

#define STREAM_BYTES 65536

/* A report written over the trace it was made from would be the end of the trace. */
static void refuse_traces(const struct cli_options *opt)
{
	struct stat out, trace;

	if (!opt->output || stat(opt->output, &out) < 0 || !S_ISREG(out.st_mode))
		return;
	for (size_t i = 0; i < opt->argument_count; i++)
		if (stat(opt->arguments[i], &trace) == 0 && trace.st_dev == out.st_dev &&
		    trace.st_ino == out.st_ino)
			die("%s is the trace itself: not overwritten", opt->output);
}

void output_init(struct output *out, const struct cli_options *opt)
{
	refuse_traces(opt);
	out->path = opt->output;
	out->fd = opt->output ? -1 : STDOUT_FILENO;
	out->failed = false;
}

static int fail(struct output *out)
{
	out->failed = true;
	return error("cannot write to %s: %s", out->path ? out->path : "standard output",
		     strerror(errno));
}

int output_write(struct output *out, const char *text, size_t len)
{
	size_t done = 0;

	if (out->failed)
		return -1;
	if (out->fd < 0)
		out->fd = open(out->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (out->fd < 0)
		return fail(out);
	while (done < len) {
		ssize_t n = write(out->fd, text + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(out);
		done += (size_t)n;
	}
	return 0;
}

static ssize_t stream_write(void *cookie, const char *text, size_t len)
{
	return output_write(cookie, text, len) < 0 ? 0 : (ssize_t)len;
}

FILE *output_stream(struct output *out)
{
	cookie_io_functions_t functions = { .write = stream_write };
	FILE *f = fopencookie(out, "w", functions);

	if (!f) {
		fail(out);
		return NULL;
	}
	setvbuf(f, NULL, _IOFBF, STREAM_BYTES);
	return f;
}

int output_finish(struct output *out)
{
	/* Some file systems tell of a full disk only now. */
	if (!out->failed && out->fd >= 0 && out->path && close(out->fd) < 0)
		fail(out);
	return out->failed ? -1 : 0;
}

bool output_is_terminal(const struct output *out)
{
	return out->fd >= 0 && isatty(out->fd);
}
