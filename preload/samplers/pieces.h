/*
 * What repeated looks at one process's pages know of each other, so that a later one reads less. The
 * kernel looks at the descriptor of each page when pagemap is read, a cache miss each; asking only
 * what is present (PAGEMAP_SCAN) costs a fraction. Addresses are taken in pieces of 2 MiB:
 *
 * - a piece whose pages were all the process's own, and none of them huge or swapped, stays its own
 *   until the process forks: pages that come anew are its own, too. It is asked only what is present,
 *   and of one page whether it is still exclusive; if not, the piece is read.
 * - an eighth is looked at in each look, in turn, while few pages can have been copied since their
 *   turn: every copy is a page fault of the process, and of a page that was shared. Else all are.
 *
 * A look that is cut short changes nothing here. Not thread-safe: who looks has mt_pages to itself.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_PRELOAD_PIECES_H
#define MEMTRACE_PRELOAD_PIECES_H

#include <stdint.h>

#define MT_PIECE_SHIFT 21
#define MT_PIECE_BYTES (UINT64_C(1) << MT_PIECE_SHIFT)
#define MT_PIECE_TURNS 8u /* of 15 to 30 ms for each GiB that is 2 to 4 in a look */
/* Of the shared pages a 64th may be copied unseen, or be all that is left: a tenth of the 15 % by which
 * the report's copied bytes may be off where much was copied; and a whole look for each 64th that is
 * copied makes 64 of them at most, which is about what the copies themselves cost. */
#define MT_PIECE_MISSED 64u
#define MT_PIECE_RUNS 2048u

struct mt_piece_run {
	uint32_t first, end; /* address >> MT_PIECE_SHIFT */
};

enum mt_piece_way {
	MT_PIECE_READ, /* from pagemap */
	MT_PIECE_OWN, /* all its own: what is present */
	MT_PIECE_UNSEEN, /* not in this look */
	MT_PIECE_UNSEEN_OWN, /* the same, and it stays known as its own */
};

enum mt_look {
	MT_LOOK_WHOLE,
	MT_LOOK_PART,
	MT_LOOK_NONE, /* what was found stands */
};

struct mt_pieces { /* zeroed: nothing is known */
	uint64_t tag; /* caller's: what it knows is of this; 0: nothing */
	uint64_t shared; /* pages, in the last whole look, or fewer */
	uint64_t first; /* the same in the first one of this tag */
	uint64_t faults[MT_PIECE_TURNS]; /* when the pieces of a turn were last looked at */
	uint32_t turn; /* the next one */
	/* Of the look that is under way. */
	enum mt_look look;
	uint64_t found; /* shared pages, in what it read; set by who reads */
	uint32_t at, old; /* runs: of `now` that are written, of the other that are passed */
	uint32_t now; /* which list is written; the other one is of the last look */
	uint32_t count[2];
	struct mt_piece_run own[2][MT_PIECE_RUNS]; /* ascending */
};

/* What to do if that process had `faults` page faults by now. few: so many copy nothing. */
enum mt_look mt_pieces_choose(const struct mt_pieces *p, uint64_t tag, uint64_t faults,
			      uint64_t few);

/* A look begins; the pieces are asked for and told in ascending order. */
void mt_pieces_begin(struct mt_pieces *p, uint64_t tag, enum mt_look look);

/* How to look at this piece; whole: one mapping has all of it, else it is no more known to be its own. */
enum mt_piece_way mt_pieces_way(struct mt_pieces *p, uint64_t piece, int whole);

/* All of it is the process's own, as was seen or is known. Beyond MT_PIECE_RUNS runs it is forgotten,
 * and read again. */
void mt_pieces_own(struct mt_pieces *p, uint64_t piece);

/* The look came to its end and stands in the trace. faults: when it began. */
void mt_pieces_end(struct mt_pieces *p, uint64_t tag, uint64_t faults);

#endif
