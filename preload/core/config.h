/*
 * The configuration: one struct, filled once from the environment by walking options.def.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CONFIG_H
#define MEMTRACE_PRELOAD_CONFIG_H

#include <stdint.h>

/* How each TYPE of options.def is held. */
typedef int64_t mt_option_SIZE;
typedef int64_t mt_option_COUNT;
typedef int64_t mt_option_SECONDS; /* nanoseconds */
typedef int64_t mt_option_FLAG;
typedef int64_t mt_option_CHOICE; /* index */
typedef const char *mt_option_TEXT; /* points into the environment or a literal */

struct mt_config {
#define MT_OPTION(field, NAME, option, TYPE, def, low, high, argument, help) mt_option_##TYPE field;
#include "memtrace/options.def"
#undef MT_OPTION
};

enum mt_mode { MT_MODE_FULL, MT_MODE_SAMPLE, MT_MODE_DORMANT };
enum mt_events_mode { MT_EVENTS_FOLDED, MT_EVENTS_ALL };
enum mt_python_mode { MT_PYTHON_FRAMES, MT_PYTHON_OBJECTS, MT_PYTHON_OFF };

extern struct mt_config mt_config; /* constant while recording */

/* Reads MEMTRACE_… of envp; complaints (unknown names, bad values) are kept for config_complain,
 * because nothing can be printed before it is known whether this is the root. */
void mt_config_read(char *const *envp);

/* One entry, NAME=value, on top of what is there; kept. 0, or -1: no such option or value. */
int mt_config_apply(const char *entry);

/* Prints what mt_config_read found wrong, one line each. */
void mt_config_complain(void);

#endif
