/*
 * Periodic work without a helper thread. See tick.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/tick.h"

uint64_t mt_tick_due = UINT64_MAX;
uint32_t mt_tick_hurried;
void (*mt_tick_work)(struct mt_thread *t, uint64_t now);
