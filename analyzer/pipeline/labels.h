/*
 * Names in the model that need more than the model knows: where in its source a loader stands.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_ANALYZER_LABELS_H
#define MEMTRACE_ANALYZER_LABELS_H

#include "model/model.h"

/* Fills worker.loader ("train.py:42") from worker.node. */
void labels_fill(struct model *m);

#endif
