/*
 * PSS and USS of a process, from smaps_rollup: the kernel walks every page table for it while it
 * holds mmap_lock, so its share of the time is kept small.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/sampler.h"
#include "sys/fmt.h"

static void smaps_sample(struct mt_ev_sample *s)
{
	char text[4096];
	int64_t pss, anon, clean, dirty;

	if (mt_sampler_slurp(s, "smaps_rollup", text, sizeof(text)) <= 0)
		return;
	pss = mt_find_field(text, "Pss");
	anon = mt_find_field(text, "Pss_Anon");
	clean = mt_find_field(text, "Private_Clean");
	dirty = mt_find_field(text, "Private_Dirty");
	if (pss >= 0)
		s->pss = (uint64_t)pss * 1024 + 1;
	if (anon >= 0)
		s->pss_anon = (uint64_t)anon * 1024 + 1;
	if (clean >= 0 && dirty >= 0)
		s->uss = (uint64_t)(clean + dirty) * 1024 + 1;
}

const struct mt_sampler mt_sampler_smaps = { "smaps", smaps_sample, 500 };
