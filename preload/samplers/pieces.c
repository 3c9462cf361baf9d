/*
 * See pieces.h.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include "samplers/pieces.h"

enum mt_look mt_pieces_choose(const struct mt_pieces *p, uint64_t tag, uint64_t faults,
			      uint64_t few)
{
	uint64_t oldest = UINT64_MAX;

	if (!tag || p->tag != tag || !faults)
		return MT_LOOK_WHOLE;
	for (uint32_t i = 0; i < MT_PIECE_TURNS; i++)
		oldest = p->faults[i] < oldest ? p->faults[i] : oldest;
	if (faults < oldest)
		return MT_LOOK_WHOLE; /* another process by now */
	if (faults - oldest < few)
		return MT_LOOK_NONE;
	if (faults - oldest <= p->shared / MT_PIECE_MISSED ||
	    p->shared <= p->first / MT_PIECE_MISSED)
		return MT_LOOK_PART;
	return MT_LOOK_WHOLE;
}

void mt_pieces_begin(struct mt_pieces *p, uint64_t tag, enum mt_look look)
{
	if (p->tag != tag)
		p->tag = 0;
	p->look = look;
	p->at = p->old = 0;
}

enum mt_piece_way mt_pieces_way(struct mt_pieces *p, uint64_t piece, int whole)
{
	const struct mt_piece_run *own = p->own[1 - p->now];
	uint32_t count = p->tag ? p->count[1 - p->now] : 0;
	int is_own;

	while (p->old < count && own[p->old].end <= piece)
		p->old++;
	is_own = whole && p->old < count && own[p->old].first <= piece;
	if (p->look == MT_LOOK_PART && piece % MT_PIECE_TURNS != p->turn)
		return is_own ? MT_PIECE_UNSEEN_OWN : MT_PIECE_UNSEEN;
	return is_own ? MT_PIECE_OWN : MT_PIECE_READ;
}

void mt_pieces_own(struct mt_pieces *p, uint64_t piece)
{
	struct mt_piece_run *own = p->own[p->now];

	if (p->at && own[p->at - 1].end == piece) {
		own[p->at - 1].end++;
	} else if (p->at < MT_PIECE_RUNS) {
		own[p->at++] = (struct mt_piece_run){ (uint32_t)piece, (uint32_t)piece + 1 };
	}
}

void mt_pieces_end(struct mt_pieces *p, uint64_t tag, uint64_t faults)
{
	p->count[p->now] = p->at;
	p->now = 1 - p->now;
	if (p->look == MT_LOOK_PART) {
		p->faults[p->turn] = faults;
		p->turn = (p->turn + 1) % MT_PIECE_TURNS;
		return;
	}
	for (uint32_t i = 0; i < MT_PIECE_TURNS; i++)
		p->faults[i] = faults;
	/* Pages become its own, not shared, until it forks; zeros that are only read count as shared. */
	if (p->tag != tag)
		p->first = p->shared = p->found;
	p->shared = p->shared < p->found ? p->shared : p->found;
	p->tag = tag;
}
