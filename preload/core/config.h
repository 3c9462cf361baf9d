/*
 * The configuration: one struct, filled once from the environment by walking options.def.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_CONFIG_H
#define MEMTRACE_PRELOAD_CONFIG_H

#include <stddef.h>
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
extern struct mt_config mt_config_own; /* as mt_config_read left it */

/* Reads MEMTRACE_… of envp; complaints (unknown names, bad values) are kept for config_complain,
 * because nothing can be printed before it is known whether this is the root. */
void mt_config_read(char *const *envp);

/* One entry, NAME=value, on top of what is there; kept. 0, or -1: no such option or value. */
int mt_config_apply(const char *entry);

/* Settings of one process for another, NAME=value each with a zero byte: all options but texts (where to
 * write; what memtrace sets itself). write: bytes used, 0: they don't fit. adopt: what is no option or
 * no value of one is left out; nothing beyond size is read. */
size_t mt_config_write(char *out, size_t size);
void mt_config_adopt(const char *text, size_t size);

/* Prints what mt_config_read found wrong, one line each. */
void mt_config_complain(void);

#endif
