/*
 * What PyTorch's caching allocator said last of each device, once per sampling round: a round is
 * made inside somebody's malloc, so nothing of CUDA or NVML is called here (hooks/cuda_device.c
 * asks them where CUDA itself is being called).
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "core/gpu.h"
#include "core/clock.h"
#include "out/stream.h"
#include "samplers/sampler.h"

void mt_sampler_gpu(struct mt_thread *t)
{
	for (unsigned int i = 0; i < MT_GPU_DEVICES; i++) {
		const struct mt_gpu_level *l = &mt_gpu_levels[i];

		if (!__atomic_load_n(&l->known, __ATOMIC_RELAXED))
			continue;
		MT_EMIT(t, gpu_level, .time = mt_clock_now(), .device = i + 1,
			.allocated = __atomic_load_n(&l->allocated, __ATOMIC_RELAXED),
			.reserved = __atomic_load_n(&l->reserved, __ATOMIC_RELAXED),
			.peak_allocated = __atomic_load_n(&l->peak_allocated, __ATOMIC_RELAXED),
			.peak_reserved = __atomic_load_n(&l->peak_reserved, __ATOMIC_RELAXED));
	}
	mt_pressure_gpu(t);
}
