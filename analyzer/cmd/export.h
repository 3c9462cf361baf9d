/*
 * The formats of `export`, one function each.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_EXPORT_H
#define MEMTRACE_ANALYZER_EXPORT_H

#include <stdio.h>

#include "cli/options.h"
#include "model/model.h"
#include "symbols/symbolizer.h"

/* Each: 0, or -1 when there is nothing of that in the trace, which it says. */
int export_memory_viz(const struct cli_options *opt, const struct model *m,
		      struct symbolizer *symbols, FILE *out);

#endif
