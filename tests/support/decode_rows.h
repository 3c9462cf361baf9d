/*
 * Nurseries and cells by the C reader, printed as scripts/decode.py prints them.
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#ifndef MEMTRACE_TESTS_DECODE_ROWS_H
#define MEMTRACE_TESTS_DECODE_ROWS_H

#include <string>
#include <utility>
#include <vector>

#include "trace/nursery.h"

namespace memtrace_test
{

using Fields = std::vector<std::pair<const char *, uint64_t>>;

inline std::string PrintItem(const char *name, const Fields &fields, const trace_chunk &chunk)
{
	std::string out = "{\"proc\": " + std::to_string(chunk.proc) +
			  ", \"stream\": " + std::to_string(chunk.stream) +
			  ", \"seq\": " + std::to_string(chunk.seq) + ", \"record\": \"" + name +
			  "\"";

	for (const auto &f : fields)
		out += std::string(", \"") + f.first + "\": " + std::to_string(f.second);
	return out + "}";
}

inline std::string PrintCell(const char *name, const mt_cell &c, const trace_chunk &chunk)
{
	return PrintItem(name,
			 { { "native", c.native },
			   { "python", c.python },
			   { "kind", c.kind },
			   { "count", c.count },
			   { "bytes", c.bytes },
			   { "brief", c.brief },
			   { "largest", c.largest },
			   { "first", c.first },
			   { "last", c.last } },
			 chunk);
}

inline void DecodeNursery(struct trace *t, const trace_chunk &chunk,
			  std::vector<std::string> *lines)
{
	nursery n;

	nursery_read(t, &chunk, &n);
	const mt_nursery &h = n.head;

	if (n.valid)
		lines->push_back(PrintItem("NURSERY",
					   { { "entries", h.entries },
					     { "fold_entry", h.fold_entry },
					     { "fold_cell", h.fold_cell },
					     { "young_time", h.young_time },
					     { "young_bytes", h.young_bytes },
					     { "young_most", h.young_most },
					     { "young_since", h.young_since } },
					   chunk));
	if (n.fold_valid)
		lines->push_back(PrintCell("FOLDING", h.fold, chunk));
	for (size_t i = 0; i < n.entries.count; i++) {
		const mt_young &y = n.entries.items[i].young;

		lines->push_back(PrintItem("YOUNG_BLOCK",
					   { { "index", n.entries.items[i].index },
					     { "time", y.time },
					     { "addr", young_addr(&y) },
					     { "size", y.size },
					     { "native", y.native },
					     { "python", y.python },
					     { "kind", young_kind(&y) } },
					   chunk));
	}
	nursery_release(&n);
}

inline void DecodeCells(struct trace *t, const trace_chunk &chunk, std::vector<std::string> *lines)
{
	cell_list cells = VEC_INIT;

	cells_read(t, &chunk, &cells);
	for (size_t i = 0; i < cells.count; i++)
		lines->push_back(PrintCell("CELL", cells.items[i], chunk));
	vec_release(&cells);
}

} // namespace memtrace_test

#endif
