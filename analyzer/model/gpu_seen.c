/*
 * What `memtrace run` was told by NVML, brought to the processes it is about. What no call shows is
 * the driver's number less what the process's calls account for at that very time: so an answer
 * counts only if nothing was taken or given back from the question on.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <string.h>

#include "model/gpu.h"
#include "model/internal.h"

/* A call is recorded after it took memory, and before it gives it back: in between the driver knows
 * better. So long before and after an answer nothing may have changed: such calls take milliseconds. */
#define MARGIN_NS 20000000

static struct gpu_device *device_of(const struct builder *b, uint32_t id, const uint8_t uuid[16])
{
	struct gpu_process *g = id == NO_ID ? NULL : b->processes.items[id].gpu;

	for (size_t i = 0; g && i < g->device_count; i++)
		if (g->devices[i].has_uuid && !memcmp(g->devices[i].uuid, uuid, 16))
			return &g->devices[i];
	return NULL;
}

/* What the calls account for from `from` to `to`; NULL: it changed, or had not begun. */
static const struct gpu_point *tracked_at(const struct gpu_device *d, int64_t from, int64_t to)
{
	size_t low = 0, high = d->point_count;

	while (low < high) { /* the first point after `from` */
		size_t mid = low + (high - low) / 2;

		if (d->points[mid].time <= from)
			low = mid + 1;
		else
			high = mid;
	}
	if (!low || d->points[low - 1].settled > from - MARGIN_NS ||
	    (low < d->point_count && d->points[low].time <= to + MARGIN_NS))
		return NULL;
	return &d->points[low - 1];
}

/* The one process of the trace that used the device then; NULL: there is none, or more than one. */
static struct gpu_device *only_user(const struct builder *b, const struct gpu_seen *s)
{
	struct gpu_device *found = NULL;

	for (uint32_t i = 0; i < b->procs.count; i++) {
		const struct process *p = &b->processes.items[i];
		struct gpu_device *d = b->procs.items[i].trace == s->trace
					       ? device_of(b, i, s->uuid)
					       : NULL;
		bool has_ended = p->end_kind != END_RUNNING && p->end_kind != END_UNKNOWN;

		if (!d || !d->point_count || d->points[0].time > s->from ||
		    (has_ended && p->end < s->from))
			continue;
		if (found)
			return NULL;
		found = d;
	}
	return found;
}

void gpu_seen_settle(struct builder *b)
{
	for (size_t i = 0; i < b->gpu_seen.count; i++) {
		const struct gpu_seen *s = &b->gpu_seen.items[i];
		struct gpu_device *d =
			s->pid ? device_of(b, tree_holder(b, s->trace, s->pid, s->from), s->uuid)
			       : only_user(b, s);
		const struct gpu_point *p = d ? tracked_at(d, s->from, s->to) : NULL;

		if (!p || d->from == GPU_FROM_PROGRAM)
			continue;
		if (s->all)
			d->all_used = s->all;
		/* A client without a name that has less than this process took is somebody else. */
		if (!s->own || (!s->pid && s->own - 1 < p->tracked))
			continue;
		d->used = s->own;
		d->unattributed = s->own - 1 > p->tracked ? s->own - p->tracked : 1;
		d->from = GPU_FROM_DRIVER;
	}
}
