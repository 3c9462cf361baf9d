/*
 * Numbers for dictionary entries. See ids.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/ids.h"

uint32_t mt_ids_next[MT_ID_SPACES] = { 1, 1, 1, 1, 1, 1 };
