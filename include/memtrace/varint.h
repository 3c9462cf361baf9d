/*
 * Variable-length integers of the trace: unsigned LEB128 and its zigzag form (the encodings of
 * DWARF 5 section 7.6 and of Protocol Buffers' sint64). Writers never check room: the caller has
 * reserved MT_VARINT_MAX bytes per number. Readers are given the end of the readable bytes and
 * return NULL rather than touch one byte past it, so bytes of a damaged trace can be fed to them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_VARINT_H
#define MEMTRACE_VARINT_H

#include <stddef.h>
#include <stdint.h>

#define MT_VARINT_MAX 10 /* bytes of the longest 64-bit number */
#define MT_LENGTH_BYTES 3 /* a framed record's length: LEB128 padded to this width, < 2 MiB */

static inline uint64_t mt_zigzag(int64_t v)
{
	return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

static inline int64_t mt_unzigzag(uint64_t v)
{
	return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static inline uint8_t *mt_put_varint(uint8_t *p, uint64_t v)
{
	while (v >= 0x80) {
		*p++ = (uint8_t)(v | 0x80);
		v >>= 7;
	}
	*p++ = (uint8_t)v;
	return p;
}

/* Returns the byte after the number, or NULL when it is cut off or longer than 64 bits. */
static inline const uint8_t *mt_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *out)
{
	uint64_t v = 0;
	unsigned int shift = 0;

	for (; p < end && shift < 64; shift += 7) {
		uint8_t byte = *p++;

		if (shift == 63 && byte > 1)
			return NULL;
		v |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80)) {
			*out = v;
			return p;
		}
	}
	return NULL;
}

/* Writes v < 2^21 in exactly MT_LENGTH_BYTES, so that a length can be filled in afterwards. */
static inline void mt_put_length(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v | 0x80);
	p[1] = (uint8_t)((v >> 7) | 0x80);
	p[2] = (uint8_t)((v >> 14) & 0x7f);
}

#endif
