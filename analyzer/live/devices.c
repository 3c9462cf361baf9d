/*
 * GPU memory that followed processes hold: what they took from the driver, or where PyTorch says more,
 * that. As for blocks, a free may be read before its allocation.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "live/follow.h"

#include <string.h>

#include "memtrace/format.h"

static struct follow_device *range_at(struct follow_proc *p, uint64_t addr)
{
	for (size_t i = 0; i < p->device.count; i++)
		if (p->device.items[i].addr == addr)
			return &p->device.items[i];
	return NULL;
}

static void drop(struct follow_proc *p, struct follow_device *d)
{
	*d = p->device.items[--p->device.count];
}

static void take(struct follow_proc *p, uint64_t device, uint64_t addr, uint64_t size,
		 uint64_t time)
{
	struct follow_device *d = addr ? range_at(p, addr) : NULL;

	if (!addr)
		return;
	if (d && d->given && d->time >= time) {
		drop(p, d); /* it came and went */
		return;
	}
	if (!d)
		d = vec_push(&p->device);
	*d = (struct follow_device){ device, addr, size, time, false };
}

static void give(struct follow_proc *p, uint64_t addr, uint64_t time)
{
	struct follow_device *d = addr ? range_at(p, addr) : NULL;

	if (!addr || (d && d->time > time))
		return;
	if (d && !d->given)
		drop(p, d);
	else if (!d)
		*vec_push(&p->device) = (struct follow_device){ 0, addr, 0, time, true };
}

static void level(struct follow_proc *p, const struct mt_ev_gpu_level *e)
{
	for (size_t i = 0; i < p->device.count; i++)
		if (!p->device.items[i].addr && p->device.items[i].device == e->device) {
			p->device.items[i].size = e->reserved;
			return;
		}
	*vec_push(&p->device) = (struct follow_device){ e->device, 0, e->reserved, e->time, false };
}

/* A handle of physical memory stands for it; its mappings add nothing. */
static void physical(struct follow_proc *p, const struct mt_ev_gpu_vmm *e)
{
	uint64_t key = e->handle | UINT64_C(1) << 63;

	if (e->op == MT_GPU_VMM_CREATE && e->device)
		take(p, e->device, key, e->size, e->time);
	else if (e->op == MT_GPU_VMM_RELEASE)
		give(p, key, e->time);
}

/* own: plus one; 0: it does not say */
static void see(struct follow_proc *p, const struct follow_seen *told)
{
	for (size_t i = 0; i < p->seen.count; i++)
		if (p->seen.items[i].by_program == told->by_program &&
		    !memcmp(p->seen.items[i].key, told->key, sizeof(told->key))) {
			p->seen.items[i].own = told->own;
			return;
		}
	*vec_push(&p->seen) = *told;
}

void devices_seen(struct follow *f, const struct mt_ev_gpu_seen *e)
{
	struct follow_seen told = { .own = e->own };
	struct follow_proc *of = NULL;
	size_t users = 0;

	for (size_t i = 0; i < f->procs.count; i++) {
		struct follow_proc *p = &f->procs.items[i];

		if (p->ended || (e->pid ? p->ev.pid != e->pid : !p->has_device))
			continue;
		of = p; /* of several with one pid the latest */
		users++;
	}
	if (!of || e->uuid.len != sizeof(told.key) || (!e->pid && users > 1))
		return;
	memcpy(told.key, e->uuid.data, sizeof(told.key));
	see(of, &told);
}

uint64_t devices_driver_bytes(const struct follow_proc *p)
{
	uint64_t sums[2] = { 0, 0 };

	for (size_t i = 0; i < p->seen.count; i++) {
		uint64_t *sum = &sums[p->seen.items[i].by_program];

		if (p->seen.items[i].own)
			*sum += p->seen.items[i].own - !!*sum;
	}
	return sums[1] ? sums[1] : sums[0];
}

bool devices_record(struct follow_proc *p, const struct mt_record *r)
{
	const struct mt_ev_gpu_take *t = &r->u.gpu_take;

	switch (r->id) {
	case MT_EV_GPU_TAKE:
		if ((t->kind == MT_KIND_DEVICE || t->kind == MT_KIND_MANAGED) &&
		    !(t->flags & (MT_GPU_BORROWED | MT_GPU_GRAPH)))
			take(p, t->device, t->addr, t->size, t->time);
		break;
	case MT_EV_GPU_GIVE:
		if (r->u.gpu_give.kind == MT_KIND_DEVICE)
			give(p, r->u.gpu_give.addr, r->u.gpu_give.time);
		break;
	case MT_EV_GPU_VMM:
		physical(p, &r->u.gpu_vmm);
		break;
	case MT_EV_GPU_LEVEL:
		level(p, &r->u.gpu_level);
		break;
	case MT_EV_GPU_RESET:
		p->device.count = 0;
		break;
	case MT_EV_GPU_USED: {
		struct follow_seen told = { true,
					    { (uint8_t)r->u.gpu_used.device },
					    r->u.gpu_used.own };

		see(p, &told);
		break;
	}
	case MT_EV_GPU_DEVICE:
		break;
	default:
		return false;
	}
	p->has_device = true;
	return true;
}

uint64_t devices_bytes(const struct follow_proc *p)
{
	uint64_t all = 0;

	for (size_t i = 0; i < p->device.count; i++) {
		const struct follow_device *d = &p->device.items[i];
		uint64_t taken = 0, torch = 0;
		bool first = true;

		for (size_t k = 0; k < p->device.count; k++) {
			const struct follow_device *o = &p->device.items[k];

			if (o->device != d->device || o->given)
				continue;
			first &= k >= i;
			taken += o->addr ? o->size : 0;
			torch = o->addr ? torch : o->size;
		}
		if (first && !d->given)
			all += taken > torch ? taken : torch;
	}
	return p->has_device ? all + 1 : 0;
}
