/*
 * See gpu.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/gpu.h"

#include <string.h>

struct mt_gpu_level mt_gpu_levels[MT_GPU_DEVICES];
struct mt_gpu_memory mt_gpu_memory[MT_GPU_DEVICES];
uint32_t mt_gpu_used, mt_gpu_muted;
struct mt_gpu_names mt_gpu_names;
uintptr_t mt_gpu_driver_low, mt_gpu_driver_high;

void (*mt_gpu_on_forget)(void);

void mt_gpu_child(void)
{
	if (mt_gpu_names.asked)
		memset(&mt_gpu_names, 0, sizeof(mt_gpu_names));
	if (!mt_gpu_used)
		return; /* the tables' pages stay shared with the parent */
	mt_gpu_muted = 1;
	mt_gpu_used = 0;
	memset(mt_gpu_levels, 0, sizeof(mt_gpu_levels));
}

void mt_gpu_forget(void)
{
	if (mt_gpu_used) { /* and stays: CUDA has been used, whoever records */
		memset(mt_gpu_levels, 0, sizeof(mt_gpu_levels));
		memset(mt_gpu_memory, 0, sizeof(mt_gpu_memory));
	}
	if (mt_gpu_on_forget)
		mt_gpu_on_forget();
}
