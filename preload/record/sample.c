/*
 * See sample.h.
 *
 * The table: segments of buckets of 8 addresses, one cache line each. An address may stand in two
 * buckets of a segment, in the emptier of which it is put; where both are full the next segment,
 * twice as large, is tried. So nothing is ever moved, a removal leaves no tombstone, and a segment
 * is over 90 % full before the next one is needed. Insertion is a CAS on an empty slot, removal a
 * CAS to empty: an address has one owner at a time, the thread that allocates or frees the block.
 *
 * In a forked child all of this is the parent's as of the fork, copied page by page when written:
 * inherited blocks stay known. Its random numbers are its own.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "record/sample.h"

#include "core/clock.h"
#include "core/config.h"
#include "core/mem.h"
#include "out/process.h"
#include "out/stream.h"
#include "record/since.h"

#define SLOTS 8
#define FIRST_BITS 7 /* buckets of the first segment: 8 KiB */
#define SEGMENTS 24

uint8_t mt_sample_filter[1 << MT_SAMPLE_FILTER_BITS];

struct bucket {
	uintptr_t block[SLOTS];
};

static struct bucket *segments[SEGMENTS]; /* atomic; filled from the first on */

/* ---- chance ------------------------------------------------------------------------------------ */

/* ln by the series of artanh on [sqrt(1/2), sqrt(2)): its first term left out is below 1e-16. */
double mt_sample_minus_log(double u)
{
	union {
		double d;
		uint64_t bits;
	} m = { u };
	int exponent = (int)(m.bits >> 52) - 1023;
	double s, square, sum = 0;

	m.bits = (m.bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
	if (m.d > 1.4142135623730951) {
		m.d /= 2;
		exponent++;
	}
	s = (m.d - 1) / (m.d + 1);
	square = s * s;
	for (int k = 21; k >= 1; k -= 2)
		sum = sum * square + 1.0 / k;
	return -(exponent * 0.69314718055994530942 + 2 * s * sum);
}

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

uint64_t mt_sample_gap(uint64_t *random, uint64_t mean)
{
	double u, gap;

	*random += UINT64_C(0x9e3779b97f4a7c15);
	u = (double)((mix(*random) >> 11) + 1) * 0x1p-53; /* (0, 1] */
	gap = (double)mean * mt_sample_minus_log(u);
	return gap < 0x1p62 ? (uint64_t)gap + 1 : UINT64_C(1) << 62;
}

static void seed(struct mt_thread *t)
{
	uint64_t who = mt_process.number ? mt_process.number : (uint64_t)mt_process.pid << 32;
	uint64_t base = (uint64_t)mt_config.seed;

	if (!base)
		base = mt_clock_monotonic_ns() ^ (uint64_t)mt_process.pid << 40;
	t->random = mix(mix(mix(base) + who) + t->stream + 1);
	t->random_of = mt_process.pid + 1;
}

/* A new distance. If the mean is another than that of the stream's last one, the reader is told:
 * what stands in the stream from here on was sampled with it. */
static void draw(struct mt_thread *t)
{
	uint64_t mean = __atomic_load_n(&mt_sample_mean, __ATOMIC_RELAXED);

	if (t->random_of != mt_process.pid + 1)
		seed(t);
	if (t->sample_mean != mean) {
		t->sample_mean = mean;
		MT_SELF_BEGIN();
		MT_EMIT(t, sampling, .time = mt_clock_now(), .mean_bytes = mean);
		MT_SELF_END();
	}
	mt_tls.countdown = mt_sample_gap(&t->random, mean);
}

int mt_sample_hit(struct mt_thread *t, size_t size)
{
	size_t bytes = size + !size;

	if (!mt_tls.countdown)
		draw(t);
	if (mt_tls.countdown > bytes) {
		mt_tls.countdown -= bytes;
		return 0;
	}
	mt_tls.countdown = 0; /* the next one is drawn when this one is recorded */
	return 1;
}

/* ---- the table --------------------------------------------------------------------------------- */

static struct bucket *bucket_of(unsigned int segment, const void *block, int choice)
{
	struct bucket *buckets = __atomic_load_n(&segments[segment], __ATOMIC_ACQUIRE);
	uint64_t hash = mix((uint64_t)(uintptr_t)block);

	if (choice)
		hash >>= 32;
	return buckets ? &buckets[hash & ((1u << (FIRST_BITS + segment)) - 1)] : NULL;
}

static int segment_add(unsigned int segment)
{
	size_t size = sizeof(struct bucket) << (FIRST_BITS + segment);
	struct bucket *fresh = mt_mem_map(size), *none = NULL;

	if (!fresh)
		return 0;
	/* Release: zeroed before it is seen. */
	if (!__atomic_compare_exchange_n(&segments[segment], &none, fresh, 0, __ATOMIC_RELEASE,
					 __ATOMIC_RELAXED))
		mt_mem_unmap(fresh, size);
	return 1;
}

static int count_free(const struct bucket *b)
{
	int n = 0;

	for (int i = 0; i < SLOTS; i++)
		n += !__atomic_load_n(&b->block[i], __ATOMIC_RELAXED);
	return n;
}

static int replace(struct bucket *b, uintptr_t old, uintptr_t fresh)
{
	for (int i = 0; i < SLOTS; i++) {
		uintptr_t seen = old;

		if (__atomic_load_n(&b->block[i], __ATOMIC_RELAXED) == old &&
		    __atomic_compare_exchange_n(&b->block[i], &seen, fresh, 0, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED))
			return 1;
	}
	return 0;
}

static void filter_change(const void *block, int by)
{
	uint8_t *n = &mt_sample_filter[mt_sample_hash(block) >> (64 - MT_SAMPLE_FILTER_BITS)];
	uint8_t old = __atomic_load_n(n, __ATOMIC_RELAXED);

	while (old != 255 && !__atomic_compare_exchange_n(n, &old, (uint8_t)(old + by), 0,
							  __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

int mt_sample_insert(const void *block)
{
	for (unsigned int i = 0; i < SEGMENTS; i++) {
		struct bucket *a = bucket_of(i, block, 0), *b;

		if (!a && !segment_add(i))
			return 0;
		a = bucket_of(i, block, 0);
		b = bucket_of(i, block, 1);
		if (count_free(b) > count_free(a)) {
			struct bucket *other = a;

			a = b;
			b = other;
		}
		if (replace(a, 0, (uintptr_t)block) || replace(b, 0, (uintptr_t)block)) {
			filter_change(block, 1);
			return 1;
		}
	}
	return 0;
}

int mt_sample_remove(const void *block)
{
	if (mt_sample_is_unknown(block))
		return 0;
	for (unsigned int i = 0; i < SEGMENTS; i++) {
		struct bucket *a = bucket_of(i, block, 0);

		if (!a)
			return 0;
		if (replace(a, (uintptr_t)block, 0) ||
		    replace(bucket_of(i, block, 1), (uintptr_t)block, 0)) {
			filter_change(block, -1);
			return 1;
		}
	}
	return 0;
}

/* ---- what the recorder asks -------------------------------------------------------------------- */

int mt_sample_take(struct mt_thread *t, const void *block, size_t size)
{
	if (mt_sample_degraded)
		mt_since_add(block);
	if (!mt_sample_hit(t, size))
		return 0;
	if (mt_sample_insert(block))
		return 1;
	mt_count_lost();
	return 0;
}

static int is_from_before(const void *block)
{
	if (!mt_sample_degraded || mt_since_has(block))
		return 0;
	mt_sampling_old_free();
	return 1;
}

int mt_sample_forget(const void *block)
{
	return mt_sample_remove(block) || is_from_before(block);
}

enum { OLD_RECORDED, OLD_KNOWN, OLD_UNKNOWN };

void mt_sample_resizing(struct mt_thread *t, const void *block)
{
	t->old_block = !block			 ? OLD_RECORDED
		       : mt_sample_remove(block) ? OLD_KNOWN
		       : is_from_before(block)	 ? OLD_RECORDED
						 : OLD_UNKNOWN;
}

int mt_sample_resized(struct mt_thread *t)
{
	uint32_t old = t->old_block;

	t->old_block = OLD_RECORDED; /* so it is if sampling begins during a realloc */
	return old != OLD_UNKNOWN;
}

void mt_sample_kept(struct mt_thread *t, const void *block)
{
	if (t->old_block == OLD_KNOWN)
		mt_sample_insert(block);
	t->old_block = OLD_RECORDED;
}

void mt_sample_reset(void)
{
	for (unsigned int i = 0; i < SEGMENTS; i++)
		segments[i] = NULL;
	for (size_t i = 0; i < sizeof(mt_sample_filter); i++)
		mt_sample_filter[i] = 0;
	mt_since_reset();
	mt_sampling_reset();
}
